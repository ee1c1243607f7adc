"""Pictures of a report: detections, misses, augmentation, reconstructions."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from experiments.centres.masks import choice_of_settings, find_masks
from experiments.figures.style import choose_rows
from experiments.reports.page import encode_image, percent
from experiments.reports.pictures import Picture, boxed_cells, missed_images, open_image
from experiments.reports.quality import CentreCheck, choose_flagged
from experiments.reports.report_numbers import autoencoder_curves
from experiments.reports.run_folder import AUTOENCODER_NAMES, Run
from mrcnn.data.images import IMAGE_SUFFIXES
from mrcnn.data.masks import expand_mask
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import FeatureStore, is_unreadable
from mrcnn.files.errors import InputError
from mrcnn.overlays import augmentation_sheet, draw_detections, sheet

log = logging.getLogger(__name__)

OVERLAY_SIDE = 360  # px; a tile of the page is 265 px wide
AUGMENTED_COLUMNS = 8
NUM_AUGMENTED, NUM_CROPS, NUM_FLAGGED, NUM_MISSED, NUM_RECONSTRUCTED = 5, 40, 24, 12, 8
STRIP_SIDE = 112  # px of a reconstruction


def detections_section(run: Run) -> dict[str, Any]:
    """Overlays and crops of each centre, and what was missed."""
    missed = {}
    for centre, check in run.checks.items():
        missed[centre] = missed_images(check.missed, run.paths.get(centre, {}).get, NUM_MISSED, run.seed)
        _save_sheet(run, f"missed_{centre}", missed[centre]["pictures"], 6, 160)
    return {
        "centres": {centre: _centre_pictures(run, centre, check) for centre, check in run.checks.items()},
        "missed": missed,
        "reasons": _reason_rows(list(run.checks.values())),
        "types": _type_rows(list(run.checks.values())),
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
    return {"sheet": pixels, "name": config.AUGMENTATION, "percent": f"{100 * config.AUGMENTATION_SHARE:.0f}"}


def autoencoder_section(run: Run) -> dict[str, Any]:
    """Training curves of the autoencoders; originals and reconstructions of each centre."""
    centres = {}
    for centre in run.stores if run.autoencoders else ():
        images, faults = reconstructions(run, centre)
        side = max([STRIP_SIDE, *(of.shape[1] for of in images.values())])
        if images:
            tiles = [tile for of in images.values() for tile in of]
            page = sheet(tiles, len(tiles) // len(images), tile_size=side)
            run.save_figure(f"reconstructions_{centre}", encode_image(page, photo=False))
        centres[centre] = {name: sheet(of, len(of), tile_size=side) for name, of in images.items()}, faults
    return {"curves": autoencoder_curves(run), "centres": centres}


def overlays(run: Run, centre: str, number: int = 8) -> tuple[list[Picture], int]:
    """Draw the stored detections over `number` original images of a centre with a store, chosen at random.

    Returns:
        The pictures, and how many of the chosen images could not be opened any more.
    """
    pictures, lost = [], 0
    with FeatureStore(run.stores[centre]) as store:
        names = np.unique(store.image_ids)
        for name in names[choose_rows(len(names), number, run.seed)]:
            rows = np.flatnonzero(store.image_ids == name)
            image = open_image(run.paths.get(centre, {}).get(str(name)))
            if image is None:
                lost += 1
                continue
            boxes, scores = store.read_rows("box", rows), store.read_rows("score", rows)
            masks = []
            for field in ("mask", "nucleus_mask"):
                small = store.read_rows(field, rows) / 255.0 if field in store.fields else None
                masks.append(None if small is None else expand_mask(boxes, np.moveaxis(small, 0, -1), image.shape))
            drawn = draw_detections(image, boxes, scores, *masks, min_side=OVERLAY_SIDE)
            pictures.append(Picture(drawn, str(name), str(store.cell_types[rows[0]] or store.labels[rows[0]])))
    return pictures, lost


def reconstructions(run: Run, centre: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Pass some cells of a centre with a store through each trained autoencoder.

    Returns:
        By name, "original" first, uint8 images of shape (n, height, width, 3), none if no autoencoder could be used;
        and by name of the autoencoder why it could not.
    """
    from autoencoder.embedding import reconstruct  # imports TensorFlow

    rows = choose_rows(len(run.checks[centre].cells), NUM_RECONSTRUCTED, run.seed)
    images: dict[str, np.ndarray] = {}
    faults: dict[str, str] = {}
    for method, folder in run.autoencoders.items() if len(rows) else ():
        try:
            originals, results = reconstruct(folder, run.stores[centre], rows)
        except InputError as error:
            log.warning("%s", error)
            faults[AUTOENCODER_NAMES[method]] = str(error)
            continue
        images.setdefault("original", originals)
        images[AUTOENCODER_NAMES[method]] = results
    return {name: np.round(np.clip(of, 0, 1) * 255).astype(np.uint8) for name, of in images.items()}, faults


