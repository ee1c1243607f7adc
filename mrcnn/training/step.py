"""The detector as a Keras model: its training step, optimiser and schedule, and its files."""

import os
from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.files.fitting import ReplicaSteps
from mrcnn.network.assembly import DetectorParts, TrainingNetwork
from mrcnn.network.graph import PerRoI, detector_graph
from mrcnn.network.losses import LossSum
from mrcnn.training.weights import LoadReport, load_by_name, save_matterport

LOSS_NAMES = tuple(Config.LOSS_WEIGHTS)


@keras.saving.register_keras_serializable("mrcnn")
class WarmupDrop(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly to `peak`, stays, and is multiplied by `drop_factor` at `drop_step`."""

    def __init__(self, peak: float, warmup_steps: int, drop_step: int, drop_factor: float):
        self.peak, self.warmup_steps = float(peak), int(warmup_steps)
        self.drop_step, self.drop_factor = int(drop_step), float(drop_factor)

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        """The rate at `step`, counted from 0."""
        step = tf.cast(step, tf.float32)
        rise = tf.minimum((step + 1.0) / max(self.warmup_steps, 1), 1.0)
        return self.peak * rise * tf.where(step >= self.drop_step, self.drop_factor, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return dict(vars(self))


@keras.saving.register_keras_serializable("mrcnn")
class FusedAdam(keras.optimizers.Adam):
    """Keras' Adam, each variable updated by one fused operation.

    Results and state are those of Keras' own. That one adds dozens of operations to the graph for each of a detector's
    variables, all of which take time to compile (`benchmarks/first_step.py`).
    """

    def apply(self, grads: list, trainable_variables: list | None = None) -> None:
        """Take one step along the gradients."""
        step = tf.cast(self.iterations, tf.float32) + 1.0
        # Once for all variables. Of several replicas any one's will do: they are equal.
        shared = {"beta1": tf.constant(self.beta_1), "beta2": tf.constant(self.beta_2)}
        shared |= {f"{name}_power": tf.pow(beta, step) for name, beta in shared.items()}
        self._shared = {**shared, "epsilon": tf.constant(self.epsilon)}
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor) -> None:
        """Move one variable along its gradient."""
        if variable.dtype != tf.float32:
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            lr=learning_rate,
            grad=gradient,
            **self._shared,
        )


def make_optimizer(config: Config, learning_rate: float, total_steps: int) -> keras.optimizers.Optimizer:
    """The optimiser that `config` names; `DetectorModel` clips the gradients."""
    rate: float | WarmupDrop = float(learning_rate)  # which callbacks can change, where a schedule cannot be
    warmup_steps, drop_after = config.LEARNING_RATE_WARMUP_STEPS, config.LEARNING_RATE_DROP_AFTER
    if drop_after < 1.0 or warmup_steps:
        drop_step = round(total_steps * drop_after) if drop_after < 1.0 else 2**31 - 1
        rate = WarmupDrop(learning_rate, warmup_steps, drop_step, config.LEARNING_RATE_DROP_FACTOR)
    if config.OPTIMIZER == "adam":
        return FusedAdam(rate)
    return keras.optimizers.SGD(rate, momentum=config.LEARNING_MOMENTUM)


@keras.saving.register_keras_serializable("mrcnn")
class DetectorModel(ReplicaSteps, keras.Model):
    """The detection network as one functional graph, see `detector_graph`, which `fit` trains.

    `of_parts` makes one that can be trained, on dicts as of `TrainingNetwork`; one loaded from a `.keras` file detects.
    """

    compiled_for: tuple | None = None
    """What the training was last compiled for."""

    @classmethod
    def of_parts(cls, parts: DetectorParts, config: Config) -> "DetectorModel":
        """The model of these parts, whose weights it shares."""
        model = cls(*detector_graph(parts, config), name="mask_rcnn")
        model.config, model.training_network = config, TrainingNetwork(parts, config)
        return model

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Take one step on this replica's part of the global batch.

        Returns:
            "loss" and each term, unweighted -> scalar over the global batch, the same on every replica.
        """
        variables = self.trainable_variables
        with tf.GradientTape() as tape:
            shares = self._shares(self.training_network(batch, training=True))
            target = self._total(shares) + self._weight_decay() / _num_replicas()
        gradients = self._clip(_all_reduce_sum(tape.gradient(target, variables)))
        if _num_replicas() > 1:  # the optimiser sums over them once more
            gradients = [gradient / _num_replicas() for gradient in gradients]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._logs(shares)

    def test_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Losses of a validation batch; as `train_step`, with nothing learned."""
        return self._logs(self._shares(self.training_network(batch, training=False)))

    def _shares(self, losses: dict[str, LossSum]) -> dict[str, tf.Tensor]:
        """What this replica adds to each mean over the global batch."""
        counts = _all_reduce_sum([losses[name].count for name in LOSS_NAMES])
        return {
            name: tf.math.divide_no_nan(losses[name].total, tf.stop_gradient(count))
            for name, count in zip(LOSS_NAMES, counts, strict=True)
        }

    def _logs(self, shares):
        terms = dict(zip(LOSS_NAMES, _all_reduce_sum([shares[name] for name in LOSS_NAMES]), strict=True))
        return {"loss": self._total(terms), **terms}

    def _total(self, losses):
        return tf.add_n([self.config.LOSS_WEIGHTS.get(name, 1.0) * losses[name] for name in LOSS_NAMES])

    def _weight_decay(self) -> tf.Tensor:
        """L2 penalty on kernels and biases, divided by the size of each, as in Matterport's; normalisation has none."""
        weights = [v for v in self.trainable_variables if not v.path.endswith(("gamma", "beta"))]
        if not self.config.WEIGHT_DECAY or not weights:
            return tf.constant(0.0)
        return self.config.WEIGHT_DECAY * tf.add_n([tf.reduce_mean(tf.square(v)) for v in weights])

    def _clip(self, gradients: list) -> list:
        """Bound the norm of the global batch's whole gradient, as `clipnorm` did in the Keras of Matterport's time.

        Keras' optimisers would clip each replica's part before these are summed.
        """
        if not self.config.GRADIENT_CLIP_NORM:
            return gradients
        return tf.clip_by_global_norm(gradients, self.config.GRADIENT_CLIP_NORM)[0]

    def save(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Save network and weights to a `.keras` file, or its weights to an `.h5` file, see `save_weights`."""
        if str(filepath).endswith(".keras"):
            without_optimizer = type(self)(self.inputs, self.outputs, name=self.name)
            keras.Model.save(without_optimizer, filepath, overwrite=overwrite, **kwargs)
        else:
            self.save_weights(filepath, overwrite=overwrite, **kwargs)

    def save_weights(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Save in Matterport's layout, or as Keras does, with the optimiser, if the name ends in `.weights.h5`."""
        if str(filepath).endswith(".weights.h5"):
            super().save_weights(filepath, overwrite=overwrite, **kwargs)
        else:
            save_matterport(self.weighted_layers(), filepath)

    def load_weights(self, filepath: str | os.PathLike, by_name: bool = False, **kwargs: Any) -> LoadReport | None:
        """Load either kind of file; Matterport's always by name."""
        if str(filepath).endswith(".weights.h5"):
            return super().load_weights(filepath, **kwargs)
        return load_by_name(self.weighted_layers(), filepath)

    def weighted_layers(self) -> list[keras.layers.Layer]:
        """Every layer with weights, those of the nested proposal network and of the heads too."""
        nested = [layer.layers if isinstance(layer, keras.Model) else [layer] for layer in self.layers]
        single = [layer.layer if isinstance(layer, PerRoI) else layer for layers in nested for layer in layers]
        return [layer for layer in single if layer.weights]

    def _make_predict_function(self) -> None:
        """Nothing: servers called it for the threads of TensorFlow 1."""


def _num_replicas() -> int:
    return tf.distribute.get_strategy().num_replicas_in_sync


def _all_reduce_sum(values: list) -> list:
    if _num_replicas() == 1:
        return values
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, values)
