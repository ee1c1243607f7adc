"""`aecfe features`: from a folder of images to a vector for each cell, with what is needed to judge it.

out.h5ad          a vector for each cell: the detector's mean RoI features, an autoencoder's latents, or measurements
out.csv           a row for each cell, with any measurements, and one with the reason for each image without a cell
out.overlay.png   some of the images with what was found on them
out.h5            feature store of the cells; an interrupted call resumes from it
"""

import logging
import os
import sys
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from autoencoder.embedding import compiled_encoder, describe_cells, encode_store, write_h5ad
from autoencoder.folder import WEIGHTS, TrainedAutoencoder, load_autoencoder
from experiments.cells.contact_sheet import contact_sheet
from experiments.cells.export import check_detector
from experiments.cells.writers import refuse_among_images
from experiments.centres.duplicates import content_hashes
from experiments.settings import check_centre_name
from mrcnn.data.records import ImageRecord
from mrcnn.detection import detection_limit
from mrcnn.feature_store import UNREADABLE, FeatureStore, is_unreadable
from mrcnn.feature_store.reader import roi_vectors
from mrcnn.features import extract_features
from mrcnn.files.atomic import OutputLock, atomic_path, remove_leftovers
from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import read_note
from mrcnn.files.json_io import parse_json
from mrcnn.files.output_paths import check_output_file
from mrcnn.files.provenance import file_hash, hash_json, versions
from mrcnn.files.run_folder import check_same
from mrcnn.model import detector_config, detector_hash, load_detector
from mrcnn.network.assembly import NUCLEUS

log = logging.getLogger(__name__)

FOUND, MISSED = "found", "missed"  # status beside UNREADABLE
IMAGE_FILES = "image_files"  # setting of the store
PROVENANCE = "provenance"
BOX = ["y1", "x1", "y2", "x2"]
ENDINGS = {"csv": ".csv", "overlay": ".overlay.png", "store": ".h5"}
CSV_COLUMNS = ("cell", "image_id", "centre", "image", "status", "reason", "score", *BOX, "detections")


def feature_files(
    output: str | os.PathLike, images: Sequence[ImageRecord], without: Container[str] = ()
) -> dict[str, Path]:
    """What one call writes, by kind, in the order in which to look at it; `without` may hold "csv" and "overlay".

    The files are named after the `.h5ad` file `output`. Places where one cannot be written, or would be taken for one
    of the images, are refused.
    """
    if Path(output).suffix.lower() != ".h5ad":
        raise InputError(f"-o {output}: the name must end in .h5ad; the other files are named after it")
    files = {"h5ad": Path(output)}
    files |= {kind: Path(output).with_suffix(end) for kind, end in ENDINGS.items() if kind not in without}
    for path in files.values():
        check_output_file(path)
    if "overlay" in files:
        advice = "write to another folder, or give --no-overlay"
        refuse_among_images(f"-o {output}: {files['overlay'].name}", [files["overlay"]], images, advice)
    return files


def centre_name(images: Sequence[ImageRecord], given: str | None = None) -> str:
    """The centre of images of `find_images`: the given name, or that of the deepest folder that holds all of them.

    Where this folder is called `images`, the one above gives its name.
    """
    folder = Path(os.path.abspath(images[0].path)).parents[images[0].image_id.count("/")]
    name = folder.parent.name if folder.name.lower() == "images" else folder.name
    try:
        return check_centre_name(name if given is None else given)
    except InputError:
        source = ascii(str(folder)) if given is None else f"--centre {given!r}"
        raise InputError(f"{source}: gives no name that a centre can have; give --centre NAME") from None


