"""Instance masks as one label image, and label images as TIFF files."""

import os

import numpy as np
import tifffile

from mrcnn.atomic import atomic_path

MICROMETRES_PER_CM = 10_000.0


def label_image(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Lay instance masks into one image of numbers.

    Args:
        masks: bool array of shape (height, width, num_instances).
        scores: array of shape (num_instances,); where masks overlap the better score wins, of equal ones the first.

    Returns:
        Array of shape (height, width): 0 is background, i + 1 is instance i. uint16, or uint32 when there are more
        than 65,535 instances. An instance that better ones cover entirely has no pixel left.

    Raises:
        ValueError: if masks and scores differ in number.
    """
    masks, scores = np.asarray(masks), np.asarray(scores)
    num_instances = masks.shape[-1]
    if scores.shape != (num_instances,):
        raise ValueError(f"got {num_instances} masks and scores of shape {scores.shape}")
    fits = num_instances <= np.iinfo(np.uint16).max
    labels = np.zeros(masks.shape[:2], np.uint16 if fits else np.uint32)
    # From the worst to the best, so that the best is painted last.
    for i in np.argsort(-scores, kind="stable")[::-1]:
        labels[masks[..., i] != 0] = i + 1
    return labels


def write_label_image(path: str | os.PathLike, labels: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a label image as a deflated TIFF, atomically.

    Args:
        path: the file.
        labels: uint16 or uint32 array of shape (height, width).
        pixel_size: side of a pixel in micrometres, kept as the file's resolution; None leaves that open.
    """
    scale = {}
    if pixel_size is not None:
        scale = {"resolution": (MICROMETRES_PER_CM / pixel_size,) * 2, "resolutionunit": "CENTIMETER"}
    with atomic_path(path) as temporary:
        # No metadata: the pixels are all there is to say, and equal labels then give equal files.
        tifffile.imwrite(
            temporary, labels, photometric="minisblack", compression="zlib", metadata=None, software=False, **scale
        )
