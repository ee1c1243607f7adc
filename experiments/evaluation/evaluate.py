"""The command `aecfe evaluate`: what feature stores and files of vectors say of the same cells, across centres.

splits/                             training and test part of each centre
cache/                              what classifiers named the cells, and mixing scores
cross_centre.{json,csv,md,txt}      the random forest
comparison.{md,csv,tex,json}        every classifier of the protocol, with intervals, mixing and recall
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.cache import Cache
from experiments.centres.splits import Split, load_or_make_split
from experiments.evaluation.columns import choose_standardised, foreign_columns, raw_column
from experiments.evaluation.comparison import (
    Column,
    Evaluation,
    Protocol,
    compare_columns,
    evaluate_methods,
    forest_predictions,
    score_methods,
)
from experiments.evaluation.comparison_tables import Heading, write_comparison
from experiments.evaluation.score_tables import save_tables
from experiments.evaluation.transfer import Cells, Pair, make_cells
from experiments.evaluation.vectors import SUFFIXES, read_embedding, read_vectors
from experiments.settings import RCNN, EvaluateSettings
from mrcnn.feature_store import StorePath, open_store
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar
from mrcnn.files.provenance import command_text, versions_text

log = logging.getLogger(__name__)

NAME = "comparison"
TITLE = "Representations across centres"

Labels = dict[str, tuple[np.ndarray, np.ndarray]]  # by centre, keys and cell types of shape (n,)


def sort_inputs(paths: Iterable[str]) -> tuple[list[str], dict[str, Path]]:
    """Tell feature stores from files of vectors.

    Args:
        paths: as the user gives them.

    Returns:
        The stores, and the files by the name of their column: that of the file without its ending, or, of the
        `embedding.h5ad` of a run, that of its folder.

    Raises:
        InputError: if two columns would have one name.
    """
    stores: list[str] = []
    files: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.suffix.lower() not in SUFFIXES:
            stores.append(str(path))
            continue
        name = path.stem if path.stem != "embedding" else path.resolve().parent.name
        if name in files:
            raise InputError(f"{path}: {files[name]} makes a column called {name} too; rename one of them")
        files[name] = path
    if stores and RCNN in files:
        raise InputError(f"{files[RCNN]}: {RCNN} is the column of the feature stores; rename the file")
    return stores, files


def evaluate_files(
    stores: Mapping[str, StorePath],
    files: Mapping[str, Path],
    output: Path,
    protocol: Protocol,
    *,
    standardise: Sequence[str] = ("none",),
    raw_features: str = "mean",
) -> list[Path]:
    """Compare representations of the same cells and write the tables.

    The cells and their types are those of the stores, or, where there are none, of the first file that names types.
    Other files are brought to their order by the keys.

    Args:
        stores: feature store of each centre, or its shards; their features are the column R-CNN-RF.
        files: .h5ad and .npz files by the name of their column.
        output: folder; what classifiers named the cells is kept below it, and read again by the next call.
        protocol: how to compare.
        standardise: "none", "centre" or both: columns of the comparison, see `ablation.choose_standardised`.
        raw_features: vector of a store's cell, "mean" or "flat".

    Returns:
        The tables.

    Raises:
        InputError: if a file cannot be read or does not describe the cells, or nothing names cell types.
    """
    cells = _gather_cells(stores, files, output / "splits")
    columns = [*([raw_column(stores, raw_features)] if stores else []), *foreign_columns(files, cells)]
    cache = Cache(output / "cache")
    predictions = _grow_forests(columns, cells, protocol, cache)
    scores = score_methods(predictions, cells, runs=protocol.runs, seed=protocol.seed, test_on=protocol.test_on)
    written = save_tables(scores, output)
    chosen = choose_standardised(columns, standardise)
    comparison = compare_columns(chosen, cells, protocol, cache)
    heading = Heading(NAME, TITLE, _provenance(), reference=chosen[0].name)
    compared = write_comparison(comparison, output, heading)
    log.info("%s: all classifiers, with intervals", compared["md"])
    return [*written.values(), *compared.values()]


def _gather_cells(stores: Mapping[str, StorePath], files: Mapping[str, Path], folder: Path) -> Cells:
    """The cells that every column describes, with their parts of the splits, which are made or reused."""
    labels = _stored_labels(stores) if stores else _first_labels(files)
    splits = {centre: _split(folder, centre, *columns) for centre, columns in labels.items()}
    return make_cells(
        {centre: keys for centre, (keys, _) in labels.items()},
        {centre: types for centre, (_, types) in labels.items()},
        {centre: splits[centre].parts(keys) for centre, (keys, _) in labels.items()},
    )


def _stored_labels(stores: Mapping[str, StorePath]) -> Labels:
    labels = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            labels[centre] = (store.keys, store.cell_types)
    return labels


def _first_labels(files: Mapping[str, Path]) -> Labels:
    """Keys and types of the first file that names any type."""
    for path in files.values():
        labels = {c: (columns["key"], columns["cell_type"]) for c, (_, columns) in read_vectors(path).items()}
        if any(np.any(types != "") for _, types in labels.values()):
            return labels
    raise InputError(
        f"{', '.join(map(str, files.values()))}: without a cell_type there is nothing to score; add it, or give the "
        "feature stores of the centres too"
    )


def _split(folder: Path, centre: str, keys: np.ndarray, types: np.ndarray) -> Split:
    # Files made elsewhere may call a centre anything, a place outside of the folder too.
    if "/" in centre or "\\" in centre or centre.startswith(".") or not centre.isprintable():
        raise InputError(f"centre name {centre!r}: must be usable as a file name; give the centre another in its file")
    try:
        return load_or_make_split(folder / f"{centre}.json", centre, keys, types)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"centre {centre}: {error}; give all cells of an image one type") from None


def _grow_forests(
    columns: Sequence[Column], cells: Cells, protocol: Protocol, cache: Cache
) -> dict[str, dict[Pair, np.ndarray]]:
    """What forests name the cells, by column; they come first, since the other classifiers can take long."""
    predictions = {}
    num_forests = len(cells.centres) * protocol.runs
    with Bar(total=len(columns) * num_forests, desc="forests", disable=None) as bar:
        for number, column in enumerate(columns, 1):
            predictions[column.name] = forest_predictions(column, cells, protocol, cache, advance=bar.update)
            bar.update(number * num_forests - bar.n)  # those that were there already
    return predictions


def _provenance() -> dict[str, str]:
    """Lines that say what made a table."""
    return {"command": f"`{command_text()}`", "versions": versions_text(("aecfe", "numpy", "scikit-learn"))}


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
