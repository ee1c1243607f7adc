"""ImageNet weights of ResNet-50 and ResNet-101 from `keras.applications`: where they lie and how they become ours.

Three things differ between the two backbones, and all three are made good when a file is loaded:

* names: `conv3_block2_1_conv` there is `res3b_branch2a` here, as in Matterport's files;
* the epsilon of batch normalisation: 1.001e-5 there, 1e-3 here; the difference goes into gamma;
* the order of the colours: blue, green, red there ("caffe" preprocessing), red, green, blue here.

A fourth is a matter of how the backbone is built: `stem_padding="symmetric"` of `mrcnn.network.backbone.resnet` pools
like `keras.applications`.
"""

import logging
import os
import re
import urllib.request
from http.client import HTTPException
from pathlib import Path

import keras
import numpy as np

from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError
from mrcnn.files.progress import Bar

logger = logging.getLogger(__name__)

# Epsilon of every batch normalisation in keras.applications' ResNets.
KERAS_EPSILON = 1.001e-5

# Address, and MD5 by architecture, of the files without the classifier, as in keras.applications.
BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
FILE_HASHES = {
    "resnet50": "4d473c1dd8becc155b73f8504c6f6626",
    "resnet101": "88cf7a10940856eca736dc7b7e228a21",
}

_STEM = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}
_BLOCK = re.compile(r"conv([2-5])_block([1-9]\d?)_([0-3])_(conv|bn)")
_BRANCHES = ("1", "2a", "2b", "2c")  # number 0 is the convolution of the shortcut
_MAX_BLOCKS = 26  # letters


def matterport_name(keras_name: str) -> str | None:
    """Translate the name of a layer of `keras.applications`' ResNet; None if there is no such layer here.

    >>> matterport_name("conv4_block23_0_bn")
    'bn4w_branch1'
    """
    if keras_name in _STEM:
        return _STEM[keras_name]
    match = _BLOCK.fullmatch(keras_name)
    if match is None or int(match[2]) > _MAX_BLOCKS:
        return None
    letter = chr(ord("a") + int(match[2]) - 1)
    prefix = "res" if match[4] == "conv" else "bn"
    return f"{prefix}{match[1]}{letter}_branch{_BRANCHES[int(match[3])]}"


def converted_shape(name: str, kind: str, shape: tuple[int, ...], our_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape that `convert` gives a weight.

    Args:
        name: our name of the layer.
        kind: "kernel", "bias" and so on.
        shape: in the file.
        our_shape: in our layer.
    """
    if (name, kind) == ("conv1", "kernel") and len(shape) == 4 and shape[2] == 3 and our_shape[2] == 1:
        return (*shape[:2], 1, shape[3])
    return shape


def convert(name: str, values: dict[str, np.ndarray], layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Bring the weights of one layer of `keras.applications`' ResNet to our conventions.

    Args:
        name: our name of the layer.
        values: kind -> array as in the file; not changed.
        layer: the one that will take them; its epsilon, or the number of channels it sees, is read.

    Returns:
        kind -> float32 array.
    """
    values = dict(values)
    if name == "conv1":
        kernel = values["kernel"]
        if layer.kernel.shape[2] == 1:
            # A grey image is one with three equal channels, so the sum over the colours sees the same.
            values["kernel"] = kernel.sum(axis=2, keepdims=True)
        else:
            # They feed (B, G, R) minus (103.939, 116.779, 123.68); we feed (R, G, B) minus MEAN_PIXEL.
            values["kernel"] = np.ascontiguousarray(kernel[:, :, ::-1])
    elif "moving_variance" in values and "gamma" in values:
        # gamma / sqrt(variance + epsilon) stays what it was, so the layer computes the same function.
        variance = values["moving_variance"].astype(np.float64)
        ratio = np.sqrt((variance + layer.epsilon) / (variance + KERAS_EPSILON))
        values["gamma"] = (values["gamma"] * ratio).astype(np.float32)
    return values


def imagenet_weights_path(architecture: str) -> Path:
    """Fetch the weights of `keras.applications` (no classifier), unless they are already in Keras' own cache.

    The cache is the one that `keras.applications.ResNet50(weights="imagenet", include_top=False)` fills and reads,
    `~/.keras/models` if nothing else is set, so a file fetched by either serves both.

    Args:
        architecture: "resnet50" or "resnet101".

    Returns:
        Path of the .h5 file, whose checksum was verified.

    Raises:
        InputError: for another architecture, or if the file cannot be fetched.
    """
    if architecture not in FILE_HASHES:
        known = ", ".join(FILE_HASHES)
        raise InputError(f"no ImageNet weights for {architecture!r}; set BACKBONE to one of {known}")
    file_name = f"{architecture}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    url = BASE_URL + file_name
    try:
        path = keras.utils.get_file(file_name, url, cache_subdir="models", file_hash=FILE_HASHES[architecture])
    except Exception as error:  # Keras raises a bare Exception when the network fails.
        reason = " ".join((str(error) or type(error).__name__).split())
        raise InputError(
            f"ImageNet weights of {architecture} could not be fetched ({reason}); download {url} elsewhere and give "
            "the path of that file instead"
        ) from error
    logger.info("ImageNet weights of %s: %s", architecture, path)
    return Path(path)


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
