"""Pictures of a report: detections, misses, augmentation, reconstructions."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from experiments.centres.masks import LabelImages, Outlines, choice_of_settings, find_masks
from experiments.figures.style import choose_rows
from experiments.reports.page import Row, Table, embed, encode_image, percent, spaced
from experiments.reports.pictures import Picture, boxed_cells, missed_images, open_image, tiles
from experiments.reports.quality import Limits, check_store, choose_flagged
from experiments.reports.report_numbers import autoencoder_curves
from experiments.reports.run_folder import AUTOENCODER_NAMES, CentreSummary, Run
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.data.masks import unmold_mask
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import FeatureStore, is_unreadable
from mrcnn.files.errors import InputError
from mrcnn.overlays import augmentation_sheet, draw_detections, sheet

log = logging.getLogger(__name__)

OVERLAY_SIDE = 360  # px; a tile of the page is 265 px wide
AUGMENTED_COLUMNS = 8
NUM_AUGMENTED, NUM_CROPS, NUM_FLAGGED, NUM_MISSED, NUM_RECONSTRUCTED = 5, 40, 24, 12, 8
STRIP_SIDE, GAP = 112, 6  # px of a reconstruction, and between two


def detections_section(run: Run) -> dict[str, Any]:
    """Overlays and crops of each centre, and what was missed."""
    missed = []
    for centre, summary in run.summaries.items():
        paths = run.paths.get(centre, {})
        pictures, listed = missed_images(summary.missed, paths.get, NUM_MISSED, run.seed)
        _save_sheet(run, f"missed_{centre}", pictures, 6, 160)
        shown = tiles(pictures, f"{centre}: image without a detection", max_side=240, with_file=True)
        missed.append({"name": centre, "tiles": shown, **listed})
    return {
        "centres": [
            _centre_pictures(run, c) if c in run.stores else {"name": c, "has_store": False} for c in run.centres
        ],
        "missed": missed,
        "reasons": _reason_table(run.summaries),
        "types": _missed_type_table(run.summaries),
    }


def augmentation_section(run: Run) -> dict[str, Any]:
    """Training images of the detector beside augmented versions of them, as its training makes them."""
    values, splits = run.read_json("detector/config.json"), run.read_json("detector/split.json")
    if not values or not splits:
        return {}
    # These import TensorFlow, which everything else here does without.
    from mrcnn.config import Config, make_config
    from mrcnn.data.augmentation import augment_instances
    from mrcnn.data.batches import make_augmentation

    config = make_config(values, Config)
    augmentation = make_augmentation(config)
    samples = training_samples(run, splits, NUM_AUGMENTED)
    if augmentation is None or not samples:
        return {}
    images, masks = [], []
    for row, (image, instances) in enumerate(samples):
        images.append(image)
        masks.append(instances)
        for version in range(AUGMENTED_COLUMNS - 1):
            sample = augment_instances(image, instances, augmentation, (run.seed, row, version))
            images.append(sample.image)
            masks.append(sample.masks)
    pixels = augmentation_sheet(images, masks, columns=AUGMENTED_COLUMNS, tile_size=150)
    run.save_figure("augmentation", encode_image(pixels, photo=False))
    return {
        "sheet": embed(pixels, "Augmented training images with outlines"),
        "name": config.AUGMENTATION,
        "percent": f"{100 * config.AUGMENTATION_SHARE:.0f}",
    }


def autoencoder_section(run: Run) -> dict[str, Any]:
    """Training curves of the autoencoders; originals and reconstructions of each centre."""
    centres = []
    for centre in run.stores if run.autoencoders else ():
        strips, faults = reconstruction_strips(run, centre)
        if strips:
            between = np.full((GAP, next(iter(strips.values())).shape[1], 3), 255, np.uint8)
            stacked = np.concatenate([piece for strip in strips.values() for piece in (strip, between)][:-1])
            run.save_figure(f"reconstructions_{centre}", encode_image(stacked, photo=False))
        names = {name: AUTOENCODER_NAMES.get(name, name) for name in (*strips, *faults)}
        shown = [(names[n], embed(pixels, f"{centre}: cells, {names[n]}")) for n, pixels in strips.items()]
        told = [(names[name], fault) for name, fault in faults.items()]
        centres.append({"name": centre, "strips": shown, "faults": told})
    return {"curves": autoencoder_curves(run), "centres": centres}


def overlays(run: Run, centre: str, number: int = 8) -> tuple[list[Picture], int]:
    """Draw the stored detections over `number` original images of a centre with a store, chosen at random.

    Returns:
        The pictures, and how many of the chosen images could not be opened any more.
    """
    pictures, lost = [], 0
    with FeatureStore(run.stores[centre]) as store:
        image_ids = store.image_ids
        names = np.unique(image_ids)
        for image_id in names[choose_rows(len(names), number, run.seed)]:
            rows = np.flatnonzero(image_ids == image_id)
            image = open_image(run.paths.get(centre, {}).get(str(image_id)))
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
            pictures.append(Picture(drawn, str(image_id), str(name)))
    return pictures, lost


def reconstruction_strips(run: Run, centre: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Pass some cells of a centre with a store through each trained autoencoder.

    Returns:
        uint8 strips of tiles by name, "original" first, empty if no autoencoder could be used; and by name of the
        autoencoder why it could not.
    """
    from autoencoder.embedding import reconstruct  # imports TensorFlow

    with FeatureStore(run.stores[centre]) as store:
        rows = choose_rows(len(store), NUM_RECONSTRUCTED, run.seed)
    strips: dict[str, np.ndarray] = {}
    faults: dict[str, str] = {}
    for name, folder in run.autoencoders.items() if len(rows) else ():
        try:
            originals, results = reconstruct(folder, run.stores[centre], rows)
        except InputError as error:
            log.warning("%s", error)
            faults[name] = str(error)
            continue
        strips.setdefault("original", _strip(originals))
        strips[name] = _strip(results)
    return strips, faults


