"""Domain adaptation: losses that bring the latents of all centres together.

Each method is a function of plain tensors, and `adaptation_loss` computes any of them for a batch of mixed centres. It
works under masks, so that shapes stay fixed whichever centre a row comes from. The adversarial method has a network of
its own, the discriminator. Losses of the user's own are functions of two sets of latents outside this package, named
"module:function": with the name alone in a configuration, other processes, hosts and resumed trainings find the same
function, and whoever only embeds needs none of it.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from mrcnn.files.errors import InputError, one_line

# Squared bandwidths as shares of the median squared distance. Gretton et al. 2012 take the median itself; a mixture
# around it still sees differences that are finer or coarser.
KERNEL_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)
# Widths of the discriminator's intermediate layers; the thesis gives their number (3.4.2), not their widths.
HIDDEN_UNITS = (128, 64)

_LEAST_ROWS = 2  # one row has no covariance
_LEAST_VARIANCE = 1e-8  # of latents, which lie between -1 and 1


def moment_matching_loss(source: tf.Tensor, target: tf.Tensor, reduction: str = "mean") -> tf.Tensor:
    """MMD (thesis eq. 2.14) of one target centre: how far its first two moments are from the source's.

    The squared difference of the means, averaged over the latent, plus half the symmetrised Kullback-Leibler divergence
    between the unbiased covariance matrices, each made a distribution per column by a softmax over axis 0. Despite its
    name in the thesis this is no kernel statistic; that is `kernel_mmd_loss`.

    Args:
        source, target: float tensors `(num_rows, latent_size)` with at least two rows each.
        reduction: over the latent_size x latent_size entries of each divergence: "mean" as in the reference
            implementation, "sum" as the equation says.

    Returns:
        float32 scalar, 0 or more.
    """
    return _to_source_moments(*_joined(source, target), reduction)


def normal_alignment_loss(latents: tf.Tensor, reduction: str = "mean") -> tf.Tensor:
    """Normal distribution alignment (thesis eq. 2.8) of one centre: how far its moments are from those of N(0, I).

    The Euclidean length of the mean plus the divergence between covariance and unit matrix, a float32 scalar of 0 or
    more; latents and reduction are as in `moment_matching_loss`.
    """
    latents = ops.cast(latents, "float32")
    return _to_normal(latents, None, ops.ones_like(latents[:, 0]), reduction)


def kernel_mmd_loss(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy under a mixture of Gaussian kernels.

    The kernel is the mean of exp(-d^2 / (2 b m)) over the shares b in `KERNEL_BANDWIDTHS`, m being the lower median of
    the squared distances d^2 between different rows of both sets together; m is not differentiated. It takes latents as
    `moment_matching_loss` does. Its expectation is 0 where both come from one distribution, so it can be negative.

    Reference:
        Borgwardt et al. 2006; Gretton et al. 2012, "A kernel two-sample test", lemma 6.
    """
    return _to_source_kernel(*_joined(source, target))


