"""The pictures of a report: what the detector saw, missed and learned from, what the autoencoder kept."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from experiments.doubtful import doubtful_rows
from experiments.figures import choose_rows
from experiments.masked_images import LabelImages, Outlines, choice_of_settings, find_masks
from experiments.report_run import Run
from mrcnn.data.images import IMAGE_SUFFIXES, read_image
from mrcnn.data.masks import unmold_mask
from mrcnn.data.records import ImageRecord
from mrcnn.errors import InputError
from mrcnn.feature_store import FeatureStore, is_unreadable
from mrcnn.visualize import augmentation_sheet, draw_detections

log = logging.getLogger(__name__)

OVERLAY_SIDE = 360  # px; a tile of the page is 265 px wide
AUGMENTED_COLUMNS = 8


class Picture(NamedTuple):
    """A picture with what is known of it.

    Attributes:
        pixels: uint8 array of shape (height, width, 3).
        key: the image's key in its centre.
        name: the cell type, or else the centre's own label, or "".
        detail: further text, such as the score.
    """

    pixels: np.ndarray
    key: str
    name: str
    detail: str = ""


def overlays(run: Run, centre: str, number: int = 8) -> tuple[list[Picture], int]:
    """Draw the stored detections over some of a centre's original images.

    Args:
        run: the run.
        centre: one with a store.
        number: how many images, chosen at random.

    Returns:
        The pictures, and how many of the chosen images could not be opened any more.
    """
    pictures, lost = [], 0
    with FeatureStore(run.stores[centre]) as store:
        keys = store.keys
        names = np.unique(keys)
        for key in names[choose_rows(len(names), number, run.seed)]:
            rows = np.flatnonzero(keys == key)
            image = _open(run, centre, key)
            if image is None:
                lost += 1
                continue
            boxes, scores = store.read_rows("box", rows), store.read_rows("score", rows)
            masks = None
            if "mask" in store.fields:
                small = store.read_rows("mask", rows) / 255.0
                masks = np.stack([unmold_mask(m, b, image.shape) for m, b in zip(small, boxes, strict=True)], axis=-1)
            drawn = draw_detections(image, boxes, scores, masks, min_side=OVERLAY_SIDE)
            name = store.cell_types[rows[0]] or store.labels[rows[0]]
            pictures.append(Picture(drawn, str(key), str(name)))
    return pictures, lost


def crops(run: Run, centre: str, number: int = 40) -> list[Picture]:
    """Read the crops of some of a centre's cells, chosen at random, sorted by type."""
    with FeatureStore(run.stores[centre]) as store:
        rows = choose_rows(len(store), number, run.seed)
        names = [str(store.cell_types[row] or store.labels[row]) for row in rows]
        scores = store.read_rows("score", rows)
        pictures = [
            Picture(pixels, str(store.keys[row]), name, f"{score:.2f}")
            for row, name, score, pixels in zip(rows, names, scores, store.read_rows("crop", rows), strict=True)
        ]
    return sorted(pictures, key=lambda picture: picture.name)


