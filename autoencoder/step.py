"""The autoencoder as a Keras model: one step over a global batch that one or several replicas share."""

from collections.abc import Mapping
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
from mrcnn.files.fitting import ReplicaSteps

LOSSES = ("loss", "feature_loss", "image_loss", "adaptation_loss")
# Standard deviation of the latents over the batch, mean over their entries. An adaptation loss that is too strong
# shrinks it, since latents that are all alike are aligned too.
LATENT_DEVIATION = "latent_deviation"
DISCRIMINATOR = ("discriminator_loss", "discriminator_accuracy")


def metric_names(config: AutoencoderConfig) -> tuple[str, ...]:
    """What a step of this configuration measures, in order."""
    return (*LOSSES, LATENT_DEVIATION, *(DISCRIMINATOR if config.adaptation == "adversarial" else ()))


@keras.saving.register_keras_serializable("autoencoder")
class AutoencoderModel(ReplicaSteps, keras.Model):
    """The autoencoder with what trains it, for batches as of `CellBatches`; weights follow from the seed of `config`.

    The reconstruction losses are means over equal parts of the batch, so their mean over replicas is that of the batch.
    The adaptation loss is not a mean over samples: every replica gathers all latents and computes all of it. Its
    gradient comes back through the gathering summed over replicas, and the optimizer sums over replicas once more for
    the weights. Dividing each replica's whole loss by their number makes the step that of one replica.

    Under "adversarial" the discriminator takes its step first, on the latents as they are; the autoencoder's loss is
    then computed with the new discriminator (thesis 3.4.2).

    Args:
        config: the settings, or a mapping of them.
        num_centres: number of centres.
        source: number of the source centre.

    Attributes:
        network: as from `build_autoencoder`.
        discriminator, discriminator_optimizer: or None.
    """

    def __init__(self, config: AutoencoderConfig | Mapping[str, Any], num_centres: int, source: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        config = config if isinstance(config, AutoencoderConfig) else AutoencoderConfig.from_dict(dict(config))
        self.config, self.num_centres, self.source = config, num_centres, source
        self.network, self.discriminator, self.discriminator_optimizer = build_autoencoder(config), None, None
        if config.adaptation == "adversarial":
            seed = int(np.random.SeedSequence(config.seed).generate_state(4)[3])  # the first three are the network's
            self.discriminator = build_discriminator(config.latent_size, num_centres, seed=seed)
            self.discriminator_optimizer = keras.optimizers.Adam(config.discriminator_learning_rate)
            self.discriminator_optimizer.build(self.discriminator.trainable_variables)
        kind = {"dtype": "int64", "trainable": False, "aggregation": "only_first_replica", "name": "steps"}
        self.steps = self.add_weight((), initializer="zeros", **kind)
        self.built = True

    def compile_for_training(self) -> None:
        """Compile with Adam, and loss scaling under mixed_float16."""
        optimizer = keras.optimizers.Adam(self.config.learning_rate)
        if self.config.precision == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        optimizer.build(self.trainable_variables)  # as Keras does when it opens a file
        self.compile(optimizer=optimizer, jit_compile=False)

    @property
    def steps_done(self) -> int:
        """How many steps were taken, with those that loss scaling has passed over."""
        return int(keras.ops.convert_to_numpy(self.steps))

    @property
    def state(self) -> list[keras.Variable]:
        """All that a checkpoint holds, in a fixed order; assigning one sets it on every replica."""
        optimizers = (self.optimizer, self.discriminator_optimizer)
        return [*self.variables, *(v for each in optimizers if each is not None for v in each.variables)]

    def call(self, features: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """What `network` gives for scaled features `(batch, 14, 14, 256)`."""
        return self.network(features, training=training)

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Take the step of eq. 2.20 on this replica's part of the global batch.

        Returns:
            The numbers of `metric_names`, of the whole batch before the step.
        """
        config, num_replicas = self.config, tf.distribute.get_strategy().num_replicas_in_sync
        variables, scores = self.network.trainable_variables, ()
        with tf.GradientTape() as tape:
            outputs = self.network(batch["features"], training=True)
            features = mean_squared_error(outputs["features"], batch["features"])
            images = image_loss(outputs["images"], batch["images"], config.image_loss, config.ssim)
            latents, centre_ids = _gather_batch(outputs["latents"], batch["centre_id"], num_replicas)
            aligned = in_deviations(latents) if config.adaptation_units == "deviation" else latents
            if config.adaptation == "none":
                adaptation = tf.zeros(())
            elif config.adaptation == "adversarial":
                with tape.stop_recording():
                    scores = self._step_discriminator(aligned, centre_ids, num_replicas)
                adaptation = adversarial_loss(self.discriminator(aligned), centre_ids, self.source)
            else:
                options = {"method": config.adaptation, "reduction": config.adaptation_reduction}
                adaptation = adaptation_loss(aligned, centre_ids, self.source, self.num_centres, **options)
            total = features + images + self.adaptation_weight() * adaptation
            share = self.optimizer.scale_loss(total / num_replicas)
        gradients = tape.gradient(share, variables)
        if num_replicas > 1 and isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            gradients = _alike_finite(gradients, num_replicas)
        self.optimizer.apply(gradients, variables)
        self.steps.assign_add(1)
        deviation = tf.reduce_mean(tf.math.reduce_std(latents, axis=0))
        metrics = tf.stack([total, features, images, adaptation, deviation, *scores]) / num_replicas
        metrics = metrics if num_replicas == 1 else _sum_over_replicas(metrics)
        return dict(zip(metric_names(config), tf.unstack(metrics), strict=True))

    def adaptation_weight(self) -> tf.Tensor:
        """Weight of the adaptation loss in the next step, which grows to `beta` over the warm-up."""
        share = (tf.cast(self.steps, tf.float32) + 1.0) / max(self.config.adaptation_warmup_steps, 1)
        return self.config.beta * tf.minimum(share, 1.0)

    def _step_discriminator(self, latents: tf.Tensor, centre_ids: tf.Tensor, num_replicas: int) -> tuple:
        weights = self.discriminator.trainable_variables
        with tf.GradientTape() as tape:
            scores = discriminator_scores(self.discriminator(tf.stop_gradient(latents)), centre_ids)
            # Every replica has all latents, and the optimizer sums what they find.
            share = scores.loss / num_replicas
        self.discriminator_optimizer.apply(tape.gradient(share, weights), weights)
        return scores

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        own = {"config": self.config.to_dict(), "num_centres": self.num_centres, "source": self.source}
        return {**super().get_config(), **own}


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
