"""Domain adaptation: bring the latents of all centres together.

Each method is a function of plain tensors, and `adaptation_loss` computes any of them for a batch of mixed centres. It
works under masks, so that shapes stay fixed whichever centre a row comes from. The adversarial method has a network of
its own, see `adversary`. Losses of the user's own are plain functions of two sets of latents, see `own_losses`.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from autoencoder.custom_losses import OwnLoss, find_own_loss, is_own_loss

REDUCTIONS = ("mean", "sum")
# Squared bandwidths as shares of the median squared distance. Gretton et al. 2012 take the median itself; a mixture
# around it still sees differences that are finer or coarser.
KERNEL_BANDWIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)

_LEAST_ROWS = 2  # one row has no covariance
_LEAST_VARIANCE = 1e-8  # of latents, which lie between -1 and 1

Moments = tuple[tf.Tensor, tf.Tensor]


def moment_matching_loss(source: tf.Tensor, target: tf.Tensor, reduction: str = "mean") -> tf.Tensor:
    """MMD (thesis eq. 2.14) of one target centre: how far its first two moments are from the source's.

    The squared difference of the means, averaged over the latent, plus half the symmetrised Kullback-Leibler divergence
    between the unbiased covariance matrices, each made a distribution per column by a softmax over axis 0. Despite its
    name in the thesis this is no kernel statistic; that is `kernel_mmd_loss`.

    Args:
        source: float tensor `(num_source, latent_size)` with at least two rows.
        target: float tensor `(num_target, latent_size)` with at least two rows.
        reduction: over the latent_size x latent_size entries of each divergence: "mean" as in the reference
            implementation, "sum" as the equation says.

    Returns:
        float32 scalar, 0 or more.

    Raises:
        ValueError: if `reduction` is neither.
    """
    _check_reduction(reduction)
    return _moment_distance(_moments(source), _moments(target), reduction)


def normal_alignment_loss(latents: tf.Tensor, reduction: str = "mean") -> tf.Tensor:
    """Normal distribution alignment (thesis eq. 2.8) of one centre: how far its moments are from those of N(0, I).

    The Euclidean length of the mean plus the divergence of `moment_matching_loss` between covariance and unit matrix.

    Args:
        latents: float tensor `(num_rows, latent_size)` with at least two rows.
        reduction: as in `moment_matching_loss`.

    Returns:
        float32 scalar, 0 or more.

    Raises:
        ValueError: if `reduction` is neither.
    """
    _check_reduction(reduction)
    return _normal_distance(_moments(latents), reduction)


def kernel_mmd_loss(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """Unbiased estimate of the squared maximum mean discrepancy under a mixture of Gaussian kernels.

    The kernel is the mean of exp(-d^2 / (2 b m)) over the shares b in `KERNEL_BANDWIDTHS`, m being the lower median of
    the squared distances d^2 between different rows of both sets together; m is not differentiated.

    Args:
        source: float tensor `(num_source, latent_size)` with at least two rows.
        target: float tensor `(num_target, latent_size)` with at least two rows.

    Returns:
        float32 scalar; its expectation is 0 where both come from one distribution, so it can be negative.

    Reference:
        Borgwardt et al. 2006; Gretton et al. 2012, "A kernel two-sample test", lemma 6.
    """
    source, target = _rows(source), _rows(target)
    rows = ops.concatenate([source, target], axis=0)
    first = ops.concatenate([ops.ones_like(source[:, 0]), ops.zeros_like(target[:, 0])], axis=0)
    return _kernel_distance(rows, _squared_distances(rows), first, 1.0 - first)


def coral_loss(source: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
    """CORAL: squared Frobenius distance of the unbiased covariance matrices, divided by 4 latent_size^2.

    Args:
        source: float tensor `(num_source, latent_size)` with at least two rows.
        target: float tensor `(num_target, latent_size)` with at least two rows.

    Returns:
        float32 scalar, 0 or more.

    Reference:
        Sun and Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation", eq. 1.
    """
    return _coral_distance(_moments(source), _moments(target))


def in_deviations(latents: tf.Tensor) -> tf.Tensor:
    """Latents of a batch in units of their deviation, the root of their mean variance over the batch.

    Moments, and what a discriminator sees, are smaller for smaller latents, so that an autoencoder can lower its
    adaptation loss by shrinking all of them and leave the centres as far apart as they were, compared with the cells of
    one. In these units shrinking gains nothing.

    Args:
        latents: float tensor `(batch, latent_size)`.

    Returns:
        float32 tensor of the same shape, finite also for latents that are all alike.
    """
    latents = _rows(latents)
    deviation = ops.sqrt(ops.mean(ops.var(latents, axis=0)) + _LEAST_VARIANCE)
    return latents / deviation


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
        method: one of `METHODS`, or "module:function" for a loss of two sets of latents, see `own_losses`.
        reduction: as in `moment_matching_loss`, for "mmd" and "normal".

    Returns:
        float32 scalar. A target with fewer than two rows adds nothing, and no target does if that is the source.

    Raises:
        ValueError: if `source` is not the id of a centre, or the method or the reduction is unknown.
        InputError: if a loss of the user's own is not found.
    """
    if not 0 <= source < num_centres:
        raise ValueError(f"source must be between 0 and {num_centres - 1}, got {source}")
    if method not in METHODS and not is_own_loss(method):
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    _check_reduction(reduction)
    latents = _rows(latents)
    masks = ops.one_hot(centre_ids, num_centres, dtype="float32")
    enough = ops.sum(masks, axis=0) >= _LEAST_ROWS
    distances = METHODS[method] if method in METHODS else _to_source_by(_find_own_loss(method))
    distance = distances(latents, masks, source, reduction)
    total = ops.zeros((), dtype="float32")
    for k in range(num_centres):
        if method == "normal":
            counts = enough[k]
        elif k == source:
            continue
        else:
            counts = ops.logical_and(enough[k], enough[source])
        # Both branches are finite whatever the counts, hence so is the gradient of the one not taken.
        loss = distance(k)
        total = total + ops.where(counts, loss, ops.zeros_like(loss))
    return total


