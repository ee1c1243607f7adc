"""Sections of a report that show pictures: detections, misses, augmentation, reconstructions."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from experiments.centres.masks import LabelImages, Outlines, choice_of_settings, find_masks
from experiments.figures.style import choose_rows
from experiments.reports import html as h
from experiments.reports.quality import doubtful_rows
from experiments.reports.report_numbers import autoencoder_curves
from experiments.reports.run_folder import AUTOENCODER_NAMES, CentreSummary, Run
from mrcnn.data.images import IMAGE_SUFFIXES, read_image
from mrcnn.data.masks import unmold_mask
from mrcnn.data.records import ImageRecord
from mrcnn.feature_store import UNREADABLE, FeatureStore, is_unreadable
from mrcnn.files.errors import InputError
from mrcnn.overlays import augmentation_sheet, draw_detections, sheet

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


def detections_section(run: Run) -> h.Html:
    """Overlays and crops of each centre, and what was missed."""
    content: list[h.Html] = []
    for centre in run.centres:
        content.append(h.tag("h3", centre))
        if centre not in run.stores:
            content.append(h.not_run("The extraction of features", f"features/{centre}.h5"))
            continue
        content += _centre_pictures(run, centre)
    if run.summaries:
        content.append(h.tag("h3", "What was missed"))
        content += _missed(run)
    return h.section("detections", "What the detector sees", *content)


def augmentation_section(run: Run) -> h.Html:
    """Training images of the detector beside augmented versions of them."""
    title = "How the training images are varied"
    drawn = augmented_samples(run)
    if drawn is None:
        text = "Augmentation is not shown: no detector was trained, it uses none, or its images are gone."
        return h.section("augmentation", title, h.paragraph(text, kind="missing"))
    pixels, config = drawn
    run.save_figure("augmentation", h.encode_image(pixels, photo=False))
    caption = (
        "Left: training images. Right of each: versions as the training makes them at random (augmentation "
        f"“{config.AUGMENTATION}”, applied to {100 * config.AUGMENTATION_SHARE:.0f} % of the samples, so "
        "that some stay as they are). Outlines are the masks, which follow the pixels."
    )
    return h.section(
        "augmentation",
        title,
        h.figure(h.encode_image(pixels), "Augmented training images with outlines", caption),
    )


def autoencoder_section(run: Run) -> h.Html:
    """Training curves of the autoencoders; originals and reconstructions of each centre."""
    content = [autoencoder_curves(run)]
    if run.autoencoders and run.stores:
        content.append(
            h.paragraph(
                "Originals, and what the autoencoder draws of each cell from its latent alone, a short "
                "list of numbers. What the drawing keeps, the latent knows; fine detail is not expected."
            )
        )
        for centre in run.stores:
            content.append(h.tag("h3", centre))
            strips, faults = reconstruction_strips(run, centre)
            content += [
                h.paragraph(f"{AUTOENCODER_NAMES[name]}: {fault}", kind="missing") for name, fault in faults.items()
            ]
            if strips:
                saved = h.encode_image(stack(list(strips.values())), photo=False)
                run.save_figure(f"reconstructions_{centre}", saved)
                rows = [
                    (
                        AUTOENCODER_NAMES.get(n, n),
                        h.encode_image(pixels),
                        f"{centre}: cells, {AUTOENCODER_NAMES.get(n, n)}",
                    )
                    for n, pixels in strips.items()
                ]
                content.append(h.strips(rows))
            elif not faults:
                content.append(h.paragraph("No cell was found in this centre.", kind="missing"))
    else:
        content.append(h.not_run("The training of an autoencoder to its end", "autoencoder/run.json with “complete”"))
    return h.section("autoencoder", "What the autoencoder keeps of a cell", *content)


def _centre_pictures(run: Run, centre: str) -> list[h.Html]:
    """Overlays and crops of one centre."""
    content: list[h.Html] = []
    drawn, lost = overlays(run, centre)
    if drawn:
        _save_sheet(run, f"detections_{centre}", drawn, 4, 320)
        content.append(_grid(drawn, 4, f"{centre}: image with detections", max_side=OVERLAY_SIDE))
    elif not run.summaries[centre].counts["cells"]:
        content.append(h.paragraph("No cell was found in this centre.", kind="missing"))
    if lost:
        text = f"{lost} of the images chosen here could not be opened in the centre's folder any more."
        content.append(h.paragraph(text, kind="missing"))
    shown = crops(run, centre)
    if shown:
        _save_sheet(run, f"crops_{centre}", shown, 8, 128)
        content.append(
            h.paragraph(
                f"{len(shown)} cells chosen at random, as the autoencoder gets them, with their type and the "
                "detection score:",
                kind="note",
            )
        )
        content.append(_grid(shown, 8, f"{centre}: crop of a cell"))
    odd = doubtful_cells(run, centre)
    if odd:
        _save_sheet(run, f"doubtful_{centre}", odd, 8, 160)
        text = (
            f"The {len(odd)} detections least like the others of {centre}, the oddest first, by score, size, place and "
            "contrast: look here for red cells, platelets and boxes around several cells."
        )
        content.append(h.paragraph(text, kind="note"))
        content.append(_grid(odd, 8, f"{centre}: doubtful detection", with_key=True))
    return content


def _missed(run: Run) -> list[h.Html]:
    """Counts by reason and by type, thumbnails, and the names of unreadable files."""
    content = [h.beside(_reason_table(run.summaries), _missed_type_table(run.summaries))]
    for centre, summary in run.summaries.items():
        shown = missed_images(run, centre)
        if shown:
            count = summary.counts["missed"]
            content.append(h.tag("h4", f"{centre}: missed images ({len(shown)} of {count:,})"))
            _save_sheet(run, f"missed_{centre}", shown, 6, 160)
            content.append(_grid(shown, 6, f"{centre}: image without a detection", max_side=240, with_key=True))
        unshown = [m for m in summary.missed if not is_unreadable(m["reason"])] if not shown else []
        unreadable = [m for m in summary.missed if is_unreadable(m["reason"])]
        for name, entries in (("missed images, files not found", unshown), ("unreadable files", unreadable)):
            if entries:
                content.append(h.tag("h4", f"{centre}: {name} ({len(entries):,})"))
                content.append(_file_list(run, centre, entries))
    return content


def _reason_table(summaries: Mapping[str, CentreSummary]) -> h.Html:
    reasons = {c: Counter(_short_reason(m["reason"]) for m in s.missed) for c, s in summaries.items()}
    names = sorted({name for counter in reasons.values() for name in counter})
    rows = [h.row("images", [h.cell(f"{s.counts['images']:,}") for s in summaries.values()])]
    rows.append(h.row("with a cell", [h.cell(f"{s.counts['found']:,}") for s in summaries.values()]))
    rows += [h.row(name, [h.cell(f"{counter[name]:,}") for counter in reasons.values()]) for name in names]
    shares = [s.counts["found"] / s.counts["images"] if s.counts["images"] else 0.0 for s in summaries.values()]
    rows.append(h.row("share with a cell", [h.cell(h.percent(share)) for share in shares], kind="total"))
    return h.table([h.head_row("Images", summaries)], rows, "Every image of every centre, by what became of it.")


def _missed_type_table(summaries: Mapping[str, CentreSummary]) -> h.Html:
    """Missed of all readable images, by type."""
    missed, images = {}, {}
    for centre, summary in summaries.items():
        readable = [m for m in summary.missed if not is_unreadable(m["reason"])]
        missed[centre] = Counter(m["cell_type"] or m["label"] for m in readable)
        images[centre] = missed[centre] + Counter(summary.found_types)
    names = sorted({name for counter in images.values() for name in counter}, key=lambda name: (name == "", name))

    def show(centre: str, name: str) -> h.Html:
        if not images[centre][name]:
            return h.cell(h.DASH)
        return h.cell(f"{missed[centre][name]:,} of {images[centre][name]:,}", best=missed[centre][name] > 0)

    rows = [h.row(h.spaced(name) or "unlabelled", [show(c, name) for c in summaries]) for name in names]
    return h.table([h.head_row("Type", summaries)], rows, "Readable images on which no cell was found, by type.")


def _file_list(run: Run, centre: str, entries: list[dict[str, str]]) -> h.Html:
    """Keys and reasons, of the first entries where there are very many."""
    listed = []
    for entry in entries:
        # The key names the file already; its whole path would only make the list hard to read.
        path = run.paths.get(centre, {}).get(entry["key"], entry["key"])
        listed.append((entry["key"], entry["reason"].removeprefix(UNREADABLE).lstrip(": ").removeprefix(f"{path}: ")))
    return h.file_list(listed, "the feature store")


def _grid(
    pictures: list[Picture], columns: int, what: str, *, max_side: int | None = None, with_key: bool = False
) -> h.Html:
    tiles = []
    for picture in pictures:
        name = h.spaced(picture.name) or "unlabelled"
        caption = [h.tag("b", name), f" {picture.detail}" if picture.detail and not with_key else ""]
        if with_key:
            caption += [h.Html("<br>"), h.code(picture.key)]
        data = h.encode_image(picture.pixels, max_side=max_side)
        tiles.append((data, f"{what}, {name}, {picture.key}", h.join(caption, "")))
    return h.grid(tiles, columns)


def _save_sheet(run: Run, name: str, pictures: list[Picture], columns: int, tile_size: int) -> None:
    captions = [picture.name or picture.key for picture in pictures]
    pixels = sheet([picture.pixels for picture in pictures], columns, captions, tile_size=tile_size)
    run.save_figure(name, h.encode_image(pixels, photo=False))


def _short_reason(reason: str) -> str:
    return "unreadable file" if is_unreadable(reason) else reason
