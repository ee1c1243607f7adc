"""The adversary of thesis 2.7.2: a discriminator that tells the centre from the latent, and what the encoder is told.

All means are taken per centre first, so that large centres do not outvote small ones (the weights of eq. 2.12): a
discriminator that knows nothing has a loss of ln(number of centres) and an accuracy of 1 / (number of centres).
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

# Widths of the two intermediate layers; the thesis gives their number (3.4.2), not their widths.
HIDDEN_UNITS = (128, 64)


class DiscriminatorScores(NamedTuple):
    """How well the discriminator does on a batch: float32 scalars."""

    loss: tf.Tensor
    accuracy: tf.Tensor


def build_discriminator(latent_size: int, num_centres: int, *, seed: int = 0) -> keras.Model:
    """Build the discriminator: three layers, ReLU between them and nothing at the end (thesis 3.4.2).

    It is computed in float32 whatever the precision of the autoencoder.

    Args:
        latent_size: length of the latent.
        num_centres: number of classes.
        seed: of the initial weights.

    Returns:
        Model from latents `(batch, latent_size)` to logits `(batch, num_centres)`.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(HIDDEN_UNITS) + 1)
    initializers = [keras.initializers.GlorotUniform(seed=int(s)) for s in seeds]
    inputs = keras.Input((latent_size,), name="latents")
    x = inputs
    for number, units in enumerate(HIDDEN_UNITS):
        x = layers.Dense(
            units,
            activation="relu",
            kernel_initializer=initializers[number],
            dtype="float32",
            name=f"discriminator_dense{number + 1}",
        )(x)
    logits = layers.Dense(
        num_centres,
        kernel_initializer=initializers[-1],
        dtype="float32",
        name=f"discriminator_dense{len(seeds)}",
    )(x)
    return keras.Model(inputs, logits, name="discriminator")


def discriminator_scores(logits: tf.Tensor, centre_ids: tf.Tensor) -> DiscriminatorScores:
    """Negative log likelihood of the true centres (eq. 2.11 to 2.13), and how often the likeliest is the true one.

    Both are means over the centres in the batch of the mean over their rows.

    Args:
        logits: float tensor `(batch, num_centres)`.
        centre_ids: int tensor `(batch,)`, the true centres.
    """
    masks = ops.one_hot(centre_ids, logits.shape[-1], dtype="float32")
    likelihood = ops.sum(ops.log_softmax(logits, axis=-1) * masks, axis=-1)
    right = ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(centre_ids, "int32")), "float32")
    present = ops.cast(ops.sum(masks, axis=0) > 0, "float32")
    loss = ops.sum(-_means_of_centres(likelihood, masks)) / ops.maximum(ops.sum(present), 1.0)
    accuracy = ops.sum(_means_of_centres(right, masks)) / ops.maximum(ops.sum(present), 1.0)
    return DiscriminatorScores(loss, accuracy)


def adversarial_loss(logits: tf.Tensor, centre_ids: tf.Tensor, source: int) -> tf.Tensor:
    """What the autoencoder pays for targets that the discriminator does not take for the source.

    The negative log likelihood of the source centre, averaged over the rows of each target and summed over the targets
    as in the other methods. Rows of the source pay nothing. (Negating the discriminator's own loss would push hardest
    where it already errs, and without bound.)

    Args:
        logits: float tensor `(batch, num_centres)`.
        centre_ids: int tensor `(batch,)`, the true centres.
        source: id of the source centre.

    Returns:
        float32 scalar, 0 or more; a target that the batch lacks adds nothing.

    Reference:
        Thesis eq. 2.9 to 2.13; the inverted label is Tzeng et al. 2017, "Adversarial discriminative domain adaptation".
    """
    masks = ops.one_hot(centre_ids, logits.shape[-1], dtype="float32")
    surprise = -ops.log_softmax(logits, axis=-1)[:, source]
    targets = 1.0 - ops.one_hot(source, logits.shape[-1], dtype="float32")
    return ops.sum(_means_of_centres(surprise, masks) * targets)


def _means_of_centres(values: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Mean of the values `(batch,)` of each centre `(num_centres,)`; 0 where it has no row."""
    return ops.sum(values[:, None] * masks, axis=0) / ops.maximum(ops.sum(masks, axis=0), 1.0)