def training_samples(run: Run, splits: Mapping[str, Any], number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and masks of some training samples, in turn from each centre that the detector was trained on."""
    centres = [_samples_of(run, centre, split["train"], number) for centre, split in sorted(splits.items())]
    samples = (sample for turn in zip_longest(*centres) for sample in turn if sample is not None)
    return list(islice(samples, number))


def _samples_of(run: Run, centre: str, image_ids: list[str], number: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Up to `number` training samples of a centre; what cannot be used is logged."""
    root = _root(run, centre)
    if root is None:
        return
    records = [ImageRecord(image_id, root / image_id) for image_id in image_ids]
    try:
        source = find_masks(root, records, choice_of_settings(run.settings.centres[centre], root))
    except InputError as error:
        log.warning("%s", error)
        return
    for index in choose_rows(len(records), number, run.seed):
        if source is None or records[index].path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        try:
            dataset = source.dataset([records[index]], centre.replace(".", "_"))
            masks, class_ids = dataset.load_mask(0)
            yield dataset.load_image(0), masks[..., class_ids > 0]  # without groups of cells
        except InputError as error:
            log.warning("%s", error)


def _centre_pictures(run: Run, centre: str, check: CentreCheck) -> dict[str, Any]:
    """Overlays, crops and cells to look at of one centre."""
    drawn, lost = overlays(run, centre)
    chosen = choose_rows(len(check.cells), NUM_CROPS, run.seed)
    with FeatureStore(run.stores[centre]) as store:
        some = zip(check.cells.iloc[chosen].itertuples(), store.read_rows("crop", chosen), strict=True)
    crops = [Picture(pixels, cell.image_id, cell.name, f"{cell.score:.2f}") for cell, pixels in some]
    crops.sort(key=lambda picture: picture.name)
    (rows,), flags = choose_flagged([check], NUM_FLAGGED), check.by_row
    boxed = zip(check.cells.iloc[rows].itertuples(), boxed_cells(check, rows, min_side=OVERLAY_SIDE // 2), strict=True)
    flagged = [
        Picture(pixels, cell.image_id, cell.name, "; ".join(flag.describe() for flag in flags[cell.Index]))
        for cell, (_, pixels) in boxed
    ]
    _save_sheet(run, f"detections_{centre}", drawn, 4, 320)
    _save_sheet(run, f"crops_{centre}", crops, 8, 128)
    _save_sheet(run, f"flagged_{centre}", flagged, 8, 160)
    return {"overlays": drawn, "lost": lost, "crops": crops, "flagged": flagged, "num_flagged": len(flags)}


def _reason_rows(checks: Sequence[CentreCheck]) -> list[list[Any]]:
    """Images of each centre by what became of them."""
    counts = [check.counts for check in checks]
    reasons = [
        Counter("unreadable file" if is_unreadable(m["reason"]) else m["reason"] for m in check.missed)
        for check in checks
    ]
    rows = [[title, *(of[name] for of in counts)] for name, title in (("images", "images"), ("found", "with a cell"))]
    rows += [[reason, *(of[reason] for of in reasons)] for reason in sorted(set().union(*reasons))]
    shares = [percent(of["found"] / of["images"]) if of["images"] else None for of in counts]
    return [*rows, ["with a cell, of all images", *shares]]


def _type_rows(checks: Sequence[CentreCheck]) -> list[tuple[str, list[tuple[int, int]]]]:
    """By type, how many of the readable images of each centre were missed, and of how many."""
    tables = []
    for check in checks:
        missed = Counter(m["cell_type"] or m["label"] for m in check.missed if not is_unreadable(m["reason"]))
        tables.append((missed, missed + Counter(check.cells.drop_duplicates("image_id")["name"])))
    names = sorted(set().union(*(images for _, images in tables)), key=lambda name: (name == "", name))
    return [(name, [(missed[name], images[name]) for missed, images in tables]) for name in names]


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
