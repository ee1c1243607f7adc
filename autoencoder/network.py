"""The autoencoder of section 2.10 of the thesis: one encoder, and two decoders in a row.

Features (14, 14, 256) -> encoder -> latent -> feature decoder -> features again -> image decoder -> image.
Every convolution is "valid"; the sizes below are the sides of the feature maps.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from autoencoder.config import AutoencoderConfig

FEATURE_SHAPE = (14, 14, 256)

# (channels, kernel, stride, groups of the reference's normalisation); sides 14 -> 12 -> 5 -> 3 -> 2 -> 1.
ENCODER_LAYERS = ((200, 3, 1, 32), (150, 3, 2, 30), (100, 3, 1, 10), (70, 2, 1, 10), (60, 2, 1, 20))
# 32 groups cannot share 200 channels, only their flattened memory. Keras' layer has the nearest divisor instead.
KERAS_GROUPS = {200: 25}

# (channels, kernel, stride); sides 1 -> 5 -> 12 -> 14.
FEATURE_DECODER_LAYERS = ((150, 5, 1), (200, 4, 2), (FEATURE_SHAPE[-1], 3, 1))

# (channels, kernel, stride) by image side; the k2 layer mends the odd side that the doublings give. Sides:
#   128: 14 -> 31 -> 63 -> 127 -> 128;  64: 14 -> 31 -> 63 -> 64;  32: 14 -> 31 -> 32.
IMAGE_DECODER_LAYERS = {
    128: ((200, 5, 2), (180, 3, 2), (150, 3, 2), (128, 2, 1), (3, 1, 1)),
    64: ((200, 5, 2), (180, 3, 2), (128, 2, 1), (3, 1, 1)),
    32: ((200, 5, 2), (128, 2, 1), (3, 1, 1)),
}


@keras.saving.register_keras_serializable("autoencoder")
class FlattenedGroupNormalization(keras.layers.Layer):
    """GroupNorm as the reference implementation has it; all other layers of the autoencoder are Keras' own.

    The values of a sample are laid in a row, one channel after another, and cut into `groups` runs of equal length,
    which need not divide the channels. Each run gets mean 0 and, by its unbiased variance plus `epsilon`, standard
    deviation 1; then each channel is scaled and shifted.

    Reference:
        Wu and He 2018, "Group normalization".
    """

    def __init__(self, groups: int, epsilon: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape: tuple) -> None:
        """Make the scale and the shift, `(channels,)` each."""
        size = input_shape[1] * input_shape[2] * input_shape[3]
        if size % self.groups or size == self.groups:
            raise ValueError(f"{self.groups} groups cannot share {size} values evenly, with two or more each")
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="beta")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Normalise `(batch, height, width, channels)`; computed in float32."""
        height, width, channels = inputs.shape[1:]
        rows = ops.transpose(ops.cast(inputs, "float32"), (0, 3, 1, 2))
        runs = ops.reshape(rows, (-1, self.groups, height * width * channels // self.groups))
        centred = runs - ops.mean(runs, axis=-1, keepdims=True)
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / (runs.shape[-1] - 1)
        normal = ops.reshape(centred * ops.rsqrt(variance + self.epsilon), (-1, channels, height, width))
        outputs = ops.transpose(normal, (0, 2, 3, 1)) * ops.cast(self.gamma, "float32")
        return ops.cast(outputs + ops.cast(self.beta, "float32"), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "groups": self.groups, "epsilon": self.epsilon}


def build_encoder(
    latent_size: int = 50, *, group_norm: str = "keras", precision: str = "float32", seed: int = 0
) -> keras.Model:
    """Build the encoder: ReLU, then GroupNorm, after each convolution but the last, whose activation is tanh.

    It maps scaled features `(batch, 14, 14, 256)` to float32 latents `(batch, latent_size)` in (-1, 1).

    Args:
        latent_size: length of the latent.
        group_norm: "keras" for Keras' layer (biased variance, epsilon 1e-3), "reference" for
            `FlattenedGroupNormalization`.
        precision: Keras dtype policy of the layers.
        seed: of the initial weights.
    """
    specs = [*ENCODER_LAYERS, (latent_size, 1, 1, 0)]
    inputs = x = keras.Input(FEATURE_SHAPE, name="features")
    convolutions = _convolutions(layers.Conv2D, [spec[:3] for spec in specs], precision, seed, "encoder")
    for number, (convolution, (channels, _, _, groups)) in enumerate(zip(convolutions, specs, strict=True), start=1):
        x = convolution(x)
        named = {"dtype": precision, "name": f"encoder_norm{number}"}
        if groups and group_norm == "reference":
            x = FlattenedGroupNormalization(groups, **named)(x)
        elif groups:
            x = layers.GroupNormalization(KERAS_GROUPS.get(channels, groups), **named)(x)
    x = layers.Activation("tanh", dtype="float32", name="encoder_tanh")(x)
    latents = layers.Reshape((latent_size,), dtype="float32", name="latents")(x)
    return keras.Model(inputs, latents, name="encoder")


def build_feature_decoder(
    latent_size: int = 50, *, activation: str = "tanh", precision: str = "float32", seed: int = 0
) -> keras.Model:
    """Build the feature decoder: transposed convolutions with ReLU between them, and an activation at the end.

    It maps latents `(batch, latent_size)` to float32 scaled features `(batch, 14, 14, 256)`. The activation is "tanh"
    for features in [-1, 1], "linear" for standardised ones; the rest is as in `build_encoder`.
    """
    inputs = keras.Input((latent_size,), name="latents")
    x = layers.Reshape((1, 1, latent_size), dtype=precision, name="feature_decoder_reshape")(inputs)
    x = _decode(x, FEATURE_DECODER_LAYERS, activation, precision, seed, "feature_decoder")
    return keras.Model(inputs, x, name="feature_decoder")


def build_image_decoder(image_size: int = 128, *, precision: str = "float32", seed: int = 0) -> keras.Model:
    """Build the image decoder, which starts from the reconstructed features (eq. 2.17), for 128, 64 or 32 pixels.

    It maps scaled features `(batch, 14, 14, 256)` to float32 images `(batch, image_size, image_size, 3)` in (0, 1).
    """
    inputs = keras.Input(FEATURE_SHAPE, name="features")
    x = _decode(inputs, IMAGE_DECODER_LAYERS[image_size], "sigmoid", precision, seed, "image_decoder")
    return keras.Model(inputs, x, name="image_decoder")


def build_autoencoder(config: AutoencoderConfig) -> keras.Model:
    """Build encoder, feature decoder and image decoder one after the other, as layers of these names.

    With the default `group_norm` all layers are Keras' own, so that Keras alone opens the model saved as `.keras`.

    Returns:
        Model from scaled features `(batch, 14, 14, 256)` to a dict of float32 tensors: `latents` `(batch,
        latent_size)`, `features` `(batch, 14, 14, 256)` and `images` `(batch, image_size, image_size, 3)`.
    """
    options = [
        {"precision": config.precision, "seed": int(seed)}
        for seed in np.random.SeedSequence(config.seed).generate_state(3)
    ]
    inputs = keras.Input(FEATURE_SHAPE, name="features")
    latents = build_encoder(config.latent_size, group_norm=config.group_norm, **options[0])(inputs)
    activation = "tanh" if config.feature_scaling == "minmax" else "linear"  # able to reach the scaled features
    features = build_feature_decoder(config.latent_size, activation=activation, **options[1])(latents)
    images = build_image_decoder(config.image_size, **options[2])(features)
    return keras.Model(inputs, {"latents": latents, "features": features, "images": images}, name="autoencoder")


def _convolutions(kind, specs, precision: str, seed: int, prefix: str):
    """Make layers given as (channels, kernel, stride), with ReLU after each but the last.

    Each has a seed of its own, so that no global seed is needed.
    """
    children = np.random.SeedSequence(seed).spawn(len(specs))
    return [
        kind(
            channels,
            kernel,
            strides=stride,
            activation="relu" if number < len(specs) else None,
            kernel_initializer=keras.initializers.GlorotUniform(seed=int(child.generate_state(1)[0])),
            dtype=precision,
            name=f"{prefix}_conv{number}",
        )
        for number, ((channels, kernel, stride), child) in enumerate(zip(specs, children, strict=True), start=1)
    ]


def _decode(x, specs, last_activation: str, precision: str, seed: int, prefix: str):
    for layer in _convolutions(layers.Conv2DTranspose, specs, precision, seed, prefix):
        x = layer(x)
    return layers.Activation(last_activation, dtype="float32", name=f"{prefix}_{last_activation}")(x)