def training_samples(run: Run, splits: Mapping[str, Any], number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of some training samples, in turn from each centre that the detector was trained on."""
    candidates = []
    for centre, split in splits.items():
        image_ids = split["train"]
        chosen = choose_rows(len(image_ids), number, run.seed)
        candidates += [(turn, centre, image_ids[index]) for turn, index in enumerate(chosen)]
    samples: list[tuple[np.ndarray, np.ndarray]] = []
    sources: dict[str, LabelImages | Outlines | None] = {}
    for _, centre, image_id in sorted(candidates):
        root = _root(run, centre)
        if len(samples) == number or root is None:
            continue
        record = ImageRecord(image_id, root / image_id)
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


def _centre_pictures(run: Run, centre: str) -> dict[str, Any]:
    """Overlays, crops and cells to look at of one centre."""
    path = run.stores[centre]
    drawn, lost = overlays(run, centre)
    with FeatureStore(path) as store:
        rows = choose_rows(len(store), NUM_CROPS, run.seed)
        pixels, scores = store.read_rows("crop", rows), store.read_rows("score", rows)
        check = check_store(store, path, Limits(), None)
    types = np.where(check.cell_types == "", check.labels, check.cell_types).tolist()
    some = zip(rows, pixels, scores, strict=True)
    crops = [Picture(crop, str(check.image_ids[row]), types[row], f"{score:.2f}") for row, crop, score in some]
    crops.sort(key=lambda picture: picture.name)
    chosen = [row for _, row in choose_flagged([check], NUM_FLAGGED)]
    boxed, flags = boxed_cells(check, chosen, min_side=OVERLAY_SIDE // 2), check.by_row
    flagged = [
        Picture(boxed[row][1], str(check.image_ids[row]), types[row], "; ".join(flag.describe() for flag in flags[row]))
        for row in chosen
    ]
    for name, pictures, columns, side in (
        ("detections", drawn, 4, 320),
        ("crops", crops, 8, 128),
        ("flagged", flagged, 8, 160),
    ):
        _save_sheet(run, f"{name}_{centre}", pictures, columns, side)
    return {
        "name": centre,
        "has_store": True,
        "cells": len(types),
        "lost": lost,
        "overlays": tiles(drawn, f"{centre}: image with detections", max_side=OVERLAY_SIDE),
        "crops": tiles(crops, f"{centre}: crop of a cell"),
        "flagged": tiles(flagged, f"{centre}: detection to look at", with_file=True),
        "num_flagged": len(flags),
    }


def _reason_table(summaries: Mapping[str, CentreSummary]) -> Table:
    found = summaries.values()
    reasons = [
        Counter("unreadable file" if is_unreadable(m["reason"]) else m["reason"] for m in s.missed) for s in found
    ]
    rows = [Row(("images", *(s.counts["images"] for s in found)))]
    rows.append(Row(("with a cell", *(s.counts["found"] for s in found))))
    rows += [Row((name, *(counter[name] for counter in reasons))) for name in sorted(set().union(*reasons))]
    shares = [percent(s.counts["found"] / s.counts["images"]) if s.counts["images"] else None for s in found]
    rows.append(Row(("with a cell, of all images", *shares), "total"))
    return Table(("Images", *summaries), rows, "Every image of every centre, by what became of it.")


def _missed_type_table(summaries: Mapping[str, CentreSummary]) -> Table:
    """Missed of all readable images, by type."""
    missed = [
        Counter(m["cell_type"] or m["label"] for m in summary.missed if not is_unreadable(m["reason"]))
        for summary in summaries.values()
    ]
    images = [counter + Counter(s.found_types) for counter, s in zip(missed, summaries.values(), strict=True)]
    names = sorted(set().union(*images), key=lambda name: (name == "", name))

    def show(lost: Counter, total: Counter, name: str) -> dict[str, Any] | None:
        text = f"{lost[name]:,} of {total[name]:,}"
        return {"text": text, "spread": "", "best": lost[name] > 0} if total[name] else None

    rows = [
        Row((spaced(name) or "unlabelled", *(show(*counters, name) for counters in zip(missed, images, strict=True))))
        for name in names
    ]
    return Table(("Type", *summaries), rows, "Readable images on which no cell was found, by type.")


def _save_sheet(run: Run, name: str, pictures: Sequence[Picture], columns: int, tile_size: int) -> None:
    if pictures:
        captions = [picture.name or picture.image_id for picture in pictures]
        pixels = sheet([picture.pixels for picture in pictures], columns, captions, tile_size=tile_size)
        run.save_figure(name, encode_image(pixels, photo=False))


def _root(run: Run, centre: str) -> Path | None:
    """Folder of a centre, or None if the settings do not know it."""
    for image_id, path in run.paths.get(centre, {}).items():
        return Path(path).parents[image_id.count("/")]
    settings = run.settings.centres.get(centre)
    if settings is None:
        return None
    return run.folder / "data" / centre if settings.layout == "synthetic" else Path(run.settings.data) / settings.root


def _strip(images: np.ndarray) -> np.ndarray:
    """Lay images of values 0 to 1 in a row on white; small ones are enlarged."""
    side = max(STRIP_SIDE, images.shape[1])
    strip = np.full((side, len(images) * (side + GAP) - GAP, 3), 255, np.uint8)
    for i, image in enumerate(images):
        tile = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) if len(image) < side else image
        strip[:, i * (side + GAP) : i * (side + GAP) + side] = np.round(np.clip(tile, 0, 1) * 255)
    return strip