def _to_source_moments(latents, masks, source, reduction) -> Callable[[int], tf.Tensor]:
    moments = _moments_of_centres(latents, masks)
    return lambda k: _moment_distance(moments[source], moments[k], reduction)


def _to_normal(latents, masks, source, reduction) -> Callable[[int], tf.Tensor]:
    moments = _moments_of_centres(latents, masks)
    return lambda k: _normal_distance(moments[k], reduction)


def _to_source_kernel(latents, masks, source, reduction) -> Callable[[int], tf.Tensor]:
    squares = _squared_distances(latents)
    return lambda k: _kernel_distance(latents, squares, masks[:, source], masks[:, k])


def _to_source_covariance(latents, masks, source, reduction) -> Callable[[int], tf.Tensor]:
    moments = _moments_of_centres(latents, masks)
    return lambda k: _coral_distance(moments[source], moments[k])


def _to_source_by(loss: OwnLoss) -> Callable[..., Callable[[int], tf.Tensor]]:
    """A method that hands the rows of source and target to a function which knows of no masks."""

    def to_source(latents, masks, source, reduction) -> Callable[[int], tf.Tensor]:
        def distance(k: int) -> tf.Tensor:
            rows = [tf.boolean_mask(latents, masks[:, centre] > 0) for centre in (source, k)]
            # The function may be infinite for too few rows; where it is not called it has no gradient either.
            enough = tf.reduce_all([tf.shape(r)[0] >= _LEAST_ROWS for r in rows])
            return tf.cond(enough, lambda: ops.cast(loss(*rows), "float32"), lambda: tf.zeros(()))

        return distance

    return to_source


# Importing is nothing to compile.
_find_own_loss = tf.autograph.experimental.do_not_convert(find_own_loss)
# From latents, masks `(batch, num_centres)`, source and reduction to the loss of the centre k.
METHODS = {
    "mmd": _to_source_moments,
    "normal": _to_normal,
    "kernel-mmd": _to_source_kernel,
    "coral": _to_source_covariance,
}


def _check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")


def _rows(latents: tf.Tensor) -> tf.Tensor:
    return ops.cast(latents, "float32")


