"""Maps of the cells in a report: in the page to hover over, and as still pictures below figures/."""

from typing import Any

import numpy as np
import pandas as pd

from experiments.evaluation.vectors import read_vectors
from experiments.figures.style import choose_rows, draw_maps, project, to_png
from experiments.reports.interactive_map import Plane, interactive_maps
from experiments.reports.pictures import add_crops
from experiments.reports.quality import all_cells
from experiments.reports.run_folder import AUTOENCODER_NAMES, Run
from mrcnn.feature_store import FeatureStore

MAX_POINTS = 3000
FEWEST_CELLS = 2
FIGURES = {"AE-RF": "map_ae_none", "AE-CFE": "map_ae_cfe"}  # names of the still pictures
CELL = ["centre", "image_id", "cell"]  # what tells cells apart in stores and embeddings alike
_BLOCK = 256  # cells whose features are in memory


def maps_section(run: Run) -> dict[str, Any]:
    """Maps of the cells by raw features and by the latents of each autoencoder."""
    stores = all_cells(list(run.checks.values())) if run.stores else None
    maps = [{"not_run": ("The extraction of features", "features/")} if stores is None else _features(run, stores)]
    maps += [_latents(run, method) for method in FIGURES]
    drawn = [piece for piece in maps if len(piece.get("cells", ())) >= FEWEST_CELLS]
    if not drawn:
        return {"maps": maps, "map_data": ""}
    # One copy of a cell's picture, however many maps show it; scores and pictures as far as stores hold the cells.
    cells = pd.concat([piece["cells"][[*CELL, "cell_type"]] for piece in drawn])
    cells = cells.drop_duplicates(CELL, ignore_index=True)
    known = cells.assign(score=np.nan, row=np.nan) if stores is None else stores
    cells = cells.merge(known[[*CELL, "score", "row"]], "left", CELL)
    add_crops(cells, run.stores)
    index = pd.MultiIndex.from_frame(cells[CELL])
    planes = []
    for piece in drawn:
        own, method = project(piece["vectors"], run.seed)
        rows = index.get_indexer(pd.MultiIndex.from_frame(piece["cells"][CELL]))
        points = np.full((len(cells), 2), np.nan, np.float32)
        points[rows] = own
        planes.append(Plane("", points))
        groups = {
            "by centre": (cells["centre"][rows].tolist(), run.centres),
            "by cell type": (cells["cell_type"][rows].tolist(), sorted(set(cells["cell_type"]))),
        }
        still = run.save_figure(piece["figure"], to_png(draw_maps(own, groups)))
        piece |= {"still": still, "caption": f"{method} of {len(own):,} cells."}
    plots, map_data = interactive_maps("maps-plot", cells, planes, run.centres)
    for number, piece in enumerate(drawn):
        piece["plots"] = plots[2 * number : 2 * number + 2]
    return {"maps": maps, "map_data": map_data}


def _features(run: Run, stores: pd.DataFrame) -> dict[str, Any]:
    """Some cells of all centres with their features, averaged over the RoI; the choice is that of the latents."""
    cells = stores.iloc[choose_rows(len(stores), MAX_POINTS, run.seed)]
    vectors = [np.empty((0, 256), np.float32)]
    for centre, own in cells.groupby("centre", sort=False):
        with FeatureStore(run.stores[centre]) as store:
            for start in range(0, len(own), _BLOCK):
                features = store.read_rows("features", own["row"].iloc[start : start + _BLOCK])
                vectors.append(features.mean(axis=(1, 2), dtype=np.float32))
    name = "Detector features (mean over each cell)"
    return {"name": name, "figure": "map_features", "cells": cells, "vectors": np.concatenate(vectors)}


def _latents(run: Run, method: str) -> dict[str, Any]:
    """Some cells of all centres with their latents, or what was not run."""
    name, folder = AUTOENCODER_NAMES[method], run.autoencoders.get(method)
    if folder is None or not (folder / "embedding.h5ad").is_file():
        return {"not_run": (f"The embedding by {name}", "embedding.h5ad")}
    table = read_vectors(folder / "embedding.h5ad")
    cells = pd.concat([pd.DataFrame(columns).assign(centre=centre) for centre, (_, columns) in table.items()])
    cells["cell"] = cells.groupby(["centre", "image_id"]).cumcount() + 1
    rows = choose_rows(len(cells), MAX_POINTS, run.seed)
    vectors = np.concatenate([latents for latents, _ in table.values()])[rows]
    return {"name": name, "figure": FIGURES[method], "cells": cells.iloc[rows], "vectors": vectors}
