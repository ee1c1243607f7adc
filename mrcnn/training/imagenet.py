"""ImageNet weights of `keras.applications`' ResNets, and Matterport's COCO weights: fetched, and made ours.

Three things differ between the two backbones, and all three are made good when a file is loaded:

* names: `conv3_block2_1_conv` there is `res3b_branch2a` here, as in Matterport's files;
* the epsilon of batch normalisation: 1.001e-5 there, 1e-3 here; the difference goes into gamma;
* the order of the colours: blue, green, red there ("caffe" preprocessing), red, green, blue here.

Only a backbone with `stem_padding="symmetric"` also pools like theirs.
"""

import io
import logging
import os
import re
import sys
from contextlib import redirect_stdout
from pathlib import Path
from string import ascii_lowercase

import keras
import numpy as np

from mrcnn.files.atomic import atomic_path
from mrcnn.files.errors import InputError, one_line

logger = logging.getLogger(__name__)

KERAS_EPSILON = 1.001e-5  # of every batch normalisation there
# COCO weights that Matterport published with release 2.0 of its Mask R-CNN (80 classes, ResNet-101), and their MD5.
COCO_MODEL_URL = "https://github.com/matterport/Mask_RCNN/releases/download/v2.0/mask_rcnn_coco.h5"
COCO_HASH = "e98aaff6f99e307b5e2a8a3ff741a518"
# Address, and MD5 by architecture, of the files without the classifier, as in keras.applications.
BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
FILE_HASHES = {"resnet50": "4d473c1dd8becc155b73f8504c6f6626", "resnet101": "88cf7a10940856eca736dc7b7e228a21"}

_STEM = {"conv1_conv": "conv1", "conv1_bn": "bn_conv1"}
_BLOCK = re.compile(r"conv([2-5])_block([1-9]\d?)_([0-3])_(conv|bn)")
_BRANCHES = ("1", "2a", "2b", "2c")  # number 0 is the convolution of the shortcut


def matterport_name(keras_name: str) -> str | None:
    """Translate the name of a layer of `keras.applications`' ResNet; None if there is no such layer here.

    >>> matterport_name("conv4_block23_0_bn")
    'bn4w_branch1'
    """
    match = _BLOCK.fullmatch(keras_name)
    if match is None or int(match[2]) > len(ascii_lowercase):
        return _STEM.get(keras_name)
    stage, block, branch, kind = match.groups()
    prefix = "res" if kind == "conv" else "bn"
    return f"{prefix}{stage}{ascii_lowercase[int(block) - 1]}_branch{_BRANCHES[int(branch)]}"


def convert(name: str, values: dict[str, np.ndarray], layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """Bring the weights of a `keras.applications` layer, by kind, to the conventions of our `layer`, called `name`."""
    if name == "conv1":
        kernel = values["kernel"]
        # A grey image is one with three equal channels, so the sum over the colours sees the same. Otherwise, they feed
        # (B, G, R) minus (103.939, 116.779, 123.68); we feed (R, G, B) minus MEAN_PIXEL.
        is_grey = layer.kernel.shape[2] == 1
        return values | {"kernel": kernel.sum(axis=2, keepdims=True) if is_grey else kernel[:, :, ::-1]}
    if "moving_variance" in values and "gamma" in values:
        # gamma / sqrt(variance + epsilon) stays what it was, so the layer computes the same function.
        variance = values["moving_variance"].astype(np.float64)
        ratio = np.sqrt((variance + layer.epsilon) / (variance + KERAS_EPSILON))
        return values | {"gamma": (values["gamma"] * ratio).astype(np.float32)}
    return values


def imagenet_weights_path(architecture: str) -> Path:
    """Fetch the weights of `keras.applications` (no classifier), unless they are already in Keras' own cache.

    That is `~/.keras/models` if nothing else is set. The checksum is verified.

    Raises:
        InputError: for another architecture than "resnet50" and "resnet101", or if the file cannot be fetched.
    """
    if architecture not in FILE_HASHES:
        raise InputError(f"no ImageNet weights for {architecture!r}; set BACKBONE to one of {', '.join(FILE_HASHES)}")
    name = f"{architecture}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    path = _fetch(BASE_URL + name, FILE_HASHES[architecture], name, cache_subdir="models")
    logger.info("ImageNet weights of %s: %s", architecture, path)
    return path


def download_trained_weights(coco_model_path: str | os.PathLike, verbose: int = 1) -> None:
    """Download the COCO weights of Matterport's Mask R-CNN (its name and arguments), some 250 MB.

    The file appears under its name, where it replaces an older one, when its checksum was verified.

    Raises:
        InputError: if the file cannot be fetched.
    """
    with atomic_path(coco_model_path) as temporary:
        folder = {"cache_dir": str(temporary.parent), "cache_subdir": ""}
        _fetch(COCO_MODEL_URL, COCO_HASH, temporary.name, verbose > 0, **folder)


def _fetch(url: str, md5: str, name: str, show: bool = True, **place: str) -> Path:
    """`keras.utils.get_file`, its bar on stderr, its faults as ours."""
    try:
        with redirect_stdout(sys.stderr if show else io.StringIO()):
            return Path(keras.utils.get_file(name, url, file_hash=md5, **place))
    except Exception as error:  # Keras raises a bare Exception when the network fails.
        raise InputError(
            f"{url} could not be fetched ({one_line(error)}); download it elsewhere and give the path of that file"
        ) from error
