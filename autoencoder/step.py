"""Networks and optimizers of a training, and one step over a global batch that one or several replicas share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from autoencoder.adaptation import (
    adaptation_loss,
    adversarial_loss,
    build_discriminator,
    discriminator_scores,
    in_deviations,
)
from autoencoder.config import AutoencoderConfig
from autoencoder.losses import image_loss, mean_squared_error
from autoencoder.network import build_autoencoder

LOSSES = ("loss", "feature_loss", "image_loss", "adaptation_loss")
# Standard deviation of the latents over the batch, mean over their entries. An adaptation loss that is too strong
# shrinks it, since latents that are all alike are aligned too.
LATENT_DEVIATION = "latent_deviation"
DISCRIMINATOR = ("discriminator_loss", "discriminator_accuracy")


@dataclass(frozen=True)
class TrainingState:
    """Model and Adam of a training, with loss scaling under mixed_float16, and those of a discriminator if any."""

    model: keras.Model
    optimizer: keras.optimizers.Optimizer
    discriminator: keras.Model | None = None
    discriminator_optimizer: keras.optimizers.Optimizer | None = None

    @classmethod
    def build(cls, config: AutoencoderConfig, num_centres: int) -> "TrainingState":
        """Make everything anew, with weights that follow from the seed; to be called in the strategy's scope."""
        model = build_autoencoder(config)
        optimizer = keras.optimizers.Adam(config.learning_rate)
        if config.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(model.trainable_variables)
        if config.adaptation != "adversarial":
            return cls(model, optimizer)
        seed = int(np.random.SeedSequence(config.seed).generate_state(4)[3])  # the first three are the model's
        discriminator = build_discriminator(config.latent_size, num_centres, seed=seed)
        second = keras.optimizers.Adam(config.discriminator_learning_rate)
        second.build(discriminator.trainable_variables)
        return cls(model, optimizer, discriminator, second)

    @property
    def variables(self) -> list[keras.Variable]:
        """All that a checkpoint holds, in a fixed order; assigning one sets it on every replica."""
        parts = (self.model, self.optimizer, self.discriminator, self.discriminator_optimizer)
        return [variable for part in parts if part is not None for variable in part.variables]

    def get_values(self) -> list[np.ndarray]:
        """Copies of all variables."""
        return [np.array(variable) for variable in self.variables]


def metric_names(config: AutoencoderConfig) -> tuple[str, ...]:
    """What a step of this configuration measures, in order."""
    return (*LOSSES, LATENT_DEVIATION, *(DISCRIMINATOR if config.adaptation == "adversarial" else ()))


def make_train_step(
    state: TrainingState, config: AutoencoderConfig, strategy: tf.distribute.Strategy, source: int, num_centres: int
) -> Callable[[Any, tf.Tensor], tf.Tensor]:
    """Compile the step of eq. 2.20 over one global batch, however many replicas share it; `source` is a centre's id.

    The reconstruction losses are means over equal parts of the batch, so their mean over replicas is that of the batch.
    The adaptation loss is not a mean over samples: every replica gathers all latents and computes all of it. Its
    gradient comes back through the gathering summed over replicas, and the optimizer sums over replicas once more for
    the weights. Dividing each replica's whole loss by their number makes the step that of one replica.

    Under "adversarial" the discriminator takes its step first, on the latents as they are; the autoencoder's loss is
    then computed with the new discriminator (thesis 3.4.2).

    Returns:
        Function of a distributed batch and the weight of the adaptation loss (float32 scalar), which changes the
        weights and returns the numbers of `metric_names`, of the whole batch before the step, as a float32 tensor.
    """
    num_replicas = strategy.num_replicas_in_sync
    model, optimizer, discriminator = state.model, state.optimizer, state.discriminator
    variables = model.trainable_variables

    def step_discriminator(latents: tf.Tensor, centre_ids: tf.Tensor) -> tuple[tf.Tensor, ...]:
        weights = discriminator.trainable_variables
        with tf.GradientTape() as tape:
            scores = discriminator_scores(discriminator(tf.stop_gradient(latents)), centre_ids)
            # Every replica has all latents, and the optimizer sums what they find.
            share = scores.loss / num_replicas
        state.discriminator_optimizer.apply(tape.gradient(share, weights), weights)
        return scores

    def replica_step(batch: dict[str, tf.Tensor], weight: tf.Tensor) -> tf.Tensor:
        scores: tuple[tf.Tensor, ...] = ()
        with tf.GradientTape() as tape:
            outputs = model(batch["features"], training=True)
            features = mean_squared_error(outputs["features"], batch["features"])
            images = image_loss(outputs["images"], batch["images"], config.image_loss, config.ssim)
            latents, centre_ids = _gather_batch(outputs["latents"], batch["centre_id"], num_replicas)
            aligned = in_deviations(latents) if config.adaptation_units == "deviation" else latents
            if config.adaptation == "none":
                adaptation = tf.zeros(())
            elif config.adaptation == "adversarial":
                with tape.stop_recording():
                    scores = step_discriminator(aligned, centre_ids)
                adaptation = adversarial_loss(discriminator(aligned), centre_ids, source)
            else:
                options = {"method": config.adaptation, "reduction": config.adaptation_reduction}
                adaptation = adaptation_loss(aligned, centre_ids, source, num_centres, **options)
            total = features + images + weight * adaptation
            share = optimizer.scale_loss(total / num_replicas)
        gradients = tape.gradient(share, variables)
        if num_replicas > 1 and isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _alike_finite(gradients, num_replicas)
        optimizer.apply(gradients, variables)
        deviation = tf.reduce_mean(tf.math.reduce_std(latents, axis=0))
        metrics = tf.stack([total, features, images, adaptation, deviation, *scores]) / num_replicas
        return metrics if num_replicas == 1 else _sum_over_replicas(metrics)

    @tf.function
    def train_step(batch: Any, weight: tf.Tensor) -> tf.Tensor:
        return strategy.experimental_local_results(strategy.run(replica_step, args=(batch, weight)))[0]

    return train_step


def _gather_batch(latents: tf.Tensor, centre_ids: tf.Tensor, num_replicas: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Latents and centre ids of the whole global batch, differentiable in the latents."""
    if num_replicas == 1:
        return latents, centre_ids
    # One collective for both, and none on integers, which not every backend gathers.
    rows = tf.concat([latents, tf.cast(centre_ids, latents.dtype)[:, tf.newaxis]], axis=1)
    gathered = tf.distribute.get_replica_context().all_gather(rows, axis=0)
    rows = tf.ensure_shape(gathered, (None, rows.shape[1]))
    return rows[:, :-1], tf.cast(rows[:, -1], centre_ids.dtype)


def _sum_over_replicas(values: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)


def _alike_finite(gradients: list[tf.Tensor], num_replicas: int) -> list[tf.Tensor]:
    """Make the gradients of all replicas NaN if those of one are not finite.

    Loss scaling skips such a step, but looks at the first replica alone.
    """
    finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(gradient)) for gradient in gradients])
    all_finite = _sum_over_replicas(tf.cast(finite, tf.float32)) > num_replicas - 0.5
    return [tf.where(all_finite, gradient, tf.cast(float("nan"), gradient.dtype)) for gradient in gradients]
