"""Run the detector over a centre and keep the RoI features of its cells."""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.data.images import read_image
from mrcnn.data.records import ImageRecord
from mrcnn.data.resizing import resize
from mrcnn.detection import LIMITS, attempt, detect_each, detection_limit, warn_of_full
from mrcnn.feature_store import ARRAY_FIELDS, UNREADABLE, Cell, FeatureStore, FeatureStoreWriter, clear_parts
from mrcnn.feature_store.shards import SHARD, Shard, describe_images, shard_settings
from mrcnn.files.errors import InputError
from mrcnn.files.interruption import held_back
from mrcnn.files.progress import Bar
from mrcnn.files.read_ahead import read_ahead
from mrcnn.files.run_folder import check_same
from mrcnn.model import MaskRCNN, detector_hash
from mrcnn.morphology import COLUMNS, measure_detections
from mrcnn.network.assembly import NUCLEUS
from mrcnn.training.folder import read_settings

log = logging.getLogger(__name__)

BATCHES_AHEAD = 3  # read while the network works on one
MAKERS = 4  # images whose cells are cut out and measured at a time, beside the network
# Setting of a store: the maximum of cells of an image, where it is not the detector's own.
MAX_DETECTIONS = "max_detections"

MASKS, NUCLEI = "small_masks", "small_nucleus_masks"  # of a result

CROP_SIZE = 128
# The reference implementation grows the box by 10 px before and 20 px after on images brought to 400 px.
CROP_MARGIN_BEFORE, CROP_MARGIN_AFTER, CROP_MARGIN_FRAME = 10, 20, 400


def choose_cell(boxes: np.ndarray, scores: np.ndarray, image_shape: Sequence[int]) -> int:
    """Row of the detection that a single-cell image shows: the best-scored one that covers the image's centre.

    If none of the boxes `(n, 4)`, in pixels, covers it, the best-scored one; n is at least 1.
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


def make_cells(image: np.ndarray, result: dict[str, np.ndarray], rows: Sequence[int]) -> list[Cell]:
    """Cells of the store for some rows of a result of `MaskRCNN.detect`."""
    whole = resize(image, (CROP_SIZE, CROP_SIZE))
    measured = measure_detections(image, result, rows) if NUCLEI in result else [None] * len(rows)

    def stored(name: str, row: int) -> np.ndarray | None:
        return np.round(result[name][row] * 255.0).astype(np.uint8) if name in result else None

    def make(row: int, morphology: np.ndarray | None) -> Cell:
        y1, x1, y2, x2 = grown_box(result["rois"][row], image.shape)
        return Cell(
            features=result["feats"][row],
            crop=resize(image[y1:y2, x1:x2], (CROP_SIZE, CROP_SIZE)),
            image=whole,
            box=result["rois"][row].astype(np.float32),
            score=float(result["scores"][row]),
            class_id=int(result["class_ids"][row]),
            image_shape=image.shape[:2],
            mask=stored(MASKS, row),
            nucleus_mask=stored(NUCLEI, row),
            morphology=morphology,
        )

    return [make(row, numbers) for row, numbers in zip(rows, measured, strict=True)]


def extract_features(
    detector: MaskRCNN,
    records: Sequence[ImageRecord],
    path: str | Path,
    *,
    centre: str,
    all_cells: bool = False,
    with_masks: bool = True,
    batch_size: int = 8,
    shard: Shard | None = None,
    part_size: int = 128,
    attributes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Detect the cells of a centre and write them to a feature store; an interrupted run resumes.

    Rows have the order of the records. Which images share a batch follows from their positions alone, so that a
    resumed run computes what an undisturbed one does, to the last bit where the network repeats itself so.

    Args:
        detector: a trained model, opened with `load_detector`.
        records: the images of the whole centre, also for a shard.
        path: the store's final name. A finished store of the same detector is left as it is.
        centre: name of the centre.
        all_cells: keep every detection, for images of whole fields; else one cell for each image (`choose_cell`).
        with_masks: store masks and, where the detector draws nuclei, theirs and what is measured on both (see
            `mrcnn.morphology`); the mask head takes most of the time.
        batch_size: images in a batch.
        shard: extract only this part of the centre; `open_store` and `merge_stores` make one of all.
        part_size: images or cells after which they are safe on the disk; a kill costs at most so many.
        attributes: further settings to note in the store, JSON values; a store that notes others is another one.
        overwrite: extract again although a store is there; an interrupted run of the same settings still resumes.

    Returns:
        The store's counts: images, found, missed, unreadable, detections, cells.

    Raises:
        InputError: if there are no records, fewer than shards, a file name is not UTF-8, the detector's features have
            not the store's shape, or another store is there and `overwrite` is False.
    """
    path = Path(path)
    if not records:
        raise InputError(f"centre {centre} has no image to extract features from")
    image_ids = [record.image_id for record in records]
    for image_id in image_ids:  # now, and not when the store is to hold it
        try:
            image_id.encode()
        except UnicodeEncodeError:
            raise InputError(f"{image_id!r}: name is not valid UTF-8; rename the file") from None
    config = detector.config
    shape = (config.MASK_POOL_SIZE, config.MASK_POOL_SIZE, config.TOP_DOWN_PYRAMID_SIZE)
    if shape != ARRAY_FIELDS["features"][1]:
        advice = "train a detector with MASK_POOL_SIZE 14 and TOP_DOWN_PYRAMID_SIZE 256"
        raise InputError(f"features of shape {shape} do not fit into a feature store; {advice}")
    identity = {"hash": detector_hash(detector.model_dir), "config": config.to_dict()}
    settings = {
        "all_cells": all_cells,
        "crop_margin": [CROP_MARGIN_BEFORE, CROP_MARGIN_AFTER, CROP_MARGIN_FRAME],
        "min_score": config.DETECTION_MIN_CONFIDENCE,
        **_limit_setting(detector),
        **(attributes or {}),
    }
    if shard is not None:
        if shard.count > len(records):
            raise InputError(f"shard {shard}: centre {centre} has only {len(records)} images; divide it into fewer")
        settings |= shard_settings(shard, image_ids)
        records, image_ids = (rows[shard.number - 1 :: shard.count] for rows in (records, image_ids))
    if path.exists() and not overwrite:
        with FeatureStore(path) as store:
            there, now = (describe_images(sorted(ids)) for ids in (store.all_image_ids.tolist(), image_ids))
            wanted = {"centre": centre, "with_masks": with_masks, SHARD: None, MAX_DETECTIONS: None, **settings}
            made = {name: store.attributes.get(name) for name in wanted}
            made |= {"detector_hash": store.detector_hash, "images": there}
            check_same(path, made, wanted | {"detector_hash": identity["hash"], "images": now})
            log.info("%s: reused, %d cells", path.name, len(store))
            clear_parts(path)
            return store.counts
    options = {"attributes": settings, "part_size": part_size, "replace_parts": overwrite}
    if with_masks:
        options |= {"with_masks": True, "mask_shape": config.MASK_SHAPE}
        if NUCLEUS in config.MASK_PARTS:
            options |= {"with_nuclei": True, "morphology": tuple(COLUMNS)}
    with FeatureStoreWriter(path, centre=centre, detector=identity, **options) as writer:
        _extract(detector, records, writer, all_cells, with_masks, batch_size)
    with FeatureStore(path) as store:
        is_full = store.image_column("num_detections") >= detection_limit(config)
        warn_of_full(store.all_image_ids[is_full].tolist(), config)
        return store.counts


