"""Instance masks: their boxes, mini-masks, pasting back into the image, label images and outlines."""

import os
from collections.abc import Sequence

import cv2
import numpy as np
import shapely
import tifffile
from shapely.geometry.polygon import orient

from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError

# Of all masks of an image together, a byte for each pixel and instance.
MAX_MASK_BYTES = 1 << 30
MICROMETRES_PER_CM = 10_000.0


def check_mask_memory(source: object, num_instances: int, height: int, width: int) -> None:
    """Refuse, with an InputError, an image whose masks would fill the memory, as of a photograph taken for a mask."""
    if num_instances * height * width > MAX_MASK_BYTES:
        raise InputError(
            f"{source}: {num_instances} objects on {width}x{height} px, whose masks take more than "
            f"{MAX_MASK_BYTES >> 30} GiB; see whether these are objects, or cut the image into tiles"
        )


def extract_bboxes(mask: np.ndarray) -> np.ndarray:
    """Return the tight box of each mask `(height, width, num_instances)`, non-zero inside.

    Boxes are int32 (num_instances, 4), `(y1, x1, y2, x2)` in pixels, y2 and x2 exclusive; zeros for an empty mask.
    """
    num_instances = mask.shape[-1]
    boxes = np.zeros((num_instances, 4), np.int32)
    rows, columns = mask.any(axis=1), mask.any(axis=0)
    for i in range(num_instances):
        ys, xs = np.flatnonzero(rows[:, i]), np.flatnonzero(columns[:, i])
        if ys.size:
            boxes[i] = ys[0], xs[0], ys[-1] + 1, xs[-1] + 1
    return boxes


def minimize_mask(bbox: np.ndarray, mask: np.ndarray, mini_shape: Sequence[int]) -> np.ndarray:
    """Crop each mask to its box and resize it to `mini_shape`, which saves memory and host-to-device traffic.

    Boxes are (num_instances, 4), `(y1, x1, y2, x2)` pixels; one without area is a ValueError. Masks are bool (height,
    width, num_instances), before and after.
    """
    mini_height, mini_width = int(mini_shape[0]), int(mini_shape[1])
    mini_masks = np.zeros((mini_height, mini_width, mask.shape[-1]), bool)
    for i, (y1, x1, y2, x2) in enumerate(np.asarray(bbox)[:, :4].astype(int)):
        crop = mask[y1:y2, x1:x2, i]
        if crop.size == 0:
            raise ValueError(f"box {i} has no area: {(y1, x1, y2, x2)}")
        mini_masks[..., i] = _resize_probability(crop, (mini_height, mini_width)) >= 0.5
    return mini_masks


def expand_mask(bbox: np.ndarray, mini_mask: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Undo `minimize_mask` up to resampling: masks of an image of `image_shape` (height, width, ...)."""
    masks = np.zeros((*image_shape[:2], mini_mask.shape[-1]), bool)
    for i in range(mini_mask.shape[-1]):
        masks[..., i] = unmold_mask(mini_mask[..., i], bbox[i][:4], image_shape)
    return masks


def unmold_mask(mask: np.ndarray, bbox: np.ndarray, image_shape: Sequence[int]) -> np.ndarray:
    """Turn the network's small mask of a box into a mask of an image of `image_shape` (height, width, ...), bool.

    `mask` holds probabilities, float (mask_height, mask_width): from 0.5 on a pixel is inside. What of the box,
    `(y1, x1, y2, x2)` pixels, lies outside the image is cut off.
    """
    height, width = int(image_shape[0]), int(image_shape[1])
    y1, x1, y2, x2 = (int(v) for v in bbox)
    full = np.zeros((height, width), bool)
    if y2 <= y1 or x2 <= x1:
        return full
    inside = _resize_probability(mask, (y2 - y1, x2 - x1)) >= 0.5
    top, left, bottom, right = max(y1, 0), max(x1, 0), min(y2, height), min(x2, width)
    if top < bottom and left < right:
        full[top:bottom, left:right] = inside[top - y1 : bottom - y1, left - x1 : right - x1]
    return full


def _resize_probability(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def label_image(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Lay instance masks, bool (height, width, num_instances), into one image of numbers.

    Where masks overlap the better of the scores (num_instances,) wins, of equal ones the first.

    Returns:
        Array of shape (height, width): 0 is background, i + 1 is instance i, of which nothing may be left. uint16, or
        uint32 when there are more than 65,535 instances.
    """
    labels = np.zeros(masks.shape[:2], np.uint16 if masks.shape[-1] <= np.iinfo(np.uint16).max else np.uint32)
    # From the worst to the best, so that the best is painted last.
    for i in np.argsort(-scores, kind="stable")[::-1]:
        labels[masks[..., i] != 0] = i + 1
    return labels


def write_label_image(path: str | os.PathLike, labels: np.ndarray, pixel_size: float | None = None) -> None:
    """Write a label image, uint16 or uint32 (height, width), as a deflated TIFF, atomically.

    `pixel_size`, the side of a pixel in micrometres, is kept as the file's resolution; None leaves that open.
    """
    scale = {"resolution": (MICROMETRES_PER_CM / pixel_size,) * 2, "resolutionunit": "CENTIMETER"} if pixel_size else {}
    with atomic_path(path) as temporary:
        # No metadata: the pixels are all there is to say, and equal labels then give equal files.
        tifffile.imwrite(
            temporary, labels, photometric="minisblack", compression="zlib", metadata=None, software=False, **scale
        )


def mask_polygons(mask: np.ndarray) -> list[list[list[tuple[int, int]]]]:
    """Outline a mask, one polygon for each part of it.

    Pixels that share an edge belong to one part; those that only touch at a corner do not. So no ring touches itself,
    as the GeoJSON and OGC rules for polygons ask.

    Returns:
        Polygons of the mask `(height, width)`, the largest first. A polygon is a list of rings, the outer one first,
        then those of its holes. A ring is a list of integer corners (x, y), the first repeated at the end, with no
        corner on a straight line. Outer rings have a positive area by the shoelace formula, holes a negative one.

    Reference:
        RFC 7946, section 3.1.6 (order of the rings and their direction).
    """
    inside = np.ascontiguousarray(np.asarray(mask) != 0).view(np.int8)
    left, top, width, height = cv2.boundingRect(inside.view(np.uint8))
    steps = np.diff(np.pad(inside[top : top + height, left : left + width], ((0, 0), (1, 1))), axis=1)
    (rows, starts), (_, ends) = np.nonzero(steps == 1), np.nonzero(steps == -1)
    runs = shapely.union_all(shapely.box(starts + left, rows + top, ends + left, rows + top + 1))
    parts = [orient(part.simplify(0)) for part in getattr(runs, "geoms", [runs]) if not part.is_empty]
    parts.sort(key=lambda part: part.area, reverse=True)
    return [[[(int(x), int(y)) for x, y in ring.coords] for ring in (p.exterior, *p.interiors)] for p in parts]
