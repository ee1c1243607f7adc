"""One training step over a global batch that one or several replicas share."""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from autoencoder.adaptation import adaptation_loss
from autoencoder.config import AutoencoderConfig
from autoencoder.losses import IMAGE_LOSSES, feature_loss


def make_train_step(
    model: keras.Model,
    optimizer: keras.optimizers.Optimizer,
    config: AutoencoderConfig,
    strategy: tf.distribute.Strategy,
    source: int,
    num_centres: int,
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """Compile the step of eq. 2.20 over one global batch, however many replicas share it.

    The reconstruction losses are means over equal parts of the batch, so their mean over replicas is that of
    the batch. The adaptation loss is not a mean over samples: every replica gathers all latents and computes
    all of it. Its gradient comes back through the gathering summed over replicas, and the optimizer sums over
    replicas once more for the weights. Dividing each replica's whole loss by their number makes the step that
    of one replica.

    Args:
        model: as from `build_autoencoder`, made in the strategy's scope.
        optimizer: built for the model's variables, in the same scope.
        config: gives the losses.
        strategy: the strategy.
        source: id of the source centre.
        num_centres: number of centres.

    Returns:
        Function of a distributed batch and the weight of the adaptation loss (float32 scalar), which changes
        the weights and returns float tensor `(4,)`: the global losses in the order of
        `autoencoder.logs.LOSSES`.
    """
    num_replicas = strategy.num_replicas_in_sync
    image_loss = IMAGE_LOSSES[config.image_loss]
    variables = model.trainable_variables

    def replica_step(batch: dict[str, tf.Tensor], weight: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = model(batch["features"], training=True)
            features = feature_loss(outputs["features"], batch["features"])
            images = image_loss(outputs["images"], batch["images"])
            adaptation = tf.zeros(())
            if config.adaptation == "mmd":
                latents, centre_ids = _gather_batch(outputs["latents"], batch["centre_id"], num_replicas)
                adaptation = adaptation_loss(latents, centre_ids, source, num_centres)
            total = features + images + weight * adaptation
            share = total / num_replicas
        optimizer.apply(tape.gradient(share, variables), variables)
        return tf.stack([total, features, images, adaptation]) / num_replicas

    @tf.function
    def train_step(batch: Any, weight: tf.Tensor) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(replica_step, args=(batch, weight)), axis=None)

    return train_step


def _gather_batch(latents: tf.Tensor, centre_ids: tf.Tensor, num_replicas: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Latents and centre ids of the whole global batch, differentiable in the latents."""
    if num_replicas == 1:
        return latents, centre_ids
    # One collective for both, and none on integers, which not every backend gathers.
    rows = tf.concat([latents, tf.cast(centre_ids, latents.dtype)[:, tf.newaxis]], axis=1)
    rows = tf.distribute.get_replica_context().all_gather(rows, axis=0)
    return rows[:, :-1], tf.cast(rows[:, -1], centre_ids.dtype)