def doubtful_cells(run: Run, centre: str, number: int = 24) -> list[Picture]:
    """Draw the boxes of the centre's most doubtful cells over their images, the worst first."""
    with FeatureStore(run.stores[centre]) as store:
        rows = doubtful_rows(store, number)
        pictures = []
        for row in rows:
            image = store.read_rows("image", [row])[0]
            shape = store.read_rows("image_shape", [row])[0]
            box = store.read_rows("box", [row]) * (np.array([*image.shape[:2]] * 2) / np.tile(shape, 2))
            drawn = draw_detections(image, box, store.read_rows("score", [row]), min_side=OVERLAY_SIDE // 2)
            name = str(store.cell_types[row] or store.labels[row])
            pictures.append(Picture(drawn, str(store.keys[row]), name))
    return pictures


def missed_images(run: Run, centre: str, number: int = 12) -> list[Picture]:
    """Open some of the readable images on which no cell was found, chosen at random."""
    readable = [m for m in run.summaries[centre].missed if not is_unreadable(m["reason"])]
    pictures = []
    for index in choose_rows(len(readable), number, run.seed):
        entry = readable[index]
        image = _open(run, centre, entry["key"])
        if image is not None:
            name = entry["cell_type"] or entry["label"]
            pictures.append(Picture(image, entry["key"], name, entry["reason"]))
    return pictures


def augmented_samples(run: Run, number: int = 5) -> tuple[np.ndarray, Any] | None:
    """Draw training images of the detector beside random augmentations of them, as its training makes them.

    Args:
        run: the run.
        number: images, one for each row of the sheet.

    Returns:
        uint8 sheet, the untouched image first in each row, and the detector's `Config`; None without a
        detector's folder, without an augmentation in its config, or where its training images are gone.
    """
    values, splits = run.read_json("detector/config.json"), run.read_json("detector/split.json")
    if not values or not splits:
        return None
    # These import TensorFlow, which everything else here does without.
    from mrcnn.config import Config, make_config
    from mrcnn.data.augmentation import augment_instances
    from mrcnn.data.batches import make_augmentation

    config = make_config(values, Config)
    augmentation = make_augmentation(config)
    samples = training_samples(run, splits, number)
    if augmentation is None or not samples:
        return None
    images, masks = [], []
    for row, (image, instances) in enumerate(samples):
        images.append(image)
        masks.append(instances)
        for version in range(AUGMENTED_COLUMNS - 1):
            sample = augment_instances(image, instances, augmentation, (run.seed, row, version))
            images.append(sample.image)
            masks.append(sample.masks)
    return augmentation_sheet(images, masks, columns=AUGMENTED_COLUMNS, tile_size=150), config


def reconstruction_strips(
    run: Run, centre: str, number: int = 8, tile_side: int = 112
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Pass some of a centre's cells through each trained autoencoder.

    Args:
        run: the run.
        centre: one with a store.
        number: cells, chosen at random.
        tile_side: side in pixels to which small reconstructions are enlarged.

    Returns:
        uint8 strips of tiles by name, "original" first, empty if no autoencoder could be used; and by name of
        the autoencoder why it could not.
    """
    from autoencoder.embedding import reconstruct  # imports TensorFlow

    with FeatureStore(run.stores[centre]) as store:
        rows = choose_rows(len(store), number, run.seed)
    strips: dict[str, np.ndarray] = {}
    faults: dict[str, str] = {}
    for name, folder in run.autoencoders.items() if len(rows) else ():
        try:
            originals, results = reconstruct(folder, run.stores[centre], rows)
        except InputError as error:
            log.warning("%s", error)
            faults[name] = str(error)
            continue
        strips.setdefault("original", _strip(originals, tile_side))
        strips[name] = _strip(results, tile_side)
    return strips, faults


def training_samples(run: Run, splits: dict[str, Any], number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of some training samples, in turn from each centre that the detector learned from."""
    candidates = []
    for centre, split in splits.items():
        keys = split["train"]
        chosen = choose_rows(len(keys), number, run.seed)
        candidates += [(turn, centre, keys[index]) for turn, index in enumerate(chosen)]
    samples: list[tuple[np.ndarray, np.ndarray]] = []
    sources: dict[str, LabelImages | Outlines | None] = {}
    for _, centre, key in sorted(candidates):
        root = _root(run, centre)
        if len(samples) == number or root is None:
            continue
        record = ImageRecord(key, root / key)
        if record.path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        try:
            if centre not in sources:
                sources[centre] = None  # so that a fault of the annotations is met, and told, once
                choice = choice_of_settings(run.settings.centres[centre], root)
                sources[centre] = find_masks(root, [ImageRecord(k, root / k) for k in splits[centre]["train"]], choice)
            source = sources[centre]
            if source is None:
                continue
            dataset = source.dataset([record], centre.replace(".", "_"), crowds=False)
            samples.append((dataset.load_image(0), dataset.load_mask(0)[0]))
        except InputError as error:
            log.warning("%s", error)
    return samples


def _root(run: Run, centre: str) -> Path | None:
    """Folder of a centre, or None if the settings do not know it."""
    for key, path in run.paths.get(centre, {}).items():
        return Path(path).parents[key.count("/")]
    settings = run.settings.centres.get(centre)
    if settings is None:
        return None
    return run.folder / "data" / centre if settings.layout == "synthetic" else Path(run.settings.data) / settings.root


def _open(run: Run, centre: str, key: str) -> np.ndarray | None:
    """An original image, or None, with a warning, where it is gone or damaged."""
    path = run.paths.get(centre, {}).get(str(key))
    try:
        return None if path is None else read_image(path)
    except InputError as error:
        log.warning("%s", error)
        return None


def _strip(images: np.ndarray, tile_side: int, gap: int = 6) -> np.ndarray:
    """Lay images of values 0 to 1 in a row on white."""
    side = max(tile_side, images.shape[1])
    strip = np.full((side, len(images) * (side + gap) - gap, 3), 255, np.uint8)
    for i, image in enumerate(images):
        tile = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) if len(image) < side else image
        strip[:, i * (side + gap) : i * (side + gap) + side] = np.round(np.clip(tile, 0, 1) * 255)
    return strip


def stack(strips: Sequence[np.ndarray], gap: int = 6) -> np.ndarray:
    """Put strips of one width under each other, with white between them."""
    between = np.full((gap, strips[0].shape[1], 3), 255, np.uint8)
    return np.concatenate([piece for strip in strips for piece in (strip, between)][:-1])
