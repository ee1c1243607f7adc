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
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from mrcnn.files.errors import InputError, first_line

# Keras 1 named weights in its own way; what it calls a standard deviation is the variance.
_KERAS_1_KINDS = {"W": "kernel", "b": "bias", "running_mean": "moving_mean", "running_std": "moving_variance"}
_WEIGHT_NAME = re.compile(r"(.+?)(_\d+)?(:\d+)?$")
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}
_MAX_NAMES = 100_000  # of layers, or of the weights of one layer; a ResNet-101 detector has some hundreds
_MAX_ATTRIBUTE = 16 * 2**20  # bytes
_MAX_NAME = 1024  # characters


class _WeightPath(NamedTuple):
    group: str  # the top-level layer
    parent: str  # the folder that holds the dataset, "" if that is the group itself
    kind: str
    dataset: h5py.Dataset


class StoredWeights:
    """The weights of one file by layer and kind; a value is read when it is asked for.

    A weight belongs to the folder that holds its dataset where that is a known layer, so that the layers of an
    inner model are found; otherwise to its top-level group, since what TimeDistributed wraps, and a layer built
    for the second time, may carry another name inside ("conv2d_5", "conv1_1").

    Args:
        path: the file.
        is_known: whether a name is that of a layer somebody will ask for.

    Attributes:
        path: the file.
        layer_names: names of the top-level layers, those without weights included.
        shapes: layer -> kind ("kernel", "moving_mean" ...) -> shape.

    Raises:
        InputError: if the file is missing, damaged, of another layout, or refers to other files.
    """

    def __init__(self, path: str | os.PathLike, is_known: Callable[[str], bool]):
        self.path = Path(path)
        self._file = _open(self.path)
        try:
            with _as_input_error(self.path):
                root = _find_root(self._file, self.path)
                self.layer_names = tuple(_read_names(root, "layer_names", self.path))
                self._datasets = _list_datasets(root, self.layer_names, self.path, is_known)
        except BaseException:
            self._file.close()
            raise
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {
            layer: {kind: tuple(dataset.shape) for kind, dataset in weights.items()}
            for layer, weights in self._datasets.items()
        }

    def __enter__(self) -> "StoredWeights":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        self._file.close()

    def read(self, layer: str, kind: str) -> np.ndarray:
        """Read one weight, after its shape was found to be a fitting one.

        Returns:
            float32 array of shape `shapes[layer][kind]`, finite; variances are not negative.

        Raises:
            InputError: if the file does not hold as much as it states, or holds NaN, infinity or a negative variance.
        """
        where = f"{self.path}: {layer}/{kind}"
        with _as_input_error(self.path):
            dataset = self._datasets[layer][kind]
            _check_storage(dataset, where)
            with np.errstate(over="ignore"):
                value = np.asarray(dataset[()]).astype(np.float32)
        if not np.all(np.isfinite(value)):
            raise InputError(f"{where} holds NaN, infinity or values too large for float32; get the file again")
        if kind == "moving_variance" and np.any(value < 0):
            raise InputError(f"{where} holds negative variances; get the file again")
        return value


def has_keras2_layout(path: str | os.PathLike) -> bool:
    """Tell whether `path` is a readable .h5 file that names its layers, as Keras 2 files do."""
    try:
        with _open(Path(path)) as file, _as_input_error(Path(path)):
            return bool(_read_names(_find_root(file, Path(path)), "layer_names", Path(path)))
    except InputError:
        return False


def _open(path: Path) -> h5py.File:
    try:
        with open(path, "rb") as handle:
            signature = handle.read(8)
        if signature != b"\x89HDF\r\n\x1a\n":
            raise InputError(f"{path}: not an HDF5 file; give a Matterport or keras.applications .h5 file")
        return h5py.File(path, "r", locking="best-effort")
    except FileNotFoundError:
        raise InputError(f"{path}: no such weights file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}); copy or download it again") from None


@contextmanager
def _as_input_error(path: Path) -> Iterator[None]:
    """Turn what h5py raises on a damaged file into an error that names the file."""
    try:
        yield
    except InputError:
        raise
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); copy or download it again") from None


def _find_root(file: h5py.File, path: Path) -> h5py.Group:
    """The group that names the layers."""
    for root in (file, _child(file, "model_weights", path) if "model_weights" in file else None):
        if isinstance(root, h5py.Group) and ("layer_names" in root.attrs or "layer_names0" in root.attrs):
            return root
    if "_layer_checkpoint_dependencies" in file or "layers" in file:
        raise InputError(
            f"{path}: weights as Keras 3 saves them (.weights.h5), which name no layers; load them without by_name"
        )
    raise InputError(f"{path}: has no layer_names; give a Matterport or keras.applications .h5 file")


def _child(group: h5py.Group, name: str, path: Path) -> h5py.Group | h5py.Dataset:
    """Follow `name` one step; a link that leads elsewhere, even out of the file, is refused."""
    where = f"{group.name.rstrip('/')}/{name}"
    link = group.get(name, getlink=True)
    if link is None:
        raise InputError(f"{path}: lacks {where}, which it names; copy or download it again")
    if not isinstance(link, h5py.HardLink):
        raise InputError(f"{path}: {where} is a link to somewhere else, which is refused; use a file without links")
    return group[name]