def _limit_setting(detector: MaskRCNN) -> dict[str, int]:
    """The maximum of cells of an image as a setting of the store; nothing where it is the detector's own."""
    limit = detection_limit(detector.config)
    trained = {name: getattr(detector.config, name) for name in LIMITS} | read_settings(Path(detector.model_dir))
    return {} if limit == min(trained[name] for name in LIMITS) else {MAX_DETECTIONS: limit}


def _extract(detector, records, writer, all_cells, with_masks, batch_size) -> None:
    """Deal with all images that are not in the store yet."""
    done = frozenset(writer.done_ids)
    if done:
        log.info("%s: going on after %d of %d images", writer.path.name, len(done), len(records))
    batches = [records[start : start + batch_size] for start in range(0, len(records), batch_size)]
    # A batch of which a part is done is computed again as a whole: other company would change the last bits.
    batches = [batch for batch in batches if not done.issuperset(record.image_id for record in batch)]
    reason = f"no detection above score {detector.config.DETECTION_MIN_CONFIDENCE:g}"
    paths = (record.path for batch in batches for record in batch)
    images = read_ahead(lambda path: attempt(read_image, path), paths, num_ahead=BATCHES_AHEAD * batch_size)
    name = f"extract {writer.path.stem}"
    with closing(images), Bar(total=len(records), initial=len(done), desc=name, unit="image") as shown:
        with held_back() as interruption, ThreadPoolExecutor(MAKERS) as makers, ThreadPoolExecutor(1) as behind:
            written = behind.submit(tuple)  # nothing so far
            for batch in batches:
                interruption.check()  # what was found so far is saved
                read = list(islice(images, len(batch)))
                names = [str(record.path) for record in batch]
                results = detect_each(detector, read, names, masks=with_masks, paste=False)
                rows = [row for row in zip(batch, read, results, strict=True) if row[0].image_id not in done]
                written.result()  # after a fault nothing more is written, so that the store has no gap
                written = behind.submit(_store, writer, rows, reason, all_cells, makers)
                shown.update(len(rows))
            written.result()


def _store(writer, rows, reason, all_cells, makers) -> None:
    """Write the cells of some images; record the images without one."""

    def make(row) -> list[Cell]:
        _, image, result = row
        if isinstance(result, InputError) or not len(result["scores"]):
            return []
        everything = range(len(result["scores"]))
        kept = everything if all_cells else [choose_cell(result["rois"], result["scores"], image.shape)]
        return make_cells(image, result, kept)

    for (record, _, result), cells in zip(rows, makers.map(make, rows), strict=True):
        if isinstance(result, InputError):
            log.warning("%s", result)
            writer.missed(record.image_id, f"{UNREADABLE}: {result}", record.label, record.cell_type)
            continue
        if not cells:
            writer.missed(record.image_id, reason, record.label, record.cell_type)
            continue
        texts = {"label": record.label, "cell_type": record.cell_type}
        writer.add(record.image_id, cells, **texts, num_detections=len(result["scores"]))
