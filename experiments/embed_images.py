"""The command `aecfe features`: from a folder of images to a vector for each cell, with what is needed to judge it.

out.h5ad          a vector for each cell: mean RoI features of the detector, or latents of an autoencoder
out.csv           a row for each cell, and one with the reason for each image without a cell
out.overlay.png   some of the images with what was found on them
out.h5            feature store of the cells; an interrupted call goes on from it
"""

import json
import logging
import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
from PIL import Image

from autoencoder.embedding import OBS_STRINGS, compiled_encoder, describe_cells, encode_store
from autoencoder.folder import WEIGHTS, TrainedAutoencoder, file_hash, load_autoencoder
from experiments.cache import hash_json
from experiments.classify import roi_vectors
from experiments.contact_sheet import contact_sheet
from experiments.duplicates import content_hashes
from experiments.export_pipeline import check_detector
from experiments.feature_files import (
    BOX,
    FOUND,
    PROVENANCE,
    FeatureFiles,
    check_same_inputs,
    read_provenance,
    write_cell_table,
)
from experiments.versions import versions
from mrcnn.atomic import atomic_path, remove_leftovers
from mrcnn.data.records import ImageRecord
from mrcnn.detection_limit import detection_limit
from mrcnn.errors import InputError
from mrcnn.feature_store import FeatureStore
from mrcnn.features import extract_features
from mrcnn.hdf5_files import atomic_hdf5
from mrcnn.model import detector_config, detector_hash, load_detector
from mrcnn.output_lock import OutputLock

log = logging.getLogger(__name__)

IMAGE_FILES = "image_files"  # setting of the store


def embed_images(
    images: Sequence[ImageRecord],
    files: FeatureFiles,
    detector: str | os.PathLike,
    autoencoder: str | os.PathLike | None = None,
    *,
    centre: str,
    all_cells: bool = False,
    min_score: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    command: Sequence[str] = (),
    progress: bool = True,
) -> tuple[dict[str, int], bool]:
    """Find the cells of some images and write a vector for each, with a table and a picture to judge them by.

    The `.h5ad` file comes last: where it is, everything is. What is there of the same inputs is used as it is.

    Args:
        images: of `find_images`.
        files: where to write; call its `check` first.
        detector: folder of a trained detector.
        autoencoder: folder of an autoencoder that was trained on its features; None keeps the features, averaged over
            their 14 x 14 places.
        centre: name of the centre that the images are from.
        all_cells: keep every cell of an image, not one (`mrcnn.features.choose_cell`).
        min_score: least score of a cell; None leaves the detector's own.
        max_detections: most cells of an image; None leaves the detector's own.
        batch_size: images in a batch of the detector.
        overwrite: make everything again.
        command: the command line, to be noted.
        progress: show bars.

    Returns:
        Counts of the feature store (images, found, missed, unreadable, detections, cells), and whether anything was
        made.

    Raises:
        InputError: if a model cannot be used, the two do not belong together, the autoencoder scales features per
            centre and does not know this one, files of other inputs are there, another run is writing them, or no
            image has a cell.
    """
    overrides = {} if min_score is None else {"DETECTION_MIN_CONFIDENCE": min_score}
    config = detector_config(detector, overrides, max_detections)
    trained = None if autoencoder is None else _open_autoencoder(autoencoder, detector, centre)
    identity = {
        "detector": detector_hash(detector),
        "autoencoder": None if trained is None else file_hash(trained.folder / WEIGHTS),
        "images": hash_json(content_hashes(images, "look at images", progress)),
        "centre": centre,
        "all_cells": all_cells,
        "min_score": config.DETECTION_MIN_CONFIDENCE,
        "max_detections": detection_limit(config),
    }
    if files.h5ad.exists() and not overwrite:
        earlier = read_provenance(files.h5ad)
        check_same_inputs(files.h5ad, earlier["identity"], identity)
        # Without its store, which is large and may have been removed, it is as good.
        if all(path is None or path.exists() for path in (files.csv, files.overlay)):
            return earlier["counts"], False
    with OutputLock(files.h5ad) as lock:
        if lock.is_held:
            for path in (files.h5ad, files.csv, files.overlay):  # the store has a lock of its own
                if path is not None:
                    remove_leftovers(path.parent, path.name)
        _check_store(files.store, identity["images"], overwrite)
        counts = extract_features(
            load_detector(detector, overrides, max_detections),
            images,
            files.store,
            centre=centre,
            all_cells=all_cells,
            batch_size=batch_size,
            attributes={IMAGE_FILES: identity["images"]},
            overwrite=overwrite,
            progress=progress,
        )
        _write_beside(files, images, centre)
        if not counts["cells"]:
            raise InputError(_why_nothing(files, counts))
        provenance = {
            "identity": identity,
            "counts": counts,
            "command": list(command),
            "versions": {"aecfe": version("aecfe"), **versions()},
        }
        with FeatureStore(files.store) as store:
            if trained is None:
                vectors = roi_vectors(store)
            else:
                vectors = encode_store(trained, compiled_encoder(trained), store, progress=progress)
            _write_h5ad(files.h5ad, vectors, cell_rows(store, images), provenance, trained)
    return counts, True


