"""Run the detector over a centre and keep the RoI features of its cells."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from mrcnn.data.images import read_image
from mrcnn.data.records import ImageRecord
from mrcnn.errors import InputError
from mrcnn.feature_store import ARRAY_FIELDS, UNREADABLE, Cell, FeatureStore, FeatureStoreWriter
from mrcnn.model import MaskRCNN, detector_hash

log = logging.getLogger(__name__)

CROP_SIZE = 128
# The reference implementation grows the box by 10 px before and 20 px after on images brought to 400 px.
CROP_MARGIN_BEFORE, CROP_MARGIN_AFTER, CROP_MARGIN_FRAME = 10, 20, 400


def choose_cell(boxes: np.ndarray, scores: np.ndarray, image_shape: Sequence[int]) -> int:
    """Which of several detections is the cell that a single-cell image shows.

    Args:
        boxes: array of shape (n, 4), pixels, n at least 1.
        scores: array of shape (n,).
        image_shape: (height, width, ...).

    Returns:
        Row of the best-scored box that covers the image's centre, or of the best-scored one if none does.
    """
    y, x = image_shape[0] / 2, image_shape[1] / 2
    covers = (boxes[:, 0] <= y) & (y < boxes[:, 2]) & (boxes[:, 1] <= x) & (x < boxes[:, 3])
    return int(np.argmax(np.where(covers, scores + 1.0, scores)))


def grown_box(box: np.ndarray, image_shape: Sequence[int]) -> tuple[int, int, int, int]:
    """The part of the image that the image decoder reconstructs: the box with a margin, inside the image.

    The margin is 10 px before and 20 px after on an image whose longer side is 400 px, and in proportion on others.
    """
    height, width = int(image_shape[0]), int(image_shape[1])
    unit = max(height, width) / CROP_MARGIN_FRAME
    before, after = round(CROP_MARGIN_BEFORE * unit), round(CROP_MARGIN_AFTER * unit)
    y1, x1, y2, x2 = (int(v) for v in box)
    return max(y1 - before, 0), max(x1 - before, 0), min(y2 + after, height), min(x2 + after, width)


def resize_square(image: np.ndarray, size: int = CROP_SIZE) -> np.ndarray:
    """Resize to `size` x `size`, the aspect ratio not kept; by area average where it shrinks."""
    shrinks = min(image.shape[:2]) > size
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def make_cells(image: np.ndarray, result: dict[str, np.ndarray], rows: Sequence[int]) -> list[Cell]:
    """Cells of the store for some rows of a result of `MaskRCNN.detect`."""
    whole = resize_square(image)
    cells = []
    for row in rows:
        y1, x1, y2, x2 = grown_box(result["rois"][row], image.shape)
        mask = None
        if "small_masks" in result:
            mask = np.round(result["small_masks"][row] * 255.0).astype(np.uint8)
        cells.append(
            Cell(
                features=result["feats"][row],
                crop=resize_square(image[y1:y2, x1:x2]),
                image=whole,
                box=result["rois"][row].astype(np.float32),
                score=float(result["scores"][row]),
                class_id=int(result["class_ids"][row]),
                image_shape=image.shape[:2],
                mask=mask,
            )
        )
    return cells


def extract_features(
    detector: MaskRCNN,
    records: Sequence[ImageRecord],
    path: str | Path,
    *,
    centre: str,
    all_cells: bool = False,
    with_masks: bool = True,
    batch_size: int = 8,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Detect the cells of a centre and write them to a feature store, going on where an interrupted run stopped.

    Args:
        detector: a trained model, opened with `load_detector`.
        records: the images.
        path: the store's final name. A finished store of the same detector is left as it is.
        centre: name of the centre.
        all_cells: keep every detection, for images of whole fields; else one cell for each image (`choose_cell`).
        with_masks: store 28x28 masks; the mask head takes most of the time.
        batch_size: images in a batch.
        overwrite: extract again although a store is there.
        progress: show a bar with the time left.

    Returns:
        The store's counts: images, found, missed, unreadable, detections, cells.

    Raises:
        InputError: if there are no records, the detector's features have not the store's shape, or a store of another
            detector, other settings or other images is there and `overwrite` is False.
    """
    path = Path(path)
    if not records:
        raise InputError(f"centre {centre} has no image to extract features from")
    config = detector.config
    shape = (config.MASK_POOL_SIZE, config.MASK_POOL_SIZE, config.TOP_DOWN_PYRAMID_SIZE)
    if shape != ARRAY_FIELDS["features"][1]:
        raise InputError(
            f"the detector gives features of shape {shape}, a feature store takes {ARRAY_FIELDS['features'][1]}: "
            "train one with MASK_POOL_SIZE 14 and TOP_DOWN_PYRAMID_SIZE 256"
        )
    identity = {"hash": detector_hash(detector.model_dir), "config": config.to_dict()}
    settings = {
        "all_cells": all_cells,
        "crop_margin": [CROP_MARGIN_BEFORE, CROP_MARGIN_AFTER, CROP_MARGIN_FRAME],
        "min_score": config.DETECTION_MIN_CONFIDENCE,
    }
    if path.exists() and not overwrite:
        wanted = {"centre": centre, "with_masks": with_masks, **settings}
        return _check_existing(path, identity["hash"], wanted, {record.key for record in records})
    reason = f"no detection above score {config.DETECTION_MIN_CONFIDENCE:g}"
    with FeatureStoreWriter(
        path, centre=centre, detector=identity, with_masks=with_masks, attributes=settings
    ) as writer:
        done = writer.done_keys
        if done:
            log.info("%s: going on after %d of %d images", path.name, len(done), len(records))
        todo = [record for record in records if record.key not in done]
        bar = tqdm(
            total=len(records),
            initial=len(done),
            desc=f"extract {centre}",
            unit="image",
            disable=not progress,
        )
        for batch in _chunks(todo, batch_size):
            _extract_batch(detector, batch, writer, reason, all_cells, with_masks)
            bar.update(len(batch))
        bar.close()
    with FeatureStore(path) as store:
        return store.counts


