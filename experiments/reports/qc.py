"""The page on which a person checks feature stores by eye: what was missed, which cells are odd, and why."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from experiments.figures.style import choose_rows, project
from experiments.reports import html as h
from experiments.reports.interactive_map import MapCells, Panel, crop_jpeg, interactive_maps, page_scripts, side_by_side
from experiments.reports.quality import FEWEST_CELLS, REASONS, CentreCheck, Flag, Limits, choose_flagged
from mrcnn.data.images import read_image
from mrcnn.feature_store import UNREADABLE, is_unreadable, open_store
from mrcnn.files.atomic import write_text
from mrcnn.files.errors import InputError
from mrcnn.overlays import draw_detections

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


SIZE_AXES = ("side of the box, as of a square (px)", "detection score")

_BLOCK = 256  # crops in memory


def write_qc_page(
    path: Path,
    checks: Sequence[CentreCheck],
    limits: Limits,
    shown: Shown,
    *,
    images: Path | None = None,
    embedding: Path | None = None,
    flags_file: str = "qc.csv",
) -> None:
    """Write the page; the same stores and options give the same page.

    Args:
        path: the file, written atomically.
        checks: as from `qc.check_stores`.
        limits: what the cells were measured by.
        shown: how much is put into the page.
        images: folder below which the images lie, for pictures of the missed ones.
        embedding: where the vectors of the cells come from, None for the detector's features.
        flags_file: name of the CSV file with all flags, which lies beside the page.
    """
    names = ", ".join(check.centre for check in checks)
    sections = {
        "numbers": ("Numbers", _numbers_section(checks, limits, embedding)),
        "missed": ("Images without a cell", missed_section(checks, images, shown)),
        "flagged": ("Cells to look at", flagged_section(checks, shown, flags_file)),
        "maps": ("Maps", _maps_section(checks, limits, shown, embedding)),
    }
    links = [h.tag("li", h.tag("a", name, href=f"#{anchor}")) for anchor, (name, _) in sections.items()]
    lead = "What a person should look at before these features are used: images on which no cell was found, and cells "
    content = [
        h.tag("h1", f"Check of {names}"),
        h.paragraph(f"{lead}that are odd. A flag is a question, not a verdict.", kind="lead"),
        h.cards(_cards(checks)),
        h.tag("nav", h.tag("ol", *links)),
        *(content for _, content in sections.values()),
        h.tag("footer", h.paragraph("All flags are in ", h.code(flags_file), " beside this page.", kind="note")),
    ]
    write_text(path, h.page(f"Check of {names}", *content, scripts=page_scripts(content)))


def _cards(checks: Sequence[CentreCheck]) -> list[tuple[str, str, str]]:
    def card(title: str, numbers: Sequence[int]) -> tuple[str, str, str]:
        detail = ", ".join(f"{check.centre} {number:,}" for check, number in zip(checks, numbers, strict=True))
        return title, f"{sum(numbers):,}", detail

    return [
        card("Images", [check.counts["images"] for check in checks]),
        card("Images without a cell", [check.counts["missed"] for check in checks]),
        card("Unreadable images", [check.counts["unreadable"] for check in checks]),
        card("Cells", [check.counts["cells"] for check in checks]),
        card("Cells to look at", [len(check.by_row) for check in checks]),
    ]


def _numbers_section(checks: Sequence[CentreCheck], limits: Limits, embedding: Path | None) -> h.Html:
    names = [check.centre for check in checks]

    def counts(key: str) -> list[h.Html]:
        return [h.cell(f"{check.counts[key]:,}") for check in checks]

    rows = [
        h.row("images", counts("images")),
        h.row("with a cell", counts("found")),
        h.row("without a cell (missed)", counts("missed")),
        h.row("unreadable", counts("unreadable")),
        h.row("cells", counts("cells"), kind="total"),
    ]
    for reason in REASONS:
        cells = [h.cell(h.DASH if _is_unknown(check, reason) else f"{check.by_reason[reason]:,}") for check in checks]
        rows.append(h.row(TITLES[reason], cells))
    flagged = []
    for check in checks:
        number, cells = len(check.by_row), check.counts["cells"]
        flagged.append(h.cell(f"{number:,} ({h.percent(number / cells)})" if cells else h.DASH))
    rows.append(h.row("flagged for any reason", flagged, kind="total"))
    caption = "Images and cells of each centre; cells by the reason to look at them, of which a cell can have several."
    content = [h.table([h.head_row("Number of", names)], rows, caption)]
    few = [check.centre for check in checks if not check.has_outliers and check.counts["cells"]]
    if few:
        text = f"Fewer than {FEWEST_CELLS} cells: {', '.join(few)}. Size, contrast and likeness say nothing of so few."
        content.append(h.paragraph(text, kind="missing"))
    rules = []
    for reason, (rule, options) in _rules(limits, embedding).items():
        names = [h.tag("div", h.tag("code", option, style="white-space: nowrap")) for option in options]
        rules.append(h.row(TITLES[reason], [h.cell(rule, number=False), h.cell(h.join(names, ""), number=False)]))
    head = h.tag("tr", *(h.tag("th", name, scope="col") for name in ("Reason", "When", "Option")))
    content.append(h.table([head], rules, "When a cell is flagged."))
    return h.section("numbers", "Numbers", *content)


def _is_unknown(check: CentreCheck, reason: str) -> bool:
    return reason in ("size", "contrast", "outlier") and not check.has_outliers


def _rules(limits: Limits, embedding: Path | None) -> dict[str, tuple[str, tuple[str, ...]]]:
    """For each reason the rule in words, and the options that change it."""
    space = (
        f"in the latent space of {embedding.name}"
        if embedding is not None
        else "among the detector's features, averaged over each cell and standardised within its centre, since no "
        "embedding was given"
    )
    deviations = "robust deviations (1.48 median absolute deviations) from the centre's median"
    return {
        "score": (f"detection score below {limits.min_score:g}", ("--min-score",)),
        "edge": (f"box {limits.edge:g} px or less from the edge of its image", ("--edge",)),
        "aspect": (f"longer side more than {limits.max_aspect:g} times the shorter", ("--max-aspect",)),
        "size": (
            f"area of the box, as a share of its image, more than {limits.max_deviation:g} {deviations}",
            ("--max-deviation",),
        ),
        "contrast": (
            f"darkest and palest part of the crop closer together by more than {limits.max_deviation:g} such "
            "deviations, as in red cells and platelets",
            ("--max-deviation",),
        ),
        "outlier": (
            f"mean distance to the {limits.neighbours} nearest cells of the centre more than {limits.max_outlier:g} "
            f"such deviations above the median, {space}",
            ("--max-outlier", "--neighbours"),
        ),
        "duplicate": ("crop the same as that of another cell, pixel for pixel, in any of the centres", ()),
    }


def _maps_section(checks: Sequence[CentreCheck], limits: Limits, shown: Shown, embedding: Path | None) -> h.Html:
    title = "Maps of the cells"
    places = [(index, row) for index, check in enumerate(checks) for row in range(check.counts["cells"])]
    if len(places) < 2:
        return h.section("maps", title, h.paragraph("Too few cells for a map.", kind="missing"))
    places = [places[place] for place in choose_rows(len(places), shown.points, shown.seed)]
    total = sum(check.counts["cells"] for check in checks)
    # Cells with a ring lie above those without.
    flagged = [check.by_row for check in checks]
    places.sort(key=lambda place: place[1] in flagged[place[0]])
    cells = _map_cells(checks, places, flagged)
    vectors = np.stack([checks[index].vectors[row] for index, row in places])
    points, method = project(vectors, shown.seed)
    sides = [check.sides for check in checks]
    measured = np.array([(sides[index][row], checks[index].scores[row]) for index, row in places], np.float64)
    order = [check.centre for check in checks]
    types = sorted(set(cells.types))
    panels = [
        Panel("Map by centre", points, cells.centres, order),
        Panel("Map by cell type", points, cells.types, types),
        Panel("Score and size by centre", measured, cells.centres, order, SIZE_AXES, limits.min_score),
        Panel("Score and size by cell type", measured, cells.types, types, SIZE_AXES, limits.min_score),
    ]
    plots, data = interactive_maps("map", cells, panels)
    source = "the latents" if embedding is not None else "the detector's features, standardised within each centre"
    drawn = f"all {total:,} cells" if len(places) == total else f"{len(places):,} of {total:,} cells, chosen at random"
    text = (
        f"Each dot is a cell, a black ring marks those to look at, and pointing at a dot shows its cell. A click on a "
        f"name below a plot hides that group. {method} of {source}; {drawn}. Distances between far groups mean little "
        "in such maps."
    )
    return h.section("maps", title, h.paragraph(text), side_by_side(plots), data)


def _map_cells(
    checks: Sequence[CentreCheck], places: Sequence[tuple[int, int]], flagged: Sequence[Mapping[int, Sequence[Flag]]]
) -> MapCells:
    """What hovering shows of the cells at (index of the centre, row)."""
    crops: dict[tuple[int, int], bytes] = {}
    for index, check in enumerate(checks):
        rows = np.sort(np.array([row for other, row in places if other == index], np.int64))
        with open_store(check.path) as store:
            for start in range(0, len(rows), _BLOCK):
                block = rows[start : start + _BLOCK]
                for row, pixels in zip(block.tolist(), store.read_rows("crop", block), strict=True):
                    crops[index, row] = crop_jpeg(pixels)
    return MapCells(
        centres=[checks[index].centre for index, _ in places],
        types=[str(checks[index].cell_types[row]) for index, row in places],
        files=[str(checks[index].keys[row]) for index, row in places],
        scores=[float(checks[index].scores[row]) for index, row in places],
        crops=[crops[place] for place in places],
        flags=["; ".join(map(describe, flagged[index].get(row, ()))) for index, row in places],
    )
