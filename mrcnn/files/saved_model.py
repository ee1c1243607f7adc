"""SavedModels of TensorFlow, written whole, each with the settings that it was made of."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from mrcnn.files.atomic import atomic_folder, write_json
from mrcnn.files.provenance import versions

SAVED_MODEL_NAME = "saved_model.pb"
# Where a SavedModel keeps files that TensorFlow neither reads nor minds.
EXTRA_FOLDER = "assets.extra"
DESCRIPTION_NAME = "export.json"
IMAGES = tf.TensorSpec((None, None, None, None), tf.uint8, name="images")

Outputs = dict[str, tf.Tensor]
Signatures = dict[str, "tf.types.experimental.PolymorphicFunction"]


def write_saved_model(
    folder: str | os.PathLike,
    functions: Signatures,
    variables: Sequence[keras.Variable],
    files: Mapping[str, Mapping[str, Any]],
    *,
    overwrite: bool = False,
) -> Path:
    """Write functions of tensors as a SavedModel, whole or not at all.

    Args:
        folder: the SavedModel; returned as a path.
        functions: by name, with their input signatures; they become signatures and methods of what is loaded.
        variables: what they use.
        files: JSON values by name of the file, for `assets.extra`. "export.json" also tells the versions of packages.
        overwrite: replace an older SavedModel.

    Raises:
        InputError: if `folder` holds something that may not be replaced.
    """
    module = tf.Module()
    module.weights = [variable.value for variable in variables]
    for name, function in functions.items():
        setattr(module, name, function)
    with atomic_folder(folder, SAVED_MODEL_NAME, overwrite) as temporary:
        tf.saved_model.save(module, str(temporary), signatures=functions)
        for name, value in files.items():
            more = {"versions": versions()} if name == DESCRIPTION_NAME else {}
            write_json(temporary / EXTRA_FOLDER / name, {**value, **more})
    return Path(folder)
