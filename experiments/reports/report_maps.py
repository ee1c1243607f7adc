"""Maps of the cells in a report: in the page to hover over, and as still pictures below figures/."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.evaluation.vectors import read_vectors
from experiments.figures.style import Groups, choose_rows, draw_maps, project, to_png
from experiments.reports.interactive_map import MapCells, Panel, interactive_maps
from experiments.reports.page import embed
from experiments.reports.pictures import small_crops
from experiments.reports.quality import cell_numbers
from experiments.reports.run_folder import AUTOENCODER_NAMES, Run
from mrcnn.feature_store import FeatureStore

MAX_POINTS = 3000
FEWEST_CELLS = 2

CellName = tuple[str, str, int]  # centre, image_id of the image, number of the cell in it


@dataclass(frozen=True)
class _Map:
    """Some cells in one representation: its name, that of the still picture, vectors of shape (n, d), cells, types."""

    slug: str
    name: str
    vectors: np.ndarray
    cells: list[CellName]
    types: list[str]


def maps_section(run: Run) -> dict[str, Any]:
    """Maps of the cells by raw features and by the latents of each autoencoder."""
    found: list[_Map | tuple[str, str]] = []  # a map, or what was not run and its file
    found.append(_raw_map(run) if run.stores else ("The extraction of features", "features/"))
    for name, slug in (("AE-RF", "map_ae_none"), ("AE-CFE", "map_ae_cfe")):
        folder = run.autoencoders.get(name)
        path = None if folder is None else folder / "embedding.h5ad"
        if path is None or not path.is_file():
            found.append((f"The embedding by {AUTOENCODER_NAMES[name]}", "embedding.h5ad"))
            continue
        table = read_vectors(path)
        centres = [centre for centre, (latents, _) in table.items() for _ in range(len(latents))]
        names = _cell_names(
            centres, [image_id for _, labels in table.values() for image_id in labels["image_id"].tolist()]
        )
        rows = choose_rows(len(names), MAX_POINTS, run.seed)
        types = np.concatenate([labels["cell_type"] for _, labels in table.values()])[rows].tolist()
        vectors = np.concatenate([latents for latents, _ in table.values()])[rows]
        found.append(_Map(slug, AUTOENCODER_NAMES[name], vectors, [names[row] for row in rows], types))
    shown, map_data = _draw(run, [piece for piece in found if isinstance(piece, _Map)])
    maps = [{"not_run": None, **shown[p.slug]} if isinstance(p, _Map) else {"not_run": p} for p in found]
    return {"maps": maps, "map_data": map_data}


def _draw(run: Run, maps: Sequence[_Map]) -> tuple[dict[str, dict[str, Any]], str]:
    """What the page shows of each map, and their data: one copy of a cell's picture, however many maps show it."""
    drawn = [piece for piece in maps if len(piece.vectors) >= FEWEST_CELLS]
    types: dict[CellName, str] = {}
    for piece in drawn:
        types.update(zip(piece.cells, piece.types, strict=True))
    rows = {cell: row for row, cell in enumerate(types)}
    groups: Groups = {
        "by centre": ([centre for centre, _, _ in types], run.centres),
        "by cell type": (list(types.values()), sorted(set(types.values()))),
    }
    shown: dict[str, dict[str, Any]] = {piece.slug: {"name": piece.name, "plots": []} for piece in maps}
    panels = []
    for piece in drawn:
        own, method = project(piece.vectors, run.seed)
        points = np.full((len(types), 2), np.nan, np.float32)
        drawn_rows = [rows[cell] for cell in piece.cells]
        points[drawn_rows] = own
        chosen = {title: ([names[row] for row in drawn_rows], order) for title, (names, order) in groups.items()}
        still = run.save_figure(piece.slug, to_png(draw_maps(own, chosen)))
        alt = f"Map of cells by {piece.name}, coloured by centre and by cell type"
        shown[piece.slug] |= {"still": embed(still, alt), "caption": f"{method} of {len(own):,} cells."}
        panels += [Panel(title, points, names, order) for title, (names, order) in groups.items()]
    if not panels:
        return shown, ""
    plots, map_data = interactive_maps("maps-plot", _map_cells(run, types), panels)
    for number, piece in enumerate(drawn):
        shown[piece.slug]["plots"] = plots[number * len(groups) : (number + 1) * len(groups)]
    return shown, map_data


def _raw_map(run: Run) -> _Map:
    """Features of some cells of all centres, averaged over the RoI; the choice is that of the latents."""
    counts = [run.summaries[centre].counts["cells"] for centre in run.stores]
    rows = choose_rows(sum(counts), MAX_POINTS, run.seed)
    pieces: list[np.ndarray] = []
    cells: list[CellName] = []
    types: list[str] = []
    first = 0
    for (centre, path), count in zip(run.stores.items(), counts, strict=True):
        own = rows[(rows >= first) & (rows < first + count)] - first
        first += count
        with FeatureStore(path) as store:
            for block in np.array_split(own, max(1, len(own) // 256)):
                pieces.append(store.read_rows("features", block).mean(axis=(1, 2), dtype=np.float32))
            names = _cell_names([centre] * count, store.image_ids.tolist())
        cells += [names[row] for row in own]
        types += [run.summaries[centre].cell_types[row] for row in own]
    return _Map("map_features", "Detector features (mean over each cell)", np.concatenate(pieces), cells, types)


def _cell_names(centres: Sequence[str], image_ids: Sequence[str]) -> list[CellName]:
    """What tells cells apart in stores and embeddings alike."""
    numbers = cell_numbers(list(zip(centres, image_ids, strict=True))).tolist()
    return list(zip(centres, image_ids, numbers, strict=True))


def _map_cells(run: Run, types: dict[CellName, str]) -> MapCells:
    """Crops and scores from the stores, as far as they hold the cells."""
    scores, crops = dict.fromkeys(types, float("nan")), dict.fromkeys(types, b"")
    for centre, path in run.stores.items():
        with FeatureStore(path) as store:
            names = _cell_names([centre] * len(store), store.image_ids.tolist())
            found = store.read("score", 0, len(store))
        for row, crop in small_crops(path, [row for row, name in enumerate(names) if name in types]).items():
            crops[names[row]], scores[names[row]] = crop, float(found[row])
    centres, image_ids, _ = zip(*types, strict=True)
    return MapCells(centres, list(types.values()), image_ids, list(scores.values()), list(crops.values()))
