"""Calls SavedModels in a process that has TensorFlow and none of our packages; run with `python -I`.

Arguments: a SavedModel, an .npz of inputs named "case/signature/input", an .npz to write with arrays named
"case/signature/output", and so on in threes. A call that fails gives "case/signature/error", the message.
"""

import sys

FORBIDDEN = ("mrcnn", "autoencoder", "experiments", "cv2")


class Refuse:
    """Stands before the finders of the environment, in which our packages are installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FORBIDDEN:
            raise ImportError("this process has TensorFlow alone")


sys.meta_path.insert(0, Refuse())

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402


def call(function, inputs):
    try:
        return {name: value.numpy() for name, value in function(**inputs).items()}
    except tf.errors.InvalidArgumentError as error:
        return {"error": np.array(error.message)}


for model_path, inputs_path, results_path in zip(*[iter(sys.argv[1:])] * 3, strict=True):
    model = tf.saved_model.load(model_path)
    calls = {}
    with np.load(inputs_path) as arrays:
        for key, value in arrays.items():
            place, _, name = key.rpartition("/")
            calls.setdefault(place, {})[name] = tf.constant(value)
    results = {}
    for place, inputs in calls.items():
        signature = place.rpartition("/")[2]
        results |= {f"{place}/{name}": value for name, value in call(model.signatures[signature], inputs).items()}
    np.savez(results_path, **results)

unwanted = set(FORBIDDEN) & set(sys.modules)
sys.exit(str(unwanted) if unwanted else 0)
