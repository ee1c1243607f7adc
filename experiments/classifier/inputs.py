"""Vectors of cells that a classifier learns from or is asked about, with the networks that made them.

Vectors of two networks may be alike in length and have nothing else in common, so that a classifier of the one
predicts cells of the other at random. Feature stores and embeddings say which networks they are from.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import PositiveInt

from experiments.evaluation.vectors import SUFFIXES, read_vectors, standardise
from mrcnn.feature_store import StorePath, open_store, stores_by_centre
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import read_note
from mrcnn.files.json_io import parse_json
from mrcnn.files.provenance import hash_json

# With fewer cells their mean and standard deviation say more of the cells that happen to be there than of the
# laboratory: the standard deviation of 30 normal numbers is wrong by a tenth, mostly.
LEAST_CELLS = 30
HOW_TO_MAKE = {
    "latents": "the .h5ad file that `aecfe embed` writes",
    "mean features": "the feature stores that `aecfe extract` writes",
    "morphology": "the feature stores that `aecfe extract` writes with a detector that draws nuclei",
    "vectors": "an .npz or .h5ad file of the network that it was trained on",
}


@dataclass(frozen=True)
class Source:
    """What some vectors are.

    The kind is "latents" of an autoencoder, "mean features" of a detector (averaged over the 14x14 spatial positions),
    "morphology", what is measured on the cells that it draws, or "vectors" of another network. Hashes are "" where
    there is no such network or nothing says which.
    """

    kind: Literal["latents", "mean features", "morphology", "vectors"]
    length: PositiveInt
    detector: str = ""
    autoencoder: str = ""

    def difference(self, wanted: "Source") -> str:
        """Why these vectors are not `wanted`, and what to do, or "" if they are."""
        how = HOW_TO_MAKE[wanted.kind]
        if self.kind != wanted.kind:
            return f"holds {self.kind}, not {wanted.kind}; give {how}"
        for network, advice in (("detector", "extract the images"), ("autoencoder", "embed the feature stores")):
            own, other = (getattr(each, network) for each in (self, wanted))
            if own != other:
                own, other = own[:12] or "unknown", other[:12] or "unknown"
                return f"is from {network} {own}, not {other}; {advice} with that {network}"
        if self.length != wanted.length:
            return f"has vectors of {self.length} numbers, not {wanted.length}; give {how}"
        return ""


@dataclass(frozen=True)
class CentreCells:
    """Cells of a centre: finite float32 vectors (n, length), image_ids and types (n,), "" for none, and their file."""

    vectors: np.ndarray
    image_ids: np.ndarray
    types: np.ndarray
    path: Path


def read_cells(paths: Iterable[str], of_stores: str = "mean features") -> tuple[Source, dict[str, CentreCells]]:
    """Read cells of all centres in some files, which must be from the same networks.

    Files are embeddings (.h5ad), vectors made elsewhere (.npz) or feature stores (all shards of a centre), of which
    "mean features" or "morphology" is taken. Returned is what the vectors are, and the cells by centre in order of
    appearance.

    Refused are files without a cell or with a value that is not finite, of different networks, or of the same centre.
    """
    files = [Path(path) for path in paths]  # what is no file of vectors is taken for a feature store
    found = [_read_file(path) for path in files if path.suffix.lower() in SUFFIXES]
    stores = stores_by_centre([path for path in files if path.suffix.lower() not in SUFFIXES])
    found += [_read_store(centre, store, of_stores) for centre, store in stores.items()]
    source, first = found[0][0], next(iter(found[0][1].values())).path
    cells: dict[str, CentreCells] = {}
    for other, by_centre in found:
        for centre, own in by_centre.items():
            if difference := other.difference(source):
                raise InputError(f"{own.path}: unlike {first}, {difference}")
            if centre in cells:
                raise InputError(f"{own.path}: {cells[centre].path} holds centre {centre} too; give one of them")
            cells[centre] = own
    return source, cells


def prepare_vectors(cells: CentreCells, centre: str, how: str) -> np.ndarray:
    """The vectors as a classifier takes them: as they are ("none"), or standardised within the centre ("centre").

    The statistics are those of all cells that are given, with or without a type; of too few they are refused.
    """
    if how == "none":
        return cells.vectors
    if len(cells.vectors) < LEAST_CELLS:
        raise InputError(
            f"{cells.path}: centre {centre} has {len(cells.vectors)} cells, too few to standardise within it (at least "
            f"{LEAST_CELLS}); give more, or take a classifier trained with --standardise none"
        )
    return standardise(cells.vectors)


def _read_file(path: Path) -> tuple[Source, dict[str, CentreCells]]:
    by_centre = read_vectors(path)
    cells = {c: CentreCells(x, names["image_id"], names["cell_type"], path) for c, (x, names) in by_centre.items()}
    length = next(iter(cells.values())).vectors.shape[1]
    origin = _read_origin(path) if path.suffix.lower() == ".h5ad" else None
    return (Source("vectors", length) if origin is None else Source("latents", length, *origin)), cells


def _read_store(centre: str, path: StorePath, kind: str) -> tuple[Source, dict[str, CentreCells]]:
    with open_store(path) as store:
        if not len(store):
            raise InputError(f"{store.path}: holds no cells; leave it out")
        vectors = store.read("morphology", 0, len(store)) if kind == "morphology" else roi_vectors(store, "mean")
        bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(bad):
            raise InputError(f"{store.path}: the {kind} of cell {bad[0]} are not finite; extract it again")
        # Measurements mean the same whatever drew the masks.
        detector = "" if kind == "morphology" else store.detector_hash
        source = Source(kind, vectors.shape[1], detector)
        return source, {centre: CentreCells(vectors, store.image_ids, store.cell_types, store.path)}


def _read_origin(path: Path) -> tuple[str, str] | None:
    """Hashes of the detector and the autoencoder of an embedding; None if it is not of `aecfe embed`."""
    try:
        config, run = (parse_json(read_note(path, f"uns/{name}")) for name in ("config", "run"))
        (detector,) = {str(store["detector_hash"]) for store in run["stores"].values()}
        # Earlier autoencoders did not note their weights; all that they noted says as much.
        return detector, run.get("weights_sha256") or hash_json({"config": config, "run": run})
    except (ValueError, TypeError, KeyError, AttributeError):  # an InputError too
        return None
