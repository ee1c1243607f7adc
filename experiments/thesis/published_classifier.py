"""Classifiers that others have published as Keras files, such as that of Matek et al. in Table 3.3 of the thesis.

A model file may carry code. Keras refuses it in safe mode; layers that exist to run it are refused here by their name.
"""

import json
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.centres.class_maps import ClassMap
from mrcnn.files.errors import InputError, one_line
from mrcnn.files.hdf5 import open_plain

# What [0, 255] is multiplied with, and what is added then.
PIXELS: dict[str, tuple[float, float]] = {
    "0..1": (1 / 255, 0.0),  # Matek et al. 2019
    "0..255": (1.0, 0.0),
    "-1..1": (2 / 255, -1.0),
}
# Run Python, a TensorFlow graph of another folder, or a network of another framework.
_CODE = ("__lambda__", "FlaxLayer", "JaxLayer", "Lambda", "TFSMLayer", "TorchModuleWrapper")


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
        """Predict the class of each image.

        Args:
            images: uint8 array of shape (n, height, width, 3), such as the crops of a feature store.
            batch_size: images at a time.

        Returns:
            str array of shape (n,), each one of `classes`.

        Raises:
            InputError: if a score is not finite.
        """
        predicted = np.zeros(len(images), np.int64)
        for start in range(0, len(images), batch_size):
            scores = self._score(images[start : start + batch_size]).numpy()
            if not np.all(np.isfinite(scores)):
                raise InputError(f"{self.path}: gives scores that are not finite; check the range of pixels it expects")
            predicted[start : start + batch_size] = scores.argmax(axis=-1)
        return np.array(self.classes)[predicted]

    @cached_property
    def _score(self) -> Any:
        """Function of images of any size to scores."""
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
    if len(output_shape) != 2 or (output_shape[1] or 0) < 2:
        raise InputError(f"{path}: its output is of shape {output_shape}, not (None, classes); give a classifier")
    classes = read_class_names(classes_path)
    if len(classes) != output_shape[1]:
        raise InputError(f"{classes_path}: has {len(classes)} names, but {path} has {output_shape[1]} outputs")
    return PublishedClassifier(path, classes, model, size, pixels)


def load_model_safely(path: str | os.PathLike) -> keras.Model:
    """Load a Keras model file that holds no code.

    Raises:
        InputError: if the file is missing, damaged or no model, or holds code.
    """
    path = Path(path)
    if not path.is_file() or path.suffix not in (".keras", ".h5", ".hdf5"):
        raise InputError(f"{path}: no such Keras model; give a file that ends in .keras or .h5")
    try:
        code = sorted(set(_class_names(_read_config(path))) & set(_CODE))
        model = None if code else keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # a faulty file can make the constructor of any layer raise anything
        raise InputError(f"{path}: cannot be loaded ({one_line(error)}); get the file again") from error
    if code:
        advice = "rebuild the network without it and save it again"
        raise InputError(f"{path}: holds code ({code[0].strip('_')}), which is not run; {advice}")
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise InputError(f"{path}: not a network with known inputs; give a functional or sequential model")
    return model


def _read_config(path: Path) -> Any:
    """The description of the network in a model file."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    with open_plain(path, advice="get the file again") as file:
        if "model_config" not in file.attrs:
            raise InputError(f"{path}: holds no network, perhaps weights alone; give a whole model")
        return json.loads(file.attrs["model_config"])


def _class_names(config: Any) -> Iterator[str]:
    """Classes of everything in a description that is to be made into an object."""
    if isinstance(config, dict):
        yield str(config.get("class_name"))
    for part in config.values() if isinstance(config, dict) else config if isinstance(config, list) else ():
        yield from _class_names(part)


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Read the names of classes: one on each line, or a JSON list.

    Raises:
        InputError: if the file is missing, holds no names, an empty one, or one twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
        names = json.loads(text) if text.startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); give a class name on each line") from None
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{path}: must hold the names of the classes, none of them empty")
    names = [name.strip() for name in names]
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise InputError(f"{path}: names {', '.join(twice)} twice; give each output a name of its own")
    return tuple(names)


def map_classes(names: Iterable[str], class_map: ClassMap) -> dict[str, str]:
    """Cell type of each class of a classifier, "" where there is none.

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
    if image_size is not None and shape[1:3] != (image_size, image_size):
        raise InputError(f"{path}: takes images of {shape[1]} x {shape[2]} px, not {image_size}; leave {option} out")
    return shape[1], shape[2]