def coral_loss(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """CORAL: squared Frobenius distance of the unbiased covariance matrices, divided by 4 latent_size^2.

    Reference:
        Sun and Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation", eq. 1.
    """
    return _to_source_covariance(*_joined(source, target))


def in_deviations(latents: tf.Tensor) -> tf.Tensor:
    """Latents of a batch in units of their standard deviation, the root of their mean variance over the batch.

    An autoencoder can lower its adaptation loss by shrinking all latents, which leaves the centres as far apart as they
    were; in these units shrinking gains nothing. Float `(batch, latent_size)` becomes float32, finite also for latents
    that are all alike.
    """
    latents = ops.cast(latents, "float32")
    return latents / ops.sqrt(ops.mean(ops.var(latents, axis=0)) + _LEAST_VARIANCE)


def adaptation_loss(
    latents: tf.Tensor,
    centre_ids: tf.Tensor,
    source: int,
    num_centres: int,
    *,
    method: str = "mmd",
    reduction: str = "mean",
) -> tf.Tensor:
    """Adaptation loss of a batch of mixed centres: the sum of a method's losses over the targets.

    Args:
        latents: float tensor `(batch, latent_size)`.
        centre_ids: int tensor `(batch,)`, the centre of each row, 0 to `num_centres` - 1.
        source: id of the source centre. Under "normal" the source is N(0, I) and every centre is a target.
        num_centres: number of centres, in this batch or not.
        method: one of `METHODS`, or "module:function" for a loss of two sets of latents.
        reduction: as in `moment_matching_loss`, for "mmd" and "normal".

    Returns:
        float32 scalar. A target with fewer than two rows adds nothing, and no target does if that is the source.
    """
    latents = ops.cast(latents, "float32")
    masks = ops.one_hot(centre_ids, num_centres, dtype="float32")
    enough = ops.sum(masks, axis=0) >= _LEAST_ROWS
    distance = METHODS[method] if method in METHODS else _to_source_by(_import_loss(method))
    total = ops.zeros((), dtype="float32")
    for k in range(num_centres):
        if method != "normal" and k == source:
            continue
        counts = enough[k] if method == "normal" else ops.logical_and(enough[k], enough[source])
        # Both branches are finite whatever the counts, hence so is the gradient of the one not taken.
        loss = distance(latents, masks[:, source], masks[:, k], reduction)
        total = total + ops.where(counts, loss, ops.zeros_like(loss))
    return total


def find_custom_loss(name: str) -> Callable[[Any, Any], Any]:
    """Import the function that "module:function" names; the module's code runs.

    It takes latents `(num_source, latent_size)` and `(num_target, latent_size)` and returns a float scalar. An
    `InputError` says that the module cannot be imported or has no such function.
    """
    module_name, function_name = name.split(":")
    try:
        return getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # whatever the user's code does
        advice = f"set PYTHONPATH to the folder of {module_name}.py, or correct the name or the file"
        raise InputError(f"adaptation {name}: {one_line(error)}; {advice}") from error


def check_custom_loss(name: str, latent_size: int) -> None:
    """Try the loss "module:function" on a few random latents, so that a mistake is told before a training.

    An `InputError` says that it is not found, fails, or is not one finite number.
    """
    loss = find_custom_loss(name)
    random = np.random.default_rng(0)
    source, target = (random.uniform(-1, 1, (rows, latent_size)).astype(np.float32) for rows in (4, 3))
    try:
        value = np.asarray(loss(tf.constant(source), tf.constant(target)))
    except Exception as error:  # whatever the user's code does
        shapes = f"latents of shape {source.shape} and {target.shape}"
        raise InputError(f"adaptation {name}: fails on {shapes} ({one_line(error)}); correct the file") from error
    if value.shape != () or not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value):
        found = f"{value} of type {value.dtype}" if value.shape == () else f"an array of shape {value.shape}"
        raise InputError(f"adaptation {name}: the loss must be one finite floating-point number, got {found}")


