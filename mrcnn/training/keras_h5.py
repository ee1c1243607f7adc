"""Read weights from an .h5 file as Keras 2 wrote it, without trusting the file.

The layout: the root, or the group `model_weights` of a whole saved model, names its layers in the attribute
`layer_names`; each layer is a group that names its weights in `weight_names`, and those are the paths of datasets
below the group (`conv1/conv1/kernel:0`). A model inside the model is one such group for all of its layers. An
attribute that is too long for HDF5 is cut into `layer_names0`, `layer_names1` and so on.
"""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrcnn.files.errors import InputError
from mrcnn.files.hdf5 import open_plain

_ADVICE = "give a Matterport or keras.applications .h5 file, or download it again"
# Keras 1 named weights in its own way; what it calls a standard deviation is the variance.
_KERAS_1_KINDS = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
# Layers of a detector that tell its network.
_TELLING = ("fpn_c5p5", "rpn_conv_shared", "mrcnn_class_conv1", "mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_mask")
_WEIGHT_NAME = re.compile(r"(.+?)(_\d+)?(:\d+)?$")


class StoredWeights:
    """Weights of one opened file; a value is read when it is asked for.

    `layer_names` are those of the top-level layers, those without weights included; `shapes` go by layer and kind.
    """

    def __init__(self, path: Path, layer_names: list[str], datasets: dict[str, dict[str, h5py.Dataset]]):
        self.path, self.layer_names, self._datasets = path, layer_names, datasets
        self.shapes = {layer: {kind: d.shape for kind, d in kinds.items()} for layer, kinds in datasets.items()}

    def read(self, layer: str, kind: str) -> np.ndarray:
        """Read one weight as float32; InputError if it is not finite, or a negative variance."""
        with np.errstate(over="ignore"):
            value = np.asarray(self._datasets[layer][kind][()]).astype(np.float32)
        if not np.all(np.isfinite(value)) or (kind == "moving_variance" and np.any(value < 0)):
            raise InputError(f"{self.path}: {layer}/{kind} holds NaN, infinity or a negative variance; {_ADVICE}")
        return value


@contextmanager
def open_weights(path: str | os.PathLike, is_known: Callable[[str], bool]) -> Iterator[StoredWeights]:
    """Open a file of Keras 2's layout; `is_known` says whether somebody will ask for a layer of a name.

    A weight belongs to the folder that holds its dataset where that is a known layer, so that the layers of an
    inner model are found; otherwise to its top-level group, since what TimeDistributed wraps, and a layer built
    for the second time, may carry another name inside ("conv2d_5", "conv1_1").

    Raises:
        InputError: if the file is missing, damaged, of another layout, or refers to other files.
    """
    with open_plain(path, advice=_ADVICE) as file:
        root = next((r for r in (file, file.get("model_weights")) if r and _read_names(r, "layer_names")), None)
        if root is None:
            raise ValueError("no layer_names, as in files of Keras 2")
        layer_names, datasets = _read_names(root, "layer_names"), {}
        for group_name in layer_names:
            weights = list(_list_weights(root[group_name], group_name))
            is_single = len({parent for parent, _, _ in weights}) == 1
            for parent, kind, dataset in weights:
                kinds = datasets.setdefault(_layer_of(parent, group_name, is_single, is_known), {})
                if kind in kinds or dataset.dtype.kind not in "fiu" or dataset.shape is None:
                    raise ValueError(f"{group_name}/{kind} is there twice, or no array of numbers")
                kinds[kind] = dataset
        yield StoredWeights(Path(path), layer_names, datasets)


def _list_weights(group: h5py.Group, group_name: str) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Folder ("" for the group itself), kind and dataset of each weight of a layer."""
    for name in _read_names(group, "weight_names"):
        *folders, last = [part for part in name.split("/") if part]
        parent = folders[-1] if folders else ""
        kind = _WEIGHT_NAME.match(last.removeprefix(f"{parent or group_name}_"))[1]
        yield parent, _KERAS_1_KINDS.get(kind, kind), group["/".join([*folders, last])]


def _read_names(group: h5py.Group, attribute: str) -> list[str]:
    """Read an attribute that lists names, or its numbered parts; none if there is neither."""
    parts = takewhile(group.attrs.__contains__, (f"{attribute}{number}" for number in count()))
    parts = [attribute] if attribute in group.attrs else list(parts)
    # Of an empty list NumPy makes numbers, and so did Keras.
    names = [name for part in parts for name in group.attrs[part]]
    names = [name.decode() if isinstance(name, bytes) else name for name in names]
    if not all(name.isprintable() and name.strip("/") for name in names):
        raise ValueError(f"odd names in {attribute}")
    return names


def _layer_of(parent: str, group_name: str, is_single: bool, is_known: Callable[[str], bool]) -> str:
    """Name of the layer that a weight belongs to; `is_single`: its group holds one folder of weights alone."""
    if is_known(parent):
        return parent
    if is_single or not parent:
        return group_name
    # A model built for the second time in one process: "rpn_class_raw_1".
    plain = re.sub(r"_\d+$", "", parent)
    return plain if is_known(plain) else parent


def read_architecture(path: str | os.PathLike) -> dict[str, Any]:
    """Tell from the shapes of a detector's weights in Matterport's layout the settings of its network.

    Image size, scales of the anchors and the like leave no trace in a file.

    Raises:
        InputError: if the file is none, or holds no whole Mask R-CNN with a ResNet-50 or ResNet-101.
    """
    with open_weights(path, lambda name: re.match("(res|bn|conv|fpn|rpn|mrcnn)", name) is not None) as stored:
        shapes = stored.shapes
    missing = [name for name in ("conv1", "bn_conv1", *_TELLING) if not shapes.get(name)]
    if missing:
        raise InputError(
            f"{path}: no whole Mask R-CNN in Matterport's layout, it lacks {', '.join(missing)}; {_ADVICE}"
        )
    blocks = {name[4] for name in shapes if re.fullmatch("res4[a-z]_branch2a", name)}
    backbone = {6: "resnet50", 23: "resnet101"}.get(len(blocks))
    if backbone is None:
        raise InputError(
            f"{path}: its fourth stage has {len(blocks)} blocks, those of ResNet-50 and -101 have 6 and 23"
        )
    box_head, (num_classes,) = shapes["mrcnn_class_conv1"]["kernel"], shapes["mrcnn_class_logits"]["bias"]
    found = {
        "BACKBONE": backbone,
        "NUM_CLASSES": num_classes,
        "NORMALIZATION": "frozen_batch" if "moving_mean" in shapes["bn_conv1"] else "group",
        "IMAGE_CHANNEL_COUNT": shapes["conv1"]["kernel"][2],
        "TOP_DOWN_PYRAMID_SIZE": box_head[2],
        "POOL_SIZE": box_head[0],
        "FPN_CLASSIF_FC_LAYERS_SIZE": box_head[3],
        "RPN_CHANNELS": shapes["rpn_conv_shared"]["kernel"][3],
    }
    return {name: value if isinstance(value, str) else int(value) for name, value in found.items()}