def embed_images(
    images: Sequence[ImageRecord],
    files: Mapping[str, Path],
    detector: str | os.PathLike,
    autoencoder: str | os.PathLike | None = None,
    *,
    centre: str,
    kind: str = "features",
    all_cells: bool = False,
    min_score: float | None = None,
    max_detections: int | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
) -> tuple[dict[str, int], bool]:
    """Find the cells of some images and write a vector for each, with a table and a picture to judge them by.

    The `.h5ad` file comes last: where it is, everything is. What is there of the same inputs is used as it is.

    Args:
        images, files: of `find_images` and `feature_files`.
        detector, autoencoder: folders of a trained detector and of an autoencoder that was trained on its features;
            None keeps the features, averaged over their 14 x 14 spatial positions.
        centre: name of the centre that the images are from.
        kind: "features", or "morphology" to keep what is measured on cell and nucleus, with the names of the numbers.
        all_cells: keep every cell of an image, not one (`mrcnn.features.choose_cell`).
        min_score, max_detections: minimum score of a cell, maximum cells per image; None leaves the detector's own.
        batch_size: images in a batch of the detector.
        overwrite: make everything again.

    Returns:
        Counts of the feature store (images, found, missed, unreadable, detections, cells), and whether anything was
        made.

    Raises:
        InputError: if a model cannot be used, the two do not belong together, the autoencoder does not know the centre
            that it scales by, files of other inputs are there, another run is writing them, or no image has a cell.
    """
    overrides = {} if min_score is None else {"DETECTION_MIN_CONFIDENCE": min_score}
    config = detector_config(detector, overrides, max_detections)
    if kind == "morphology" and NUCLEUS not in config.MASK_PARTS:
        raise InputError(f"--kind morphology: {detector} draws no nuclei; give a detector that was trained to")
    trained = None if autoencoder is None else _open_autoencoder(autoencoder, detector, centre)
    identity = {
        "detector": detector_hash(detector),
        "autoencoder": None if trained is None else file_hash(trained.folder / WEIGHTS),
        "images": hash_json(content_hashes(images, "look at images")),
        "centre": centre,
        "all_cells": all_cells,
        "min_score": config.DETECTION_MIN_CONFIDENCE,
        "max_detections": detection_limit(config),
        **({} if kind == "features" else {"kind": kind}),
    }
    h5ad, beside = files["h5ad"], [path for kind, path in files.items() if kind in ("csv", "overlay")]
    if h5ad.exists() and not overwrite:
        earlier = _read_provenance(h5ad)
        check_same(h5ad, earlier["identity"], identity, "give another -o, or --overwrite to make it again")
        # Without its store, which is large and may have been removed, it is as good.
        if all(path.exists() for path in beside):
            return earlier["counts"], False
    with OutputLock(h5ad):
        for path in beside:  # the store has a lock of its own
            remove_leftovers(path.parent, path.name)
        counts = extract_features(
            load_detector(detector, overrides, max_detections),
            images,
            files["store"],
            centre=centre,
            all_cells=all_cells,
            batch_size=batch_size,
            attributes={IMAGE_FILES: identity["images"]},
            overwrite=overwrite,
        )
        with FeatureStore(files["store"]) as store:
            cells = cell_rows(store, images)
            _write_beside(files, store, cells, images)
            if not counts["cells"]:
                see = f"; see {' and '.join(map(str, beside))}" if beside else ""
                raise InputError(
                    f"no cell on any of {counts['images']} images ({counts['unreadable']} unreadable){see}; with "
                    "--overwrite give a lower --min-score, or a detector that was trained on such images"
                )
            notes = {"identity": identity, "counts": counts, "command": sys.argv, "versions": versions("aecfe")}
            if kind == "morphology":
                names = store.attributes["morphology"]
                write_h5ad(h5ad, store.read("morphology", 0, len(store)), cells, {PROVENANCE: notes}, names)
            elif trained is None:
                write_h5ad(h5ad, roi_vectors(store), cells, {PROVENANCE: notes})
            else:
                latents = encode_store(trained, compiled_encoder(trained), store)
                models = {"config": trained.config.to_dict(), "run": trained.run}
                write_h5ad(h5ad, latents, cells, {PROVENANCE: notes, **models})
    return counts, True


