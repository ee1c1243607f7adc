"""Fetching published weights."""

import os
import urllib.request
from http.client import HTTPException

from mrcnn.atomic import atomic_path
from mrcnn.errors import InputError
from mrcnn.progress_bar import Bar

# COCO weights that Matterport published with release 2.0 of its Mask R-CNN: 80 classes, ResNet-101.
COCO_MODEL_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5"
# First bytes of every HDF5 file; login pages and the like come with status 200 too.
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20


def download_trained_weights(coco_model_path: str | os.PathLike, verbose: int = 1) -> None:
    """Download the COCO weights of Matterport's Mask R-CNN (its name and arguments), some 250 MB.

    The file appears under its name when it is complete.

    Args:
        coco_model_path: where to, an .h5 file.
        verbose: above 0 shows a bar with the time left.

    Raises:
        InputError: if the file cannot be fetched or written, breaks off, or is not an HDF5 file.
    """
    download_h5(COCO_MODEL_URL, coco_model_path, verbose)


def download_h5(url: str, path: str | os.PathLike, verbose: int = 1) -> None:
    """Stream an HDF5 file from `url` to `path`; arguments and faults are those of `download_trained_weights`."""
    advice = f"; fetch it in another way and put it at {os.fspath(path)}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response, atomic_path(path) as temporary:
            expected = int(response.headers.get("Content-Length") or 0)
            received = 0
            with (
                open(temporary, "wb") as file,
                Bar(total=expected or None, unit="B", unit_scale=True, desc=url, disable=not verbose) as bar,
            ):
                while chunk := response.read(CHUNK_BYTES):
                    if received == 0 and not chunk.startswith(HDF5_SIGNATURE):
                        raise InputError(f"{url} is not an HDF5 file, perhaps a page of the network{advice}")
                    received += file.write(chunk)
                    bar.update(len(chunk))
            if received == 0 or received < expected:
                raise InputError(f"{url} broke off after {received} of {expected} bytes; try again")
    # HTTPException: the connection ended in the middle of a chunk. OSError: URLError, time-outs and full disks.
    except (OSError, HTTPException) as error:
        raise InputError(f"cannot download {url} ({error}){advice}") from error
