"""Classifiers of images, as in Table 3.3 of the thesis; those that others have published are loaded from Keras files.

A model file may carry code. Keras refuses it in safe mode; layers that exist to run it are refused here by their name.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

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
_ADVICE = "get the file again"


@dataclass(frozen=True)
class ImageClassifier:
    """A network that predicts the class of images.

    Attributes:
        path: where it comes from.
        model: from images `(batch, height, width, 3)` to scores `(batch, len(classes))`.
        classes: names, in the order of the scores.
        image_size: (height, width) to which images are brought, smoothed where they shrink.
        pixels: key of `PIXELS`, the range of pixels that the model expects.
    """

    path: Path
    model: keras.Model
    classes: tuple[str, ...]
    image_size: tuple[int, int]
    pixels: str = "0..1"

    def predict(self, images: Iterable[np.ndarray], batch_size: int = 32) -> np.ndarray:
        """Predict the class of each image, uint8 of shape (height, width, 3): str array of shape (n,).

        Images may be of any sizes; neighbours of one size share a batch.

        Raises:
            InputError: if a score is not finite.
        """
        found = []
        for _, batch in groupby(enumerate(images), lambda each: (each[0] // batch_size, each[1].shape)):
            scores = self._score(np.stack([image for _, image in batch])).numpy()
            if not np.isfinite(scores).all():
                raise InputError(f"{self.path}: gives scores that are not finite; check the range of pixels it expects")
            found += scores.argmax(axis=-1).tolist()
        return np.array(self.classes)[np.array(found, np.int64)]

    @cached_property
    def _score(self) -> Callable[[np.ndarray], tf.Tensor]:
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
) -> ImageClassifier:
    """Load a published classifier without running anything that its file brings along.

    Args:
        model_path: a whole model, network and weights: `.keras`, or `.h5` as older Keras wrote it.
        classes_path: as for `read_class_names`.
        image_size: side of the images in pixels, for a model that takes images of any size.
        pixels: "0..1", "0..255" or "-1..1", the range in which the model expects pixels.

    Raises:
        InputError: if a file is missing or damaged, the model holds code or is no classifier of RGB images, its size
            is not known or another than `image_size`, or the names are not as many as its outputs.
    """
    path = Path(model_path)
    model = load_model_safely(path)
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if [len(shape) for shape in shapes] != [4, 2] or shapes[0][3] != 3:
        takes = f"takes and gives {', '.join(map(str, shapes))}, not (None, height, width, 3) and (None, classes)"
        raise InputError(f"{path}: {takes}; give a classifier of RGB images")
    sides, num_outputs = shapes[0][1:3], shapes[1][1]
    option = "image_size (--oracle-size)"
    if image_size is None and None in sides:
        raise InputError(f"{path}: takes images of any size; say by {option} at which it was trained")
    if image_size is not None and not {*sides} <= {None, image_size}:
        raise InputError(f"{path}: takes images of {sides[0]} x {sides[1]} px, not {image_size}; leave {option} out")
    classes = read_class_names(classes_path)
    if len(classes) != num_outputs:
        raise InputError(f"{classes_path}: has {len(classes)} names, but {path} has {num_outputs} outputs")
    height, width = (side or image_size for side in sides)
    return ImageClassifier(path, model, classes, (height, width), pixels)


def load_model_safely(path: str | os.PathLike) -> keras.Model:
    """Load a Keras model file; an InputError says that it is missing, damaged or no model, or holds code."""
    path = Path(path)
    if not path.is_file() or path.suffix not in (".keras", ".h5", ".hdf5"):
        raise InputError(f"{path}: no such Keras model; give a file that ends in .keras or .h5")
    try:
        # Written anew, since a name can be spelled in many ways in JSON.
        config = json.dumps(json.loads(_read_config(path)))
        code = [name.strip("_") for name in _CODE if f'"{name}"' in config]
        if code:
            raise InputError(f"{path}: holds code ({code[0]}), which is not run; save the network again without it")
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except InputError:
        raise
    except Exception as error:  # a faulty file can make the constructor of any layer raise anything
        raise InputError(f"{path}: cannot be loaded ({one_line(error)}); {_ADVICE}") from error
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise InputError(f"{path}: not a network with known inputs; give a functional or sequential model")
    return model


def _read_config(path: Path) -> str | bytes:
    """The description of the network in a model file, as JSON."""
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read("config.json")
    with open_plain(path, advice=_ADVICE) as file:
        return file.attrs.get("model_config", "{}")  # without one, Keras says so


def read_class_names(path: str | os.PathLike) -> tuple[str, ...]:
    """Read the names of classes, in the order of a network's outputs: one on each line, or a JSON list."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig").strip()
        names = [name.strip() for name in (json.loads(text) if text.startswith("[") else text.splitlines())]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); give a class name on each line") from None
    if not names or "" in names or len({*names}) < len(names):
        raise InputError(f"{path}: must hold the names of the classes, none of them empty or there twice")
    return tuple(names)
