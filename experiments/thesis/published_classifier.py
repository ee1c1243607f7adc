"""Classifiers that others have published as Keras files, such as that of Matek et al. in Table 3.3 of the thesis.

A model file may carry code: Python in a Lambda layer, a TensorFlow graph in another file, a function called by name.
Keras refuses most of it in safe mode. Here the description of the network is read first, and a file is loaded only if
all that it names are plain layers and what belongs to them.
"""

import importlib
import inspect
import io
import math
import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from experiments.centres.class_maps import ClassMap
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.hdf5 import check_plain, open_plain
from mrcnn.files.json_io import parse_json

# What [0, 255] is multiplied with, and what is added then.
PIXELS: dict[str, tuple[float, float]] = {
    "0..1": (1 / 255, 0.0),  # Matek et al. 2019
    "0..255": (1.0, 0.0),
    "-1..1": (2 / 255, -1.0),
}
H5_SUFFIXES = (".h5", ".hdf5")

# What runs things that a file brings along: Python, a TensorFlow graph, a network of another framework.
_CODE = frozenset({"__lambda__", "FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper"})
_FILE_LAYERS = frozenset({"IntegerLookup", "StringLookup", "TextVectorization"})
_PLAIN_VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__ellipsis__", "__slice__"})
# Where a network may have operations from that are no layers, such as the product of two tensors.
_OPERATIONS = frozenset(f"keras.src.ops.{name}" for name in ("image", "linalg", "math", "nn", "numpy"))
# What does as much work as a number in its description says.
_LOOPS = frozenset({"AugMix", "RandAugment"})
_ZIP_WEIGHTS = "model.weights.h5"
_MEMBERS = frozenset({"metadata.json", "config.json", _ZIP_WEIGHTS, "assets/"})
_MAX_RATIO = 100  # weights hardly shrink
_ALWAYS_READ = 16 * 2**20  # bytes that a member may grow to, whatever its ratio
_MAX_CONFIG = 16 * 2**20  # bytes; those of the largest keras.applications are below 1 MB
_MAX_NAMES = 2**20  # bytes
_MAX_NAME = 1024  # characters
_MAX_NUMBER = 10**7
_MAX_SIDE = 4096  # pixels
_MAX_OUTPUT = 2**28  # numbers, 1 GiB
_UNREADABLE = (OSError, EOFError, LookupError, RuntimeError, TypeError, ValueError, OverflowError, AttributeError)
_UNREADABLE += (MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class PublishedClassifier:
    """A published classifier, as `load_published` gives it.

    Attributes:
        path: the model file.
        classes: names, in the order of the outputs.
        model: from images `(batch, height, width, 3)` to scores `(batch, len(classes))`.
        image_size: (height, width) to which images are brought.
        pixels: key of `PIXELS`, the range of pixels that the model expects.
    """

    path: Path
    classes: tuple[str, ...]
    model: keras.Model
    image_size: tuple[int, int]
    pixels: str

    def predict(self, images: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """Name the cells.

        Args:
            images: uint8 array of shape (n, height, width, 3), such as the crops of a feature store.
            batch_size: images at a time.

        Returns:
            str array of shape (n,), each one of `classes`.

        Raises:
            InputError: if a score is not finite.
            ValueError: if the images are not such an array.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"images must be uint8 of shape (n, height, width, 3), got {images.dtype} {images.shape}")
        named = np.zeros(len(images), np.int64)
        for start in range(0, len(images), batch_size):
            scores = self._score(images[start : start + batch_size]).numpy()
            if not np.all(np.isfinite(scores)):
                raise InputError(f"{self.path}: gives scores that are not finite; check the range of pixels it expects")
            named[start : start + batch_size] = scores.argmax(axis=-1)
        return np.array(self.classes)[named]

    @cached_property
    def _score(self) -> Callable[[np.ndarray], tf.Tensor]:
        """From images of any size to scores."""
        factor, shift = PIXELS[self.pixels]

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        def score(images):
            resized = tf.image.resize(images, self.image_size, antialias=True)
            return self.model(resized * factor + shift, training=False)

        return score


def load_published(
    model_path: str | os.PathLike,
    classes_path: str | os.PathLike,
    *,
    image_size: int | None = None,
    pixels: str = "0..1",
) -> PublishedClassifier:
    """Load a classifier without running anything that its file brings along.

    Args:
        model_path: a whole model, network and weights: `.keras`, or `.h5` as older Keras wrote it.
        classes_path: names of the classes in the order of the outputs: one on each line, or a JSON list.
        image_size: side of the images in pixels, for a model that takes images of any size.
        pixels: "0..1", "0..255" or "-1..1", the range in which the model expects pixels.

    Returns:
        The classifier.

    Raises:
        InputError: if a file is missing or damaged, the model holds code or is no classifier of RGB images, its size
            is not known or another than `image_size`, the names are not as many as its outputs, or `pixels` is none
            of the three.
    """
    if pixels not in PIXELS:
        raise InputError(f"pixels must be one of {', '.join(PIXELS)}, got {pixels!r}")
    path = Path(model_path)
    model = load_model_safely(path)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(f"{path}: has several inputs or outputs; give a classifier with one of each")
    size = _input_size(path, tuple(model.inputs[0].shape), image_size)
    output_shape = tuple(model.outputs[0].shape)
    if len(output_shape) != 2 or output_shape[1] is None or output_shape[1] < 2:
        raise InputError(f"{path}: its output is of shape {output_shape}, not (None, classes); give a classifier")
    classes = read_class_names(classes_path)
    if len(classes) != output_shape[1]:
        raise InputError(f"{classes_path}: has {len(classes)} names, but {path} has {output_shape[1]} outputs")
    return PublishedClassifier(path, classes, model, size, pixels)


def load_model_safely(path: str | os.PathLike) -> keras.Model:
    """Load a Keras model file that holds no code.

    Raises:
        InputError: if the file is missing, damaged or no model, or names anything but plain layers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a Keras model, .keras or .h5")
    if path.suffix not in (".keras", *H5_SUFFIXES):
        raise InputError(f"{path}: not a Keras model by its name; it must end in .keras or .h5")
    _check_is_plain(path, _read_config(path))
    _check_weights(path)
    try:
        # First where variables have shapes alone: a description of a few lines may state a network that fills the
        # memory. Once every weight was found in the file, the network is as large as what the file holds.
        with _shapes_alone():
            _check_outputs(path, keras.saving.load_model(path, compile=False, safe_mode=True))
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # a faulty file can make the constructor of any layer raise anything
        raise InputError(f"{path}: cannot be loaded ({one_line(error)}); get the file again") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise InputError(f"{path}: not a network with known inputs; give a functional or sequential model")
    return model


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Read the names of classes: one on each line, or a JSON list.

    Raises:
        InputError: if the file is missing, holds no names, an empty one, or one twice.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_NAMES:
            raise InputError(f"{path}: larger than {_MAX_NAMES >> 20} MiB; give a file with a class name per line")
        text = path.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a file with a class name per line") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; give a file with a class name per line") from None
    names = text.splitlines()
    if text.startswith("["):
        try:
            names = parse_json(text)
        except ValueError as error:
            raise InputError(f"{path}: not valid JSON ({error}); give a list of names") from None
    if not all(isinstance(name, str) and name.strip() for name in names) or not names:
        raise InputError(f"{path}: must hold the names of the classes, none of them empty")
    names = [name.strip() for name in names]
    odd = next((name for name in names if not name.isprintable() or len(name) > _MAX_NAME), None)
    if odd is not None:
        raise InputError(f"{path}: {ascii(odd)[:80]} is no name of a class; give a text file with a name per line")
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{path}: names {', '.join(twice)} twice; give each output a name of its own")
    return tuple(names)


def map_classes(names: Iterable[str], class_map: ClassMap) -> dict[str, str]:
    """Say which cell type each class of a classifier is.

    Args:
        names: of the classes.
        class_map: from `experiments.centres.class_maps.make_class_map`.

    Returns:
        By name, the cell type, or "" where there is none.

    Raises:
        InputError: if there is none for any name.
    """
    cell_types = {name: class_map.cell_type(name) for name in names}
    if not any(cell_types.values()):
        shown = ", ".join(list(cell_types)[:6])
        raise InputError(f"class map {class_map.name}: has no cell type for any class of the classifier ({shown})")
    return cell_types


def _input_size(path: Path, shape: tuple[int | None, ...], image_size: int | None) -> tuple[int, int]:
    if len(shape) != 4 or shape[3] != 3 or (shape[1] is None) != (shape[2] is None):
        raise InputError(f"{path}: takes inputs of shape {shape}, not RGB images (None, height, width, 3)")
    option = "image_size (--oracle-size)"
    if shape[1] is None:
        if image_size is None:
            raise InputError(f"{path}: takes images of any size; say by {option} at which it was trained")
        return image_size, image_size
    if max(shape[1], shape[2]) > _MAX_SIDE:
        raise InputError(f"{path}: takes images of {shape[1]} x {shape[2]} px; at most {_MAX_SIDE} px are fed to it")
    if image_size is not None and shape[1:3] != (image_size, image_size):
        raise InputError(f"{path}: takes images of {shape[1]} x {shape[2]} px, not {image_size}; leave {option} out")
    return shape[1], shape[2]


def _read_config(path: Path) -> Any:
    """The description of the network in a model file, without that of its training."""
    try:
        text = _read_h5_config(path) if path.suffix in H5_SUFFIXES else _read_zip_config(path)
        if len(text) > _MAX_CONFIG:
            raise InputError(f"{path}: its description is too large to be a network; get the file again")
        config = parse_json(text, allow_nan=True)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path}: damaged, or not a Keras model ({one_line(error)}); get the file again") from None
    if not isinstance(config, dict) or "class_name" not in config:
        raise InputError(f"{path}: describes no network; get the file again")
    return {key: value for key, value in config.items() if key != "compile_config"}