def _product(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Matrix product to float32's full precision: GPUs multiply float32 with ten bits of it (TensorFloat-32)."""
    return ops.cast(ops.matmul(ops.cast(first, "float64"), ops.cast(second, "float64")), "float32")


def _moments(latents: tf.Tensor) -> Moments:
    """Mean `(latent_size,)` and unbiased covariance `(latent_size, latent_size)` of the rows."""
    latents = _rows(latents)
    return _masked_moments(latents, ops.ones_like(latents[:, 0]))


def _moments_of_centres(latents: tf.Tensor, masks: tf.Tensor) -> list[Moments]:
    return [_masked_moments(latents, masks[:, k]) for k in range(masks.shape[1])]


def _masked_moments(latents: tf.Tensor, mask: tf.Tensor) -> Moments:
    """Moments of the rows whose mask is 1; finite for any number of them."""
    count = ops.sum(mask)
    mean = ops.sum(latents * mask[:, None], axis=0) / ops.maximum(count, 1.0)
    centred = (latents - mean) * mask[:, None]
    covariance = _product(ops.transpose(centred), centred) / ops.maximum(count - 1.0, 1.0)
    return mean, covariance


def _divergence(first: tf.Tensor, second: tf.Tensor, reduction: str) -> tf.Tensor:
    """Half the symmetrised divergence of two covariances after a softmax over axis 0."""
    log_first = ops.log_softmax(first, axis=0)
    log_second = ops.log_softmax(second, axis=0)
    # KL(S_0 || S_k) + KL(S_k || S_0) = sum of (S_0 - S_k) (log S_0 - log S_k)
    terms = (ops.exp(log_first) - ops.exp(log_second)) * (log_first - log_second)
    return 0.5 * (ops.mean(terms) if reduction == "mean" else ops.sum(terms))


def _moment_distance(source: Moments, target: Moments, reduction: str) -> tf.Tensor:
    return ops.mean(ops.square(source[0] - target[0])) + _divergence(source[1], target[1], reduction)


def _normal_distance(moments: Moments, reduction: str) -> tf.Tensor:
    mean, covariance = moments
    squares = ops.sum(ops.square(mean))
    # The root has no gradient at 0, and a mean of exactly 0 needs none.
    safe = ops.where(squares > 0, squares, ops.ones_like(squares))
    length = ops.where(squares > 0, ops.sqrt(safe), ops.zeros_like(squares))
    return length + _divergence(ops.eye(mean.shape[0], dtype="float32"), covariance, reduction)


def _coral_distance(source: Moments, target: Moments) -> tf.Tensor:
    # The mean over all entries is the sum over latent_size^2.
    return 0.25 * ops.mean(ops.square(source[1] - target[1]))


def _squared_distances(rows: tf.Tensor) -> tf.Tensor:
    """Squared distances between all rows `(num_rows, num_rows)`."""
    rows = ops.cast(rows, "float64")
    squares = ops.sum(ops.square(rows), axis=1)
    distances = squares[:, None] + squares[None, :] - 2.0 * ops.matmul(rows, ops.transpose(rows))
    return ops.cast(ops.maximum(distances, 0.0), "float32")


def _kernel_distance(rows: tf.Tensor, distances: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Unbiased squared MMD of the rows under two masks `(num_rows,)` that do not overlap."""
    different = 1.0 - ops.eye(ops.shape(rows)[0], dtype="float32")
    both = first + second
    median = tf.stop_gradient(_masked_median(distances, _outer(both, both) * different))
    scale = ops.where(median > 0, median, ops.ones_like(median))
    kernel = sum(ops.exp(distances / (-2.0 * share * scale)) for share in KERNEL_BANDWIDTHS) / len(KERNEL_BANDWIDTHS)
    total = ops.zeros((), dtype="float32")
    for mask in (first, second):
        total = total + _mean_under(kernel, _outer(mask, mask) * different)
    return total - 2.0 * _mean_under(kernel, _outer(first, second))


def _outer(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    return first[:, None] * second[None, :]


def _mean_under(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)


def _masked_median(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Lower median of the values whose mask is 1; 0 if there are none."""
    count = tf.cast(ops.sum(mask), tf.int32)
    ordered = tf.sort(tf.reshape(tf.where(mask > 0, values, values.dtype.max), [-1]))
    return tf.where(count > 0, tf.gather(ordered, tf.maximum((count - 1) // 2, 0)), 0.0)


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