def cell_rows(store: FeatureStore, images: Sequence[ImageRecord]) -> pd.DataFrame:
    """What is known of each cell of an opened store: a row of the `.h5ad` file's obs and of the CSV.

    Returns:
        Table as of `autoencoder.embedding.describe_cells`, and image (the file), y1, x1, y2, x2 (pixels, the last two
        exclusive), detections (cells that the detector found on the image, of which these are kept) and status.
    """
    table = describe_cells(store, {})
    table["image"] = table["image_id"].map(_shown_paths(images))
    table[BOX] = np.round(store.read("box", 0, len(store))).astype(np.int32).reshape(-1, 4)
    detections = pd.Series(store.image_column("num_detections").astype(np.int32), store.all_image_ids.tolist())
    table["detections"] = detections.loc[table["image_id"]].to_numpy()
    table["status"] = FOUND
    return table


def _shown_paths(images: Sequence[ImageRecord]) -> dict[str, str]:
    """Paths by image_id, as text that any file can hold: what is not UTF-8 is written with escapes."""
    return {record.image_id: str(record.path).encode("utf-8", "backslashreplace").decode() for record in images}


def _read_provenance(path: Path) -> dict[str, Any]:
    """What an `.h5ad` file of `aecfe features` says of its origin."""
    try:
        provenance = parse_json(read_note(path, f"uns/{PROVENANCE}"))
        if isinstance(provenance["identity"], dict) and isinstance(provenance["counts"], dict):
            return provenance
    except (KeyError, TypeError, ValueError):  # InputError is one
        pass
    raise InputError(f"{path}: was not written by aecfe features; give another -o, or --overwrite to replace it")


def _open_autoencoder(folder: str | os.PathLike, detector: str | os.PathLike, centre: str) -> TrainedAutoencoder:
    """Load an autoencoder and check, before hours of detection, that it can be used for these images."""
    trained = load_autoencoder(folder)
    check_detector(trained, detector)
    try:
        trained.scaling.centre_id(centre)
    except InputError as error:
        raise InputError(f"{folder}: {error}; if the images are from a centre that it knows, give --centre") from None
    return trained


def _write_beside(
    files: Mapping[str, Path], store: FeatureStore, cells: pd.DataFrame, images: Sequence[ImageRecord]
) -> None:
    """Write the table and the picture, and say where more cells were found than kept."""
    more = int(np.sum(store.image_column("num_detections") > store.image_column("num_cells")))
    if more:
        log.info("%d images show several cells, of which the one in the middle is kept; --all-cells keeps all", more)
    records = {record.image_id: record for record in images}
    if "csv" in files:
        lost = pd.DataFrame(store.missed, columns=["image_id", "reason"]).assign(centre=store.centre, detections=0)
        lost["image"] = lost["image_id"].map(_shown_paths(images))
        lost["status"] = [UNREADABLE if is_unreadable(reason) else MISSED for reason in lost["reason"]]
        found = cells.rename_axis("cell").reset_index().assign(reason="")
        measured = store.attributes["morphology"]
        if measured:
            found[measured] = store.read("morphology", 0, len(store))
        # As plain objects: whole numbers stay whole beside gaps.
        table = pd.concat([part.reindex(columns=[*CSV_COLUMNS, *measured]).astype(object) for part in (found, lost)])
        order = {image_id: number for number, image_id in enumerate(records)}
        table = table.sort_values("image_id", key=lambda ids: ids.map(order), kind="stable")
        table[measured] = table[measured].map("{:.6g}".format, na_action="ignore")
        table["score"] = table["score"].map("{:.4f}".format, na_action="ignore")
        with atomic_path(files["csv"]) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")
    if "overlay" in files:
        with atomic_path(files["overlay"]) as temporary:
            Image.fromarray(contact_sheet(store, records)).save(temporary)