def _read_zip_config(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        _check_members(path, archive)
        if archive.getinfo("config.json").file_size > _MAX_CONFIG:
            raise InputError(f"{path}: its config.json is too large to be a network; get the file again")
        return archive.read("config.json")


def _check_members(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive of anything but a description and weights: Keras unpacks the rest to the disk."""
    names = archive.namelist()
    strange = sorted(set(names) - _MEMBERS)
    if strange:
        raise InputError(f"{path}: holds {ascii(strange[0])[:80]}, which is no part of a network; save the model again")
    if len(set(names)) < len(names):
        raise InputError(f"{path}: holds a part twice, and it is not clear which one counts; save the model again")
    for info in archive.infolist():
        is_link = stat.S_ISLNK(info.external_attr >> 16)
        if is_link or info.file_size > max(_ALWAYS_READ, _MAX_RATIO * info.compress_size):
            reason = "is a link" if is_link else f"grows from {info.compress_size} to {info.file_size} bytes"
            raise InputError(f"{path}: its {info.filename} {reason}, which is refused; save the model again")


@contextmanager
def _shapes_alone() -> Iterator[None]:
    """Let variables that are made in this context have no values, then or later."""
    # Keras keeps a list of such variables, and gives them values as soon as it has traced any other layer.
    name = "uninitialized_variables"
    waiting = list(global_state.get_global_attribute(name, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(name, waiting)


def _check_weights(path: Path) -> None:
    """Refuse weights that lie in other files, or that state more than they hold."""
    try:
        if path.suffix in H5_SUFFIXES:
            with open_plain(path, advice="get the file again"):
                return
        with zipfile.ZipFile(path) as archive, archive.open(_ZIP_WEIGHTS) as member:
            with h5py.File(io.BytesIO(member.read()), "r") as file:
                check_plain(file)
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(f"{path}: damaged, or not a Keras model ({one_line(error)}); get the file again") from None


def _check_outputs(path: Path, model: keras.Model) -> None:
    """Refuse a network that makes gigabytes of one image, such as by enlarging it a thousandfold."""
    waiting = [model]
    while waiting:
        for layer in waiting.pop().layers:
            if isinstance(layer, keras.Model):
                waiting.append(layer)
            try:
                outputs = layer.output
            except (AttributeError, ValueError):  # it is used in several places, or in none
                continue
            for output in keras.tree.flatten(outputs):
                size = math.prod(side or 1 for side in output.shape)
                if size > _MAX_OUTPUT:
                    raise InputError(f"{path}: {layer.name} makes {size} values of one image; give a classifier")


def _read_h5_config(path: Path) -> str | bytes:
    with h5py.File(path, "r", locking="best-effort") as file:
        if "model_config" not in file.attrs:
            raise InputError(f"{path}: holds no network, perhaps weights alone; give a whole model")
        if file.attrs.get_id("model_config").get_storage_size() > _MAX_CONFIG:
            raise InputError(f"{path}: its model_config is too large to be a network; get the file again")
        return file.attrs["model_config"]


def _check_is_plain(path: Path, config: Any) -> None:
    """Refuse a description that names anything but plain layers and what belongs to them.

    Raises:
        InputError: that says what it names.
    """
    advice = "rebuild the network without it and save it again"
    known, activations = _known_classes(), _known_activations()
    for part in _parts(config):
        _check_numbers(path, part)
        name = str(part["class_name"])
        if name in _CODE:
            raise InputError(f"{path}: holds code ({name.strip('_')}), which is not run; {advice}")
        if name in _LOOPS:
            raise InputError(f"{path}: holds a {name} layer, which no classifier needs; {advice}")
        if name in _FILE_LAYERS:
            raise InputError(f"{path}: holds a {name} layer, which reads text or files; {advice}")
        if name == "function":
            if str(part.get("config")) not in activations:
                raise InputError(f"{path}: calls the function {part.get('config')!r:.60}, which is not run; {advice}")
        elif name not in known and not _is_operation(str(part.get("module")), name):
            raise InputError(f"{path}: holds {name!r:.60}, which is no layer of Keras' own; {advice}")
        # Keras imports the module that a part names, which runs it; a plain name says nothing of that.
        module = part.get("module")
        if not (module in (None, "builtins") or re.fullmatch(r"keras(\.\w+)*", str(module))):
            raise InputError(f"{path}: names the module {ascii(module)[:60]}, which is not Keras' own; {advice}")


def _check_numbers(path: Path, part: dict[str, Any]) -> None:
    """Refuse sizes and counts that no layer has, which would take memory or time without end."""
    waiting: list[tuple[str, Any]] = [("", part.get("config"))]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict) and "class_name" not in value:
            waiting.extend((str(k), v) for k, v in value.items())
        elif isinstance(value, list):
            waiting.extend((key, v) for v in value)
        elif key == "unroll" and value is True:
            raise InputError(f"{path}: unrolls a recurrent layer, which is refused; rebuild the network without it")
        elif isinstance(value, (int, float)) and abs(value) > _MAX_NUMBER and not key.endswith("seed"):
            if isinstance(value, int):
                raise InputError(f"{path}: {key} is {value}, beyond what a layer has; get the file again")


def _is_operation(module: str, name: str) -> bool:
    return module in _OPERATIONS and isinstance(vars(importlib.import_module(module)).get(name), type)


def _parts(config: Any) -> Iterator[dict[str, Any]]:
    """Everything in a description that is to be made into an object."""
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


@cache
def _known_classes() -> frozenset[str]:
    """Names of Keras' layers and of what they are described by."""
    homes = (keras.layers, keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies)
    names = {name for home in homes for name, value in vars(home).items() if isinstance(value, type)}
    return frozenset(names | {"Functional", "Model", "Sequential"} | _PLAIN_VALUES) - _CODE - _FILE_LAYERS


@cache
def _known_activations() -> frozenset[str]:
    names = {name for name, value in vars(keras.activations).items() if inspect.isfunction(value)}
    return frozenset(names - {"deserialize", "get", "serialize"})
