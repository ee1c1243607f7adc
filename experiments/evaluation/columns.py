"""Columns of a comparison: the detector's features, vectors made elsewhere, and their standardised twins."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from experiments.evaluation.comparison import Column
from experiments.evaluation.transfer import Cells
from experiments.evaluation.vectors import align_vectors, read_vectors
from experiments.settings import RCNN
from mrcnn.feature_store import StorePath, open_store
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.errors import InputError

logger = logging.getLogger(__name__)


def choose_standardised(columns: Sequence[Column], standardise: Sequence[str]) -> list[Column]:
    """The columns as they are ("none"), with every feature standardised within its centre ("centre"), or both."""
    chosen = []
    for column in columns:
        chosen += [column] if "none" in standardise else []
        chosen += [column.standardised()] if "centre" in standardise else []
    return chosen


def foreign_columns(features: Mapping[str, Path], cells: Cells) -> list[Column]:
    """Columns of vectors made elsewhere, brought to the order of the cells; centres not compared are logged.

    Raises:
        InputError: if a file cannot be read, or lacks a labelled centre or a cell.
    """
    columns = []
    for name, path in features.items():
        table = read_vectors(path)
        missing = [centre for centre in cells.centres if centre not in table]
        if missing:
            raise InputError(f"{path}: has no cells of centre {missing[0]}; it must describe every centre")
        others = [centre for centre in table if centre not in cells.image_ids]
        if others:
            logger.info("%s: centres that are not compared are left out: %s", path, ", ".join(others))
        vectors = {
            centre: align_vectors(table[centre][0], table[centre][1]["image_id"], image_ids, f"{path}, centre {centre}")
            for centre, image_ids in cells.image_ids.items()
            if centre in table
        }
        columns.append(Column(name, (vectors,), f"{name}: vectors of {Path(path).name}."))
    return columns


def raw_column(stores: Mapping[str, StorePath], mode: str) -> Column:
    """R-CNN-RF: the detector's features of every cell, by the "mean" or "flat" mode of `roi_vectors`."""
    vectors = {}
    for centre, path in stores.items():
        with open_store(path) as store:
            vectors[centre] = roi_vectors(store, mode)
    note = "averaged over their 14 x 14 spatial positions" if mode == "mean" else "flattened"
    return Column(RCNN, (vectors,), f"{RCNN}: the detector's RoI features, {note}.")
