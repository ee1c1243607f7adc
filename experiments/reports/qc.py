"""The page on which a person checks feature stores by eye: images without a cell, odd cells and why, maps."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from experiments.figures.style import choose_rows, project
from experiments.reports.interactive_map import MapCells, Panel, interactive_maps
from experiments.reports.page import Row, Section, Table, embed, percent, write_page
from experiments.reports.pictures import boxed_cells, missed_images, small_crops, tiles
from experiments.reports.quality import FEWEST_CELLS, REASONS, CentreCheck, Limits, choose_flagged
from mrcnn.feature_store import is_unreadable

CROP_SIDE, CONTEXT_SIDE, THUMBNAIL_SIDE = 64, 112, 200  # px, as shown in the page
SIZE_AXES = ("side of the box, as of a square (px)", "detection score")

Checks = Sequence[CentreCheck]


@dataclass(frozen=True)
class Shown:
    """How much of what was found is put into the page.

    Attributes:
        rows: maximum flagged cells in the table.
        points: maximum cells in each plot.
        pictures: maximum pictures of missed images, of all centres together.
        seed: of the choice of points and pictures, and of the map.
    """

    rows: int = 200
    points: int = 3000
    pictures: int = 60
    seed: int = 0


def write_qc_page(
    path: Path,
    checks: Checks,
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
        checks: as from `check_stores`.
        limits: what the cells were measured by.
        shown: how much is put into the page.
        images: folder below which the images lie, for pictures of the missed ones.
        embedding: where the vectors of the cells come from, None for the detector's features.
        flags_file: name of the CSV file with all flags, which lies beside the page.
    """
    sections = {
        "numbers": ("Numbers", "Numbers", _numbers(checks, limits, embedding)),
        "missed": ("Images without a cell", "Images without a cell", _missed(checks, images, shown)),
        "flagged": ("Cells to look at", "Cells to look at", _flagged(checks, shown, flags_file)),
        "maps": ("Maps", "Maps of the cells", _maps(checks, limits, shown, embedding)),
    }
    write_page(
        path,
        f"Check of {', '.join(check.centre for check in checks)}",
        lead="What a person should look at before these features are used: images on which no cell was found, and odd "
        "cells. A flag is a question, not a verdict.",
        cards=_cards(checks),
        sections=[Section(anchor, *names, f"qc_{anchor}.html", data) for anchor, (*names, data) in sections.items()],
        footer=f"All flags are in {flags_file} beside this page.",
    )


def find_image(folder: Path, centre: str, image_id: str) -> Path | None:
    """Find an image of a centre below a folder.

    Args:
        folder: the centre's folder, the folder above it, or the one inside it that the image_ids begin with.
        centre: its name.
        image_id: of the image: its path relative to the centre's folder.

    Returns:
        The file, or None. An image_id that leads out of the folder, as only one made up does, finds nothing.
    """
    parts = PurePosixPath(image_id).parts
    if not parts or ".." in parts or PurePosixPath(image_id).is_absolute():
        return None
    places = [folder / image_id]
    if centre not in ("", ".", "..") and not {"/", "\\"} & set(centre):
        places.append(folder / centre / image_id)
    if len(parts) > 1 and parts[0] == folder.resolve().name:
        places.append(folder.joinpath(*parts[1:]))
    return next((place for place in places if place.is_file()), None)


def _cards(checks: Checks) -> list[tuple[str, str, str]]:
    numbers = {
        "Images": [check.counts["images"] for check in checks],
        "Images without a cell": [check.counts["missed"] for check in checks],
        "Unreadable images": [check.counts["unreadable"] for check in checks],
        "Cells": [check.counts["cells"] for check in checks],
        "Cells to look at": [len(check.by_row) for check in checks],
    }
    details = {
        title: ", ".join(f"{check.centre} {value:,}" for check, value in zip(checks, values, strict=True))
        for title, values in numbers.items()
    }
    return [(title, f"{sum(values):,}", details[title]) for title, values in numbers.items()]


def _numbers(checks: Checks, limits: Limits, embedding: Path | None) -> dict[str, Any]:
    """Counts of each centre, and what the cells were measured by."""
    names = {
        "images": "images",
        "found": "with a cell",
        "missed": "without a cell (missed)",
        "unreadable": "unreadable",
    }
    rows = [Row((name, *(check.counts[key] for check in checks))) for key, name in names.items()]
    rows.append(Row(("cells", *(check.counts["cells"] for check in checks)), "total"))
    rows += [Row((name, *(check.count(reason) for check in checks))) for reason, name in REASONS.items()]
    flagged = [
        f"{len(check.by_row):,} ({percent(len(check.by_row) / len(check.image_ids))})" if len(check.image_ids) else None
        for check in checks
    ]
    rows.append(Row(("flagged for any reason", *flagged), "total"))
    caption = "Images and cells of each centre; cells by the reason to look at them, of which a cell can have several."
    return {
        "numbers": Table(("Number of", *(check.centre for check in checks)), rows, caption),
        "few": [check.centre for check in checks if 0 < len(check.image_ids) < FEWEST_CELLS],
        "fewest": FEWEST_CELLS,
        "titles": REASONS,
        "limits": {name: f"{value:g}" for name, value in asdict(limits).items()},
        "embedding": embedding and embedding.name,
    }