def cell_rows(store: FeatureStore, images: Sequence[ImageRecord]) -> pd.DataFrame:
    """What is known of each cell of an opened store: a row of the `.h5ad` file's obs and of the CSV.

    Args:
        store: the store.
        images: those that it was made of.

    Returns:
        Table as of `autoencoder.embedding.describe_cells`, and image (the file), y1, x1, y2, x2 (pixels, the last two
        exclusive), detections (cells that the detector found on the image, of which these are kept) and status.
    """
    table = describe_cells(store, {})
    path_of = {record.key: shown_path(record.path) for record in images}
    detections = dict(zip(store.image_keys.tolist(), store.image_column("num_detections").tolist(), strict=True))
    table["image"] = [path_of[key] for key in table["key"]]
    boxes = np.round(store.read("box", 0, len(store))).astype(np.int32)
    for column, values in zip(BOX, boxes.T, strict=True):
        table[column] = values
    table["detections"] = np.array([detections[key] for key in table["key"]], np.int32)
    table["status"] = FOUND
    return table


def shown_path(path: Path) -> str:
    """A path as text that any file can hold: what is not UTF-8 is written with escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _open_autoencoder(folder: str | os.PathLike, detector: str | os.PathLike, centre: str) -> TrainedAutoencoder:
    """Load an autoencoder and check, before hours of detection, that it can be used for these images."""
    trained = load_autoencoder(folder)
    check_detector(trained, detector)
    try:
        trained.scaling.centre_id(centre)
    except InputError as error:
        raise InputError(f"{folder}: {error}; if the images are from a centre that it knows, give --centre") from None
    return trained


def _check_store(path: Path, images_hash: str, overwrite: bool) -> None:
    """Refuse a store of other images; what else it may differ in is looked at by the extraction."""
    if overwrite or not path.exists():
        return
    with FeatureStore(path) as store:
        if store.settings.get(IMAGE_FILES) != images_hash:
            raise InputError(
                f"{path}: is a feature store of other images, of images that have changed since, or of aecfe extract; "
                "give another -o, or --overwrite to replace it"
            )


def _write_beside(files: FeatureFiles, images: Sequence[ImageRecord], centre: str) -> None:
    """Write the table and the picture, and say where more cells were found than kept."""
    with FeatureStore(files.store) as store:
        more = int(np.sum(store.image_column("num_detections") > store.image_column("num_cells")))
        if more:
            log.info(
                "%d images show several cells, of which the one in the middle is kept; --all-cells keeps all", more
            )
        if files.csv is not None:
            rows = {record.key: (shown_path(record.path), centre) for record in images}
            listed = pd.DataFrame.from_dict(rows, orient="index", columns=["image", "centre"])
            write_cell_table(files.csv, cell_rows(store, images), store.missed, listed)
        if files.overlay is not None:
            picture = contact_sheet(store, {record.key: record for record in images})
            with atomic_path(files.overlay) as temporary:
                Image.fromarray(picture).save(temporary)


def _why_nothing(files: FeatureFiles, counts: dict[str, int]) -> str:
    shown = " and ".join(str(path) for path in (files.csv, files.overlay) if path is not None)
    look = f"; see {shown}" if shown else ""
    if counts["unreadable"] == counts["images"]:
        return f"none of the {counts['images']} images could be read{look}; mend them and give --overwrite"
    return (
        f"no cell on any of {counts['images']} images ({counts['unreadable']} unreadable){look}; give a lower "
        "--min-score with --overwrite, or a detector that was trained on such images"
    )


def _write_h5ad(
    path: Path,
    vectors: np.ndarray,
    cells: pd.DataFrame,
    provenance: dict[str, Any],
    trained: TrainedAutoencoder | None,
) -> None:
    cells = cells.astype({name: "category" for name in (*OBS_STRINGS, "image", "status")})
    data = anndata.AnnData(vectors, obs=cells)
    data.uns[PROVENANCE] = json.dumps(provenance)
    if trained is not None:
        data.uns["config"] = json.dumps(trained.config.to_dict())
        data.uns["run"] = json.dumps(trained.run)
    with atomic_hdf5(path) as (file, _):
        anndata.io.write_elem(file, "/", data)