def _joined(source: tf.Tensor, target: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Two sets of latents as one, and the mask of each."""
    source, target = ops.cast(source, "float32"), ops.cast(target, "float32")
    first = ops.concatenate([ops.ones_like(source[:, 0]), ops.zeros_like(target[:, 0])], axis=0)
    return ops.concatenate([source, target], axis=0), first, 1.0 - first


# Each takes latents `(batch, latent_size)`, the masks `(batch,)` of source and target, and the reduction. The source's
# moments are written once for each target; the graph computes them once.


def _to_source_moments(latents, source, target, reduction) -> tf.Tensor:
    (mean, covariance), (other_mean, other_covariance) = _moments(latents, source), _moments(latents, target)
    return ops.mean(ops.square(mean - other_mean)) + _divergence(covariance, other_covariance, reduction)


def _to_normal(latents, source, target, reduction) -> tf.Tensor:
    mean, covariance = _moments(latents, target)
    squares = ops.sum(ops.square(mean))
    # The root has no gradient at 0, and a mean of exactly 0 needs none.
    safe = ops.where(squares > 0, squares, ops.ones_like(squares))
    length = ops.where(squares > 0, ops.sqrt(safe), ops.zeros_like(squares))
    return length + _divergence(ops.eye(mean.shape[0], dtype="float32"), covariance, reduction)


def _to_source_kernel(latents, source, target, reduction="mean") -> tf.Tensor:
    rows = ops.cast(latents, "float64")
    squares = ops.sum(ops.square(rows), axis=1)
    distances = squares[:, None] + squares[None, :] - 2.0 * ops.matmul(rows, ops.transpose(rows))
    distances = ops.cast(ops.maximum(distances, 0.0), "float32")
    different = 1.0 - ops.eye(ops.shape(latents)[0], dtype="float32")
    both = source + target
    median = tf.stop_gradient(_masked_median(distances, both[:, None] * both * different))
    scale = ops.where(median > 0, median, ops.ones_like(median))
    kernel = sum(ops.exp(distances / (-2.0 * share * scale)) for share in KERNEL_BANDWIDTHS) / len(KERNEL_BANDWIDTHS)
    within = sum(_mean_under(kernel, mask[:, None] * mask * different) for mask in (source, target))
    return within - 2.0 * _mean_under(kernel, source[:, None] * target)


def _to_source_covariance(latents, source, target, reduction="mean") -> tf.Tensor:
    # The mean over all entries is the sum over latent_size^2.
    return 0.25 * ops.mean(ops.square(_moments(latents, source)[1] - _moments(latents, target)[1]))


def _to_source_by(loss):
    """A method that hands the rows of source and target to a function which knows of no masks."""

    def distance(latents, source, target, reduction) -> tf.Tensor:
        rows = [tf.boolean_mask(latents, mask > 0) for mask in (source, target)]
        # The function may be infinite for too few rows; where it is not called it has no gradient either.
        enough = tf.reduce_all([tf.shape(r)[0] >= _LEAST_ROWS for r in rows])
        return tf.cond(enough, lambda: ops.cast(loss(*rows), "float32"), lambda: tf.zeros(()))

    return distance


_import_loss = tf.autograph.experimental.do_not_convert(find_custom_loss)  # importing is nothing to compile
METHODS = {
    "mmd": _to_source_moments,
    "normal": _to_normal,
    "kernel-mmd": _to_source_kernel,
    "coral": _to_source_covariance,
}


def _moments(latents: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean `(latent_size,)` and unbiased covariance of the rows whose mask is 1; finite for any number of them."""
    count = ops.sum(mask)
    mean = ops.sum(latents * mask[:, None], axis=0) / ops.maximum(count, 1.0)
    # In float64, since GPUs multiply float32 with ten bits of it (TensorFloat-32).
    centred = ops.cast((latents - mean) * mask[:, None], "float64")
    product = ops.cast(ops.matmul(ops.transpose(centred), centred), "float32")
    return mean, product / ops.maximum(count - 1.0, 1.0)


def _divergence(first: tf.Tensor, second: tf.Tensor, reduction: str) -> tf.Tensor:
    """Half the symmetrised divergence of two covariances after a softmax over axis 0."""
    log_first = ops.log_softmax(first, axis=0)
    log_second = ops.log_softmax(second, axis=0)
    # KL(S_0 || S_k) + KL(S_k || S_0) = sum of (S_0 - S_k) (log S_0 - log S_k)
    terms = (ops.exp(log_first) - ops.exp(log_second)) * (log_first - log_second)
    return 0.5 * (ops.mean(terms) if reduction == "mean" else ops.sum(terms))


def _mean_under(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)


def _masked_median(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Lower median of the values whose mask is 1; 0 if there are none."""
    count = tf.cast(ops.sum(mask), tf.int32)
    ordered = tf.sort(tf.reshape(tf.where(mask > 0, values, values.dtype.max), [-1]))
    return tf.where(count > 0, tf.gather(ordered, tf.maximum((count - 1) // 2, 0)), 0.0)


class DiscriminatorScores(NamedTuple):
    """How well the discriminator does on a batch: float32 scalars."""

    loss: tf.Tensor
    accuracy: tf.Tensor


def build_discriminator(latent_size: int, num_centres: int, *, seed: int = 0) -> keras.Model:
    """Build the discriminator: three layers, ReLU between them and nothing at the end (thesis 3.4.2).

    It maps latents `(batch, latent_size)` to logits `(batch, num_centres)`, in float32 whatever the precision of the
    autoencoder.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(HIDDEN_UNITS) + 1)
    inputs = x = keras.Input((latent_size,), name="latents")
    for number, units in enumerate([*HIDDEN_UNITS, num_centres], start=1):
        x = layers.Dense(
            units,
            activation="relu" if number < len(seeds) else None,
            kernel_initializer=keras.initializers.GlorotUniform(seed=int(seeds[number - 1])),
            dtype="float32",
            name=f"discriminator_dense{number}",
        )(x)
    return keras.Model(inputs, x, name="discriminator")


def discriminator_scores(logits: tf.Tensor, centre_ids: tf.Tensor) -> DiscriminatorScores:
    """Negative log likelihood of the true centres (eq. 2.11 to 2.13), and how often the likeliest is the true one.

    Both are means over the centres in the batch of the mean over their rows. Logits are float `(batch, num_centres)`,
    centre ids int `(batch,)`.
    """
    masks = ops.one_hot(centre_ids, logits.shape[-1], dtype="float32")
    likelihood = ops.sum(ops.log_softmax(logits, axis=-1) * masks, axis=-1)
    right = ops.cast(ops.equal(ops.argmax(logits, axis=-1), ops.cast(centre_ids, "int32")), "float32")
    num_present = ops.maximum(ops.sum(ops.cast(ops.sum(masks, axis=0) > 0, "float32")), 1.0)
    return DiscriminatorScores(*(ops.sum(_means_of_centres(v, masks)) / num_present for v in (-likelihood, right)))


def adversarial_loss(logits: tf.Tensor, centre_ids: tf.Tensor, source: int) -> tf.Tensor:
    """What the autoencoder pays for targets that the discriminator does not take for the source.

    The negative log likelihood of the source centre, averaged over the rows of each target and summed over the targets
    as in the other methods. Rows of the source pay nothing. (Negating the discriminator's own loss would push hardest
    where it already errs, and without bound.) `source` is the source's id; the rest is as in `discriminator_scores`.

    It is a float32 scalar of 0 or more; a target that the batch lacks adds nothing.

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
