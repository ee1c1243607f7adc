"""Synthetic centres: three "centres" of smears with exact masks and labels, made from nothing.

Each image shows one labelled white cell among red cells, platelets and dirt, sometimes with a second white cell cut by
the border. The centres differ in stain, lamp, pixel size, focus, dirt and, mildly, in how common the cell types are,
about as far as published data sets of different laboratories do: a batch effect to try a method on without a download.
The images are no photographs, and no substitute for real data in a result.
"""

import csv
import logging
import os
import zlib
from pathlib import Path

import cv2
import numpy as np

from experiments.synthetic.smear import synthetic_image
from experiments.synthetic.styles import CENTRES, CentreStyle
from mrcnn.files.atomic import atomic_folder, write_json
from mrcnn.files.errors import InputError
from mrcnn.files.json_io import parse_json
from mrcnn.files.progress import Bar
from mrcnn.files.run_folder import check_same

logger = logging.getLogger(__name__)

GENERATOR_VERSION = 2  # raise it with every change that alters what is written
MARKER = "synthetic.json"
_PARTS = ("images", "masks", "nuclei")
_OWN_NAMES = {*_PARTS, "labels.csv", MARKER}
MIN_IMAGE_SIZE, MAX_IMAGE_SIZE = 48, 2048


def generate_centre(
    name: str,
    folder: str | os.PathLike,
    *,
    num_images: int,
    seed: int,
    image_size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the images, instance masks and labels of a synthetic centre.

    The folder gets `images/NNNN.png`, `masks/NNNN.png` (0 background, 1 the labelled cell, 2 a cell at the border),
    `nuclei/NNNN.png` (255 in their nuclei), `labels.csv` (columns image, label) and `synthetic.json` with the settings.
    Image number i depends on `name`, `seed`, `image_size` and i alone. The folder appears when it is complete; if it
    holds what is asked for already, nothing is done.

    Args:
        name: a key of `CENTRES`.
        folder: where the centre goes; made if it is missing.
        num_images: 1 to 9999.
        seed: 0 or more.
        image_size: side of the images in pixels, 48 to 2048, instead of the style's own.
        overwrite: replace a centre of other settings. Folders that hold anything else are never replaced.

    Returns:
        `folder` as a path.

    Raises:
        InputError: if an argument is out of its range, `folder` holds something else, or another run is writing it.
    """
    style = _checked_style(name, num_images, seed, image_size)
    folder = Path(folder)
    marker = {
        "generator": "synthetic smear",
        "version": GENERATOR_VERSION,
        "centre": name,
        "seed": seed,
        "num_images": num_images,
        "image_size": image_size or style.image_size,
        "imitates": style.imitates,
    }
    if _holds_centre(folder, marker, overwrite):
        logger.info("%s: synthetic centre %s reused", folder, name)
        return folder
    with atomic_folder(folder, MARKER, overwrite=True) as temporary:
        _write_centre(temporary, style, marker)
    logger.info("%s: synthetic centre %s generated, %d images", folder, name, num_images)
    return folder


def cell_type_of_image(name: str, seed: int, index: int) -> str:
    """The type of the labelled cell on an image, dealt from a shuffled deck, a new one whenever it is used up.

    So the types' proportions hold in any number of images, and a longer series begins with the shorter one.
    """
    deck = [cell_type for cell_type, count in CENTRES[name].type_counts.items() for _ in range(count)]
    round_number, card = divmod(index, len(deck))
    return deck[_rng(name, seed, 1, round_number).permutation(len(deck))[card]]


def _rng(name: str, seed: int, purpose: int, index: int) -> np.random.Generator:
    """A generator of its own for each image (purpose 0) and each deck (purpose 1)."""
    entropy = [zlib.crc32(name.encode()), seed]
    return np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(purpose, index)))


def _checked_style(name: str, num_images: int, seed: int, image_size: int | None) -> CentreStyle:
    if name not in CENTRES:
        raise InputError(f"no synthetic centre {name!r}: choose from {', '.join(CENTRES)}")
    for option, value, lowest, highest in (
        ("num_images", num_images, 1, 9999),
        ("seed", seed, 0, 2**63 - 1),
        ("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
    ):
        if value is not None and not lowest <= value <= highest:
            raise InputError(f"{option} is {value}: choose {lowest} to {highest}")
    return CENTRES[name]


def _write_centre(folder: Path, style: CentreStyle, marker: dict) -> None:
    for part in _PARTS:
        (folder / part).mkdir()
    rows = []
    for index in Bar(range(marker["num_images"]), desc=f"synthetic {marker['centre']}", unit="image"):
        file_name = f"{index:04d}.png"
        cell_type = cell_type_of_image(marker["centre"], marker["seed"], index)
        rng = _rng(marker["centre"], marker["seed"], 0, index)
        made = synthetic_image(style, cell_type, rng, marker["image_size"])
        _write_png(folder / "images" / file_name, made.image[..., ::-1])  # OpenCV's order is BGR
        _write_png(folder / "masks" / file_name, made.instances)
        _write_png(folder / "nuclei" / file_name, 255 * made.nuclei.astype(np.uint8))
        rows.append((file_name, cell_type))
    with open(folder / "labels.csv", "w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows([("image", "label"), *rows])
    write_json(folder / MARKER, marker)


def _write_png(path: Path, pixels: np.ndarray) -> None:
    # cv2.imwrite reports a full disk by returning False; Path.write_bytes raises.
    path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())


def _holds_centre(folder: Path, marker: dict, overwrite: bool) -> bool:
    """Whether `folder` already is what is asked for, or may be written; what must not be replaced is refused."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose another folder")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not names:
        return False
    try:
        found = parse_json((folder / MARKER).read_bytes())
    except (FileNotFoundError, ValueError):
        found = None
    is_ours = isinstance(found, dict) and found.get("generator") == marker["generator"]
    if not is_ours or names - _OWN_NAMES:
        other = sorted(names - _OWN_NAMES) or sorted(names)
        raise InputError(f"{folder}: holds files that were not generated ({other[0]}); choose another folder")
    complete = all(len(list((folder / p).glob("*.png"))) == marker["num_images"] for p in _PARTS)
    if found == marker and complete and (folder / "labels.csv").is_file():
        return True
    if not overwrite:
        check_same(folder, found, marker, "choose another folder, or give --overwrite")
        raise InputError(f"{folder}: files of this synthetic centre are missing; choose another folder or --overwrite")
    return False
