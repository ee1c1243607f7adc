"""The page on which a person checks feature stores by eye: what was missed, which cells are odd, and why."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments import report_html as h
from experiments.figures import choose_rows, project
from experiments.interactive_map import MapCells, Panel, crop_jpeg, interactive_maps, page_scripts, side_by_side
from experiments.qc import FEWEST_CELLS
from experiments.qc_flags import REASONS, CentreCheck, Flag, Limits
from experiments.qc_sections import TITLES, Shown, describe, flagged_section, missed_section
from mrcnn.atomic import write_text
from mrcnn.feature_store import open_store

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