def _missed(checks: Checks, images: Path | None, shown: Shown) -> dict[str, Any]:
    """Images without a cell of each centre, with a picture where `images` has one, and unreadable ones."""
    num_centres = sum(any(not is_unreadable(m["reason"]) for m in check.missed) for check in checks)
    number = 0 if images is None else max(1, shown.pictures // max(1, num_centres))
    centres = []
    for check in checks:
        find = partial(find_image, images or Path(), check.centre)
        pictures, listed = missed_images(check.missed, find, number, shown.seed)
        what = f"{check.centre}: image without a cell"
        found = tiles(pictures, what, max_side=THUMBNAIL_SIDE, with_file=True)
        centres.append({"name": check.centre, "tiles": found, **listed})
    is_none = not any(check.missed for check in checks)
    return {"centres": centres, "needs_images": images is None and num_centres > 0, "none": is_none}


def _flagged(checks: Checks, shown: Shown, flags_file: str) -> dict[str, Any]:
    """The oddest cells of each centre; `flags_file` has all of them."""
    chosen = choose_flagged(checks, shown.rows)
    centres = []
    for index, check in enumerate(checks):
        rows, flags = [row for centre, row in chosen if centre == index], check.by_row
        pictures = boxed_cells(check, rows)
        cells = [
            {
                "crop": embed(pictures[row][0], f"crop of a cell of {check.image_ids[row]}", max_side=CROP_SIDE),
                "context": embed(pictures[row][1], f"{check.image_ids[row]} with the box", max_side=CONTEXT_SIDE),
                "reasons": [flag.describe() for flag in flags[row]],
                "type": check.cell_types[row] or check.labels[row],
                "file": check.image_ids[row],
                "number": int(check.numbers[row]),
                "score": f"{check.scores[row]:.2f}",
            }
            for row in rows
        ]
        centres += [{"name": check.centre, "cells": cells, "total": len(flags)}] if rows else []
    total = sum(len(check.by_row) for check in checks)
    return {"centres": centres, "shown": len(chosen), "total": total, "flags_file": flags_file}


def _maps(checks: Checks, limits: Limits, shown: Shown, embedding: Path | None) -> dict[str, Any]:
    """Maps of the cells, and their scores over the size of their boxes."""
    places = [(index, row) for index, check in enumerate(checks) for row in range(len(check.image_ids))]
    total = len(places)
    if total < 2:
        return {}
    flags = [check.by_row for check in checks]
    places = [places[place] for place in choose_rows(total, shown.points, shown.seed)]
    places.sort(key=lambda place: place[1] in flags[place[0]])  # rings lie above cells without
    crops = [small_crops(check.path, [row for i, row in places if i == index]) for index, check in enumerate(checks)]
    cells = MapCells(
        centres=[checks[i].centre for i, _ in places],
        types=[str(checks[i].cell_types[row]) for i, row in places],
        files=[str(checks[i].image_ids[row]) for i, row in places],
        scores=[float(checks[i].scores[row]) for i, row in places],
        crops=[crops[i][row] for i, row in places],
        flags=["; ".join(flag.describe() for flag in flags[i].get(row, ())) for i, row in places],
    )
    points, method = project(np.stack([checks[i].vectors[row] for i, row in places]), shown.seed)
    boxes = np.array([checks[i].boxes[row] for i, row in places], np.float64)
    sides = np.sqrt(np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 0.0))
    measured = np.stack([sides, cells.scores], axis=1)
    order, types = [check.centre for check in checks], sorted(set(cells.types))
    panels = [
        Panel("Map by centre", points, cells.centres, order),
        Panel("Map by cell type", points, cells.types, types),
        Panel("Score and size by centre", measured, cells.centres, order, SIZE_AXES, limits.min_score),
        Panel("Score and size by cell type", measured, cells.types, types, SIZE_AXES, limits.min_score),
    ]
    plots, map_data = interactive_maps("map", cells, panels)
    source = "the latents" if embedding is not None else "the detector's features, standardised within each centre"
    drawn = f"all {total:,} cells" if len(places) == total else f"{len(places):,} of {total:,} cells, chosen at random"
    return {"plots": plots, "map_data": map_data, "caption": f"{method} of {source}; {drawn}."}
