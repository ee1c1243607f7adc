"""Tables of the cells in feature stores and files of vectors, across centres: of `aecfe run` and `aecfe evaluate`.

splits/                               training and test part of each centre
cache/                                predictions of the classifiers, and mixing scores
cross_centre.{md,csv,tex,json,txt}    every classifier of the protocol, with intervals, mixing and recall
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from experiments.cache import Cache
from experiments.centres.splits import Split, load_or_make_split
from experiments.evaluation.comparison import (
    Protocol,
    choose_standardised,
    compare_columns,
    foreign_columns,
    morphology_column,
    raw_column,
)
from experiments.evaluation.comparison_tables import Heading, write_comparison
from experiments.evaluation.transfer import make_cells
from experiments.evaluation.vectors import SUFFIXES, read_vectors
from experiments.settings import MORPHOLOGY, RCNN, check_centre_name
from mrcnn.feature_store import StorePath, open_store
from mrcnn.files.errors import InputError
from mrcnn.files.provenance import command_text, versions_text

log = logging.getLogger(__name__)


def sort_inputs(paths: Iterable[str]) -> tuple[list[str], dict[str, Path]]:
    """Tell feature stores from files of vectors.

    Files come by the name of their column: that of the file without its ending, or, of the `embedding.h5ad` of a run,
    that of its folder.

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
    for name in (RCNN, MORPHOLOGY):
        if stores and name in files:
            raise InputError(f"{files[name]}: {name} is the column of the feature stores; rename the file")
    return stores, files


def evaluate_files(
    stores: Mapping[str, StorePath],
    files: Mapping[str, Path],
    output: Path,
    protocol: Protocol,
    *,
    methods: Sequence[str] | None = None,
    splits: Mapping[str, Split] | None = None,
    standardise: Sequence[str] = ("none",),
    raw_features: str = "mean",
    provenance: Mapping[str, str] | None = None,
) -> dict[str, Path]:
    """Compare representations of the same cells and write the tables.

    The cells and their types are those of the stores, or, where there are none, of the first file that names types.
    Other files are brought to their order by the image ids.

    Args:
        stores: feature store of each centre, or its shards; their features are the column R-CNN-RF, and where all have
            measurements these are the column Morphology.
        files: .h5ad and .npz files by the name of their column.
        output: folder; predictions are kept below it, and read again by the next call.
        protocol: how to compare.
        methods: columns to show, in order; None shows all.
        splits: by centre; None makes them, or reads those that an earlier call left in `output`.
        standardise, raw_features: see `comparison.choose_standardised` and `comparison.raw_column`.
        provenance: lines that say what made the tables; None takes the command and the versions.

    Returns:
        The tables, by ending.

    Raises:
        InputError: if a file cannot be read or does not describe the cells, or nothing names cell types.
    """
    names = [*_columns_of(stores), *files]
    if MORPHOLOGY in (methods or ()) and MORPHOLOGY not in names:
        morphology_column(stores)  # says which store has none
    names = names if methods is None else [name for name in methods if name in names]
    if not names:
        raise InputError("there is nothing to compare: give feature stores or embeddings")
    image_ids, types = _labels(stores, files)
    if splits is None:
        # Files made elsewhere may call a centre anything, a path outside of the folder too.
        paths = {centre: output / "splits" / f"{check_centre_name(centre)}.json" for centre in image_ids}
        splits = {c: load_or_make_split(path, c, image_ids[c], types[c]) for c, path in paths.items()}
    cells = make_cells(image_ids, types, {centre: splits[centre].parts(own) for centre, own in image_ids.items()})
    columns = {column.name: column for column in foreign_columns({n: files[n] for n in names if n in files}, cells)}
    if stores and RCNN in names:
        columns[RCNN] = raw_column(stores, raw_features)
    if stores and MORPHOLOGY in names:
        columns[MORPHOLOGY] = morphology_column(stores)
    chosen = choose_standardised([columns[name] for name in names], standardise)
    comparison = compare_columns(chosen, cells, protocol, Cache(output / "cache"))
    if provenance is None:
        provenance = {"command": f"`{command_text()}`", "versions": versions_text(("aecfe", "numpy", "scikit-learn"))}
    title = "Classifiers and representations across centres"
    written = write_comparison(comparison, output, Heading("cross_centre", title, provenance, reference=chosen[0].name))
    log.info("%s: all classifiers, with intervals", written["md"])
    return written


def _columns_of(stores: Mapping[str, StorePath]) -> list[str]:
    """Columns that feature stores make by themselves."""
    for path in stores.values():
        with open_store(path) as store:
            if "morphology" not in store.fields:
                return [RCNN]
    return [RCNN, MORPHOLOGY] if stores else []


def _labels(
    stores: Mapping[str, StorePath], files: Mapping[str, Path]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Image ids and cell types by centre, those of the stores or else of the first file that names any type."""
    image_ids, types = {}, {}
    for centre, path in stores.items():
        with open_store(path) as store:
            image_ids[centre], types[centre] = store.image_ids, store.cell_types
    if stores:
        return image_ids, types
    for path in files.values():
        found = {centre: texts for centre, (_, texts) in read_vectors(path).items()}
        if any(np.any(texts["cell_type"] != "") for texts in found.values()):
            return tuple({c: texts[name] for c, texts in found.items()} for name in ("image_id", "cell_type"))
    raise InputError(
        f"{', '.join(map(str, files.values()))}: without a cell_type there is nothing to score; add it, or give the "
        "feature stores of the centres too"
    )
