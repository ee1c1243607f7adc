"""Several GPUs, in one machine or several: a thin bridge from Matterport's names to `tf.distribute`."""

from collections.abc import Sequence

import keras

from mrcnn.files.devices import mirrored_strategy


class ParallelModel:
    """Matterport's name for a model on several GPUs: the model itself, copied into a MirroredStrategy's scope.

    `MaskRCNN` needs no such wrapper, GPU_COUNT does. Calling this gives the copy, whose weights are those of
    `keras_model` at that time.

    Args:
        keras_model: a functional Keras model.
        gpu_count: how many GPUs.
        devices: their names; None takes the first GPUs.

    Raises:
        InputError: if the machine has fewer GPUs.
    """

    def __new__(cls, keras_model: keras.Model, gpu_count: int, devices: Sequence[str] | None = None) -> keras.Model:
        """Copy the model; what is returned is an ordinary Keras model, so that `fit` and all else works."""
        strategy = mirrored_strategy(gpu_count, devices)
        with strategy.scope():
            copy = keras.models.clone_model(keras_model)
            copy.set_weights(keras_model.get_weights())
        return copy
