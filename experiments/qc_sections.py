"""Sections of the page of a check that show pictures: images without a cell, and the cells to look at."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from experiments import report_html as h
from experiments.figures import choose_rows
from experiments.qc_flags import CentreCheck, Flag, choose_flagged
from mrcnn.data.images import read_image
from mrcnn.errors import InputError
from mrcnn.feature_store import UNREADABLE, is_unreadable, open_store
from mrcnn.visualize import draw_detections

log = logging.getLogger(__name__)

TITLES = {
    "score": "low score",
    "edge": "at the edge of the image",
    "aspect": "long and narrow box",
    "size": "odd size",
    "contrast": "pale",
    "outlier": "unlike other cells",
    "duplicate": "duplicate",
}
CROP_SIDE = 64  # px, as shown in the table
CONTEXT_SIDE = 112
THUMBNAIL_SIDE = 200


@dataclass(frozen=True)
class Shown:
    """How much of what was found is put into the page.

    Attributes:
        rows: most flagged cells in the table.
        points: most cells in each plot.
        pictures: most pictures of missed images, of all centres together.
        seed: of the choice of points and pictures, and of the map.
    """

    rows: int = 200
    points: int = 3000
    pictures: int = 60
    seed: int = 0


def missed_section(checks: Sequence[CentreCheck], images: Path | None, shown: Shown) -> h.Html:
    """Images without a cell of each centre, with a picture where `images` has one, and unreadable ones."""
    content: list[h.Html] = []
    missed = {check.centre: [m for m in check.missed if not is_unreadable(m["reason"])] for check in checks}
    if images is None and any(missed.values()):
        text = "Stores keep no picture of images without a cell. Give the folder of the images by --images to see them."
        content.append(h.paragraph(text, kind="missing"))
    number = max(1, shown.pictures // max(1, sum(bool(entries) for entries in missed.values())))
    for check in checks:
        entries = missed[check.centre]
        pictures, others = ([], entries) if images is None else _open_missed(check, entries, images, number, shown.seed)
        if pictures:
            content.append(h.tag("h3", f"{check.centre}: missed images ({len(pictures)} of {len(entries):,} shown)"))
            content.append(h.grid(pictures, 6))
        if others:
            name = "missed images" if not pictures else "missed images that are not shown"
            content.append(h.tag("h3", f"{check.centre}: {name} ({len(others):,})"))
            content.append(_file_list(others))
        unreadable = [m for m in check.missed if is_unreadable(m["reason"])]
        if unreadable:
            content.append(h.tag("h3", f"{check.centre}: unreadable files ({len(unreadable):,})"))
            content.append(_file_list(unreadable))
    if not content:
        content.append(h.paragraph("A cell was found on every image."))
    return h.section("missed", "Images without a cell", *content)


def flagged_section(checks: Sequence[CentreCheck], shown: Shown, flags_file: str) -> h.Html:
    """Tables of the oddest cells; `flags_file` has all of them."""
    total = sum(len(check.by_row) for check in checks)
    title = "Cells to look at"
    if not total:
        return h.section("flagged", title, h.paragraph("No cell was flagged."))
    chosen = choose_flagged(checks, shown.rows)
    text = f"All {total:,} flagged cells, the oddest of each centre first."
    if len(chosen) < total:
        text = (
            f"{len(chosen):,} of {total:,} flagged cells, the oddest of every reason and centre; the other "
            f"{total - len(chosen):,} are in {flags_file} (--max-rows shows more here)."
        )
    content = [h.paragraph(text)]
    for index, check in enumerate(checks):
        rows = [row for centre, row in chosen if centre == index]
        if rows:
            content.append(h.tag("h3", f"{check.centre} ({len(rows):,} of {len(check.by_row):,})"))
            content.append(_flagged_table(check, rows))
    return h.section("flagged", title, *content)


def find_image(folder: Path, centre: str, key: str) -> Path | None:
    """Find an image of a centre below a folder.

    Args:
        folder: the centre's folder, the folder above it, or the one inside it that the keys begin with.
        centre: its name.
        key: of the image: its path relative to the centre's folder.

    Returns:
        The file, or None. A key that leads out of the folder, as only one made up does, finds nothing.
    """
    parts = PurePosixPath(key).parts
    if not parts or ".." in parts or PurePosixPath(key).is_absolute():
        return None
    places = [folder / key]
    if centre not in ("", ".", "..") and not {"/", "\\"} & set(centre):
        places.append(folder / centre / key)
    if len(parts) > 1 and parts[0] == folder.resolve().name:
        places.append(folder.joinpath(*parts[1:]))
    return next((place for place in places if place.is_file()), None)


def describe(flag: Flag) -> str:
    """A reason and its value in words."""
    values = {
        "score": f"{flag.value:.2f}",
        "edge": f"{max(flag.value, 0.0):.1f} px",
        "aspect": f"{flag.value:.2f} to 1",
        "size": f"{abs(flag.value):.1f} deviations {'larger' if flag.value > 0 else 'smaller'}",
        "contrast": f"{flag.value:.1f} deviations",
        "outlier": f"{flag.value:.1f} deviations",
        "duplicate": flag.note,
    }
    return f"{TITLES[flag.reason]}: {values[flag.reason]}"


def _open_missed(
    check: CentreCheck, entries: list[dict[str, str]], images: Path, number: int, seed: int
) -> tuple[list[tuple[bytes, str, h.Html]], list[dict[str, str]]]:
    """Pictures of some missed images, and the entries of those that are not shown."""
    pictures, used = [], set()
    for index in choose_rows(len(entries), number, seed):
        entry = entries[index]
        path = find_image(images, check.centre, entry["key"])
        try:
            pixels = None if path is None else read_image(path)
        except InputError as error:
            log.warning("%s", error)
            pixels = None
        if pixels is None:
            continue
        used.add(int(index))
        name = h.spaced(entry["cell_type"] or entry["label"]) or "unlabelled"
        caption = h.join([h.tag("b", name), f" {entry['reason']}", h.Html("<br>"), h.code(entry["key"])], "")
        data = h.encode_image(pixels, max_side=THUMBNAIL_SIDE)
        pictures.append((data, f"{check.centre}: image without a cell, {entry['key']}", caption))
    return pictures, [entry for index, entry in enumerate(entries) if index not in used]


def _file_list(entries: Sequence[Mapping[str, str]]) -> h.Html:
    return h.file_list([(entry["key"], _short_reason(entry)) for entry in entries], "the CSV file")


def _short_reason(entry: Mapping[str, str]) -> str:
    """The reason without what its place says already: that the file is unreadable, and its name behind a long path."""
    reason = entry["reason"].removeprefix(UNREADABLE).lstrip(": ")
    return reason.rpartition(f"{entry['key']}: ")[2]


def _flagged_table(check: CentreCheck, rows: Sequence[int]) -> h.Html:
    names = ("Crop", "In its image", "Reason", "Type", "File", "Score")
    kinds = ("picture", "picture", None, None, None, "number")
    head = h.tag("tr", *(h.tag("th", n, scope="col", class_=kind) for n, kind in zip(names, kinds, strict=True)))
    pictures, flags = _pictures(check, rows), check.by_row
    lines = []
    for row in rows:
        crop, context = pictures[row]
        number = int(check.numbers[row])
        several = f", cell {number}" if number > 1 else ""
        name = h.spaced(str(check.cell_types[row] or check.labels[row])) or h.DASH
        reasons = [h.tag("div", describe(flag)) for flag in flags[row]]
        lines.append(
            h.tag(
                "tr",
                h.tag("td", h.image(crop, f"crop of a cell of {check.keys[row]}"), class_="picture"),
                h.tag("td", h.image(context, f"{check.keys[row]} with the box of the cell"), class_="picture"),
                h.cell(h.join(reasons, ""), number=False),
                h.cell(name, number=False),
                h.cell(h.join([h.code(str(check.keys[row])), several], ""), number=False),
                h.cell(f"{check.scores[row]:.2f}"),
            )
        )
    return h.table([head], lines)


def _pictures(check: CentreCheck, rows: Sequence[int]) -> dict[int, tuple[bytes, bytes]]:
    """Crop, and whole image with the box, of some cells."""
    pictures = {}
    ordered = np.unique(np.asarray(rows, np.int64))
    with open_store(check.path) as store:
        crops, images = store.read_rows("crop", ordered), store.read_rows("image", ordered)
        shapes = store.read_rows("image_shape", ordered)
    for row, crop, image, shape in zip(ordered.tolist(), crops, images, shapes, strict=True):
        # The store's copy of the image is square; the box is drawn in it and the shape given back.
        box = check.boxes[row] * (np.array([*image.shape[:2]] * 2) / np.tile(shape, 2))
        drawn = draw_detections(image, box[np.newaxis])
        pictures[row] = (h.encode_image(crop, max_side=CROP_SIDE), h.encode_image(drawn, max_side=CONTEXT_SIDE))
    return pictures
