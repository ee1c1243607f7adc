"""From feature stores and embeddings to the cross-centre table on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.classify import Evaluation, evaluate_methods, roi_vectors
from experiments.score_tables import save_tables
from experiments.settings import EvaluateSettings
from experiments.splits import Split
from experiments.study_settings import RCNN
from experiments.vector_files import read_embedding
from mrcnn.errors import InputError
from mrcnn.feature_store import StorePath, open_store


def make_table(
    settings: EvaluateSettings,
    stores: Mapping[str, StorePath],
    embeddings: Mapping[str, Path],
    splits: Mapping[str, Split],
    output: Path,
    seed: int,
) -> Evaluation:
    """Evaluate every method on the same cells and write `cross_centre.json`, `.csv`, `.md` and `.txt` to `output`.

    Args:
        settings: columns and protocol.
        stores: feature store by centre, or the shards of one; read for the column R-CNN-RF.
        embeddings: path of the .h5ad file by method.
        splits: by centre.
        output: folder.
        seed: of the forests.

    Returns:
        The scores.

    Raises:
        InputError: if the methods do not describe the same cells, or a centre has no labelled ones.
    """
    tables = {method: read_embedding(path) for method, path in embeddings.items()}
    if RCNN in settings.methods:
        tables[RCNN] = {name: read_raw(path, settings.raw_features) for name, path in stores.items()}
    methods = [method for method in settings.methods if method in tables]
    if not methods:
        raise InputError("there is nothing to compare: give feature stores or embeddings")
    cells = {name: labels for name, (_, labels) in tables[methods[0]].items()}
    for method in methods[1:]:
        _check_same_cells(methods[0], cells, method, tables[method])
    evaluation = evaluate_methods(
        {method: {name: vectors for name, (vectors, _) in tables[method].items()} for method in methods},
        {name: labels["cell_type"] for name, labels in cells.items()},
        {name: splits[name].parts(labels["key"]) for name, labels in cells.items()},
        runs=settings.runs,
        seed=seed,
        test_on=settings.test_on,
    )
    save_tables(evaluation, output)
    return evaluation


def read_raw(path: StorePath, mode: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vectors of a store's RoI features, with keys and cell types."""
    with open_store(path) as store:
        return roi_vectors(store, mode), {"key": store.keys, "cell_type": store.cell_types}


def _check_same_cells(first: str, cells: Mapping[str, Any], method: str, table: Mapping[str, Any]) -> None:
    if set(cells) != set(table):
        raise InputError(
            f"{first} has the centres {', '.join(cells)}, but {method} has {', '.join(table)}: give the same ones"
        )
    for name, labels in cells.items():
        if not np.array_equal(labels["key"], table[name][1]["key"]):
            raise InputError(f"{name}: {first} and {method} hold different cells; embed the same stores")
