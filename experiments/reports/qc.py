"""The page on which a person checks feature stores by eye: images without a cell, odd cells and why, maps."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from experiments.figures.style import choose_rows, project
from experiments.reports.interactive_map import Plane, interactive_maps
from experiments.reports.page import percent, write_page
from experiments.reports.pictures import add_crops, boxed_cells, missed_images
from experiments.reports.quality import FEWEST_CELLS, REASONS, CentreCheck, Limits, all_cells, choose_flagged
from mrcnn.feature_store import is_unreadable

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
    numbers = {
        "Images": [check.counts["images"] for check in checks],
        "Images without a cell": [check.counts["missed"] for check in checks],
        "Unreadable images": [check.counts["unreadable"] for check in checks],
        "Cells": [check.counts["cells"] for check in checks],
        "Cells to look at": [len(check.by_row) for check in checks],
    }
    centres = [check.centre for check in checks]
    cards = [
        (name, f"{sum(of):,}", ", ".join(f"{centre} {n:,}" for centre, n in zip(centres, of, strict=True)))
        for name, of in numbers.items()
    ]
    sections = {
        "numbers": _numbers(checks),
        "missed": _missed(checks, images, shown),
        "flagged": _flagged(checks, shown),
        "maps": _maps(checks, limits, shown, embedding),
    }
    head = {"checks": checks, "embedding": embedding, "flags_file": flags_file}
    head["limits"] = {name: f"{value:g}" for name, value in asdict(limits).items()}
    write_page(path, "qc", sections, cards=cards, **head)


def find_image(folder: Path, centre: str, image_id: str) -> Path | None:
    """Find an image of a centre below a folder.

    Args:
        folder: the centre's folder, the folder above it, or the one inside it that the ids begin with.
        centre: its name.
        image_id: path of the image relative to the centre's folder.

    Returns:
        The file, or None. An id that leads out of the folder, as only one made up does, finds nothing.
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


def _numbers(checks: Checks) -> dict[str, Any]:
    """Counts of each centre."""
    rows: list[list[Any]] = [
        [name, *(check.counts[name] for check in checks)]
        for name in ("images", "found", "missed", "unreadable", "cells")
    ]
    rows += [[reason, *(check.count(reason) for check in checks)] for reason in REASONS]
    flagged = [(len(check.by_row), len(check.cells)) for check in checks]
    rows.append(["flagged", *(f"{n:,} ({percent(n / of)})" if of else None for n, of in flagged)])
    few = [check.centre for check in checks if 0 < len(check.cells) < FEWEST_CELLS]
    return {"rows": rows, "few": few, "fewest": FEWEST_CELLS, "reasons": REASONS}


def _missed(checks: Checks, images: Path | None, shown: Shown) -> dict[str, Any]:
    """Images without a cell of each centre, with a picture where `images` has one, and unreadable ones."""
    num_centres = sum(any(not is_unreadable(m["reason"]) for m in check.missed) for check in checks)
    number = 0 if images is None else max(1, shown.pictures // max(1, num_centres))
    centres = {}
    for check in checks:
        find = partial(find_image, images or Path(), check.centre)
        centres[check.centre] = missed_images(check.missed, find, number, shown.seed)
    return {"centres": centres, "needs_images": images is None and num_centres > 0}


def _flagged(checks: Checks, shown: Shown) -> dict[str, Any]:
    """The oddest cells of each centre."""
    chosen = choose_flagged(checks, shown.rows)
    flags = [check.by_row for check in checks]

    def tables() -> Iterator[tuple]:  # one at a time, since pictures are large
        for check, rows, own in zip(checks, chosen, flags, strict=True):
            cells = zip(
                check.cells.iloc[rows].to_dict("records"),
                [own[row] for row in rows],
                boxed_cells(check, rows),
                strict=True,
            )
            yield check.centre, cells, len(rows), len(own)

    return {"tables": tables(), "shown": sum(map(len, chosen)), "total": sum(map(len, flags))}


def _maps(checks: Checks, limits: Limits, shown: Shown, embedding: Path | None) -> dict[str, Any]:
    """Maps of the cells, and their scores over the size of their boxes."""
    cells = all_cells(checks)
    total = len(cells)
    if total < 2:
        return {}
    cells = cells.iloc[choose_rows(total, shown.points, shown.seed)]
    cells = cells.sort_values("flags", key=lambda flags: flags != "", kind="stable")  # rings lie above cells without
    vectors = np.concatenate([check.vectors for check in checks])[cells.index]
    add_crops(cells, {check.centre: check.path for check in checks})
    points, method = project(vectors, shown.seed)
    sides = np.sqrt(((cells["y2"] - cells["y1"]) * (cells["x2"] - cells["x1"])).clip(lower=0))
    measured = np.stack([sides, cells["score"]], axis=1)
    planes = [Plane("Map", points), Plane("Score and size", measured, SIZE_AXES, limits.min_score)]
    plots, map_data = interactive_maps("map", cells, planes, [check.centre for check in checks])
    source = "the latents" if embedding is not None else "the detector's features, standardised within each centre"
    drawn = f"all {total:,} cells" if len(cells) == total else f"{len(cells):,} of {total:,} cells, chosen at random"
    return {"plots": plots, "map_data": map_data, "caption": f"{method} of {source}; {drawn}."}