def _read_names(group: h5py.Group, attribute: str, path: Path) -> list[str]:
    """Read an attribute that lists names, or its numbered parts; none if there is neither."""
    parts = [attribute]
    if attribute not in group.attrs:
        parts = []
        while f"{attribute}{len(parts)}" in group.attrs:
            parts.append(f"{attribute}{len(parts)}")
    names: list[str] = []
    for part in parts:
        where = f"{path}: attribute {part} of {group.name}"
        stored = group.attrs.get_id(part)
        if not stored.shape or len(stored.shape) != 1 or len(names) + stored.shape[0] > _MAX_NAMES:
            # An empty list is of shape (0,), and Keras stores it as numbers.
            raise InputError(f"{where} is not a list of names; copy or download it again")
        if stored.shape[0] == 0:
            continue
        if h5py.check_string_dtype(stored.dtype) is None or stored.get_storage_size() > _MAX_ATTRIBUTE:
            raise InputError(f"{where} has an odd type or size; copy or download it again")
        names += [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[part]]
    for name in names:
        # Names end up in messages and logs; control characters have no place there.
        if not name.isprintable() or not 0 < len(name) <= _MAX_NAME:
            raise InputError(f"{path}: {group.name} holds the odd name {name[:40]!r}; copy or download it again")
    return names


def _list_datasets(
    root: h5py.Group, layer_names: tuple[str, ...], path: Path, is_known: Callable[[str], bool]
) -> dict[str, dict[str, h5py.Dataset]]:
    """Find and check every weight, and sort them by layer and kind."""
    datasets: dict[str, dict[str, h5py.Dataset]] = {}
    for group_name in layer_names:
        weights = _list_group(root, group_name, path)
        parents = {weight.parent for weight in weights}
        for weight in weights:
            layer = _layer_of(weight, len(parents) == 1, is_known)
            kinds = datasets.setdefault(layer, {})
            if weight.kind in kinds:
                raise InputError(f"{path}: holds {layer}/{weight.kind} twice; it is not clear which one to load")
            kinds[weight.kind] = weight.dataset
    return datasets


def _list_group(root: h5py.Group, group_name: str, path: Path) -> list[_WeightPath]:
    group = _descend(root, group_name, path)
    if not isinstance(group, h5py.Group):
        raise InputError(f"{path}: {group_name} is not a group; copy or download it again")
    weights = []
    for name in _read_names(group, "weight_names", path):
        dataset = _descend(group, name, path)
        if not isinstance(dataset, h5py.Dataset):
            raise InputError(f"{path}: {group_name}/{name} is not a dataset; copy or download it again")
        _check_dataset(dataset, f"{path}: {group_name}/{name}")
        *folders, last = [part for part in name.split("/") if part]
        parent = folders[-1] if folders else ""
        kind = _WEIGHT_NAME.match(last.removeprefix(f"{parent or group_name}_")).group(1)
        weights.append(_WeightPath(group_name, parent, _KERAS_1_KINDS.get(kind, kind), dataset))
    return weights


def _descend(group: h5py.Group, name: str, path: Path) -> h5py.Group | h5py.Dataset:
    """Follow a path part by part, since each may be a link; a leading slash stays inside the group."""
    for part in filter(None, name.split("/")):
        if not isinstance(group, h5py.Group):
            raise InputError(f"{path}: lacks {name}, which it names; copy or download it again")
        group = _child(group, part, path)
    return group


def _layer_of(weight: _WeightPath, is_single: bool, is_known: Callable[[str], bool]) -> str:
    """Name of the layer that a weight belongs to; `is_single`: its group holds one folder of weights alone."""
    if is_known(weight.parent):
        return weight.parent
    if is_single or not weight.parent:
        return weight.group
    # A model built for the second time in one process: "rpn_class_raw_1".
    plain = re.sub(r"_\d+$", "", weight.parent)
    return plain if is_known(plain) else weight.parent


def _check_dataset(dataset: h5py.Dataset, where: str) -> None:
    """Refuse what is not a plain array of numbers inside this file."""
    if dataset.external or dataset.is_virtual:
        raise InputError(f"{where} keeps its data in another file, which is refused; use a file that is complete")
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise InputError(f"{where} holds {dataset.dtype}, not an array of numbers; copy or download the file again")


def _check_storage(dataset: h5py.Dataset, where: str) -> None:
    """Refuse a dataset that states more than it holds or needs far more memory than its size to be read."""
    plist = dataset.id.get_create_plist()
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - _FILTERS:
        raise InputError(f"{where} is compressed in an unusual way; unpack the file with h5repack -f NONE")
    stored = dataset.id.get_storage_size()
    if stored < (dataset.nbytes if not filters else min(dataset.nbytes, 1)):
        raise InputError(f"{where} states {dataset.shape} but does not hold it; copy or download the file again")
    # A read allocates whole chunks, whatever the size of the array.
    if dataset.chunks and np.prod(dataset.chunks, dtype=np.float64) > max(dataset.size, 2**20):
        raise InputError(f"{where} has chunks larger than itself; unpack the file with h5repack -l CONTI")