def _extract_batch(detector, records, writer, reason, all_cells, with_masks) -> None:
    """Detect on the readable images of a batch; record the others as unreadable."""
    images, readable = [], []
    for record in records:
        try:
            images.append(read_image(record.path))
            readable.append(record)
        except InputError as error:
            log.warning("%s", error)
            writer.missed(record.key, f"{UNREADABLE}: {error}", record.label, record.cell_type)
    if not images:
        return
    for record, image, result in zip(readable, images, detector.detect(images, masks=with_masks), strict=True):
        count = len(result["scores"])
        if not count:
            writer.missed(record.key, reason, record.label, record.cell_type)
            continue
        rows = range(count) if all_cells else [choose_cell(result["rois"], result["scores"], image.shape)]
        cells = make_cells(image, result, rows)
        writer.add(record.key, cells, label=record.label, cell_type=record.cell_type, num_detections=count)


def _check_existing(path: Path, wanted_hash: str, wanted: dict[str, Any], keys: set[str]) -> dict[str, int]:
    """Counts of a finished store, if it is what would be made now."""
    with FeatureStore(path) as store:
        if store.detector_hash != wanted_hash:
            raise InputError(f"{path} was made by another detector: choose another output, or give --overwrite")
        there = store.attributes
        changed = [
            f"{name} {there.get(name)!r}, not {value!r}" for name, value in wanted.items() if there.get(name) != value
        ]
        if changed:
            raise InputError(
                f"{path} was made with other settings ({'; '.join(changed)}): choose another output or give --overwrite"
            )
        if set(store.image_keys.tolist()) != keys:
            raise InputError(f"{path} holds other images than the centre has now: give --overwrite to make it again")
        log.info("%s: reused, %d cells", path.name, len(store))
        return store.counts


def _chunks(items: list, size: int) -> Iterator[list]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
