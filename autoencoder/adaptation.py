"""Domain adaptation: bring the latents of every centre to those of one source centre."""

import tensorflow as tf
from keras import ops

_REDUCTIONS = {"mean": ops.mean, "sum": ops.sum}


def moment_matching_loss(source: tf.Tensor, target: tf.Tensor, reduction: str = "mean") -> tf.Tensor:
    """MMD (thesis eq. 2.14) of one target centre: how far its first two moments are from the source's.

    The squared difference of the means, averaged over the latent, plus the symmetrised Kullback-Leibler
    divergence between the covariance matrices, each made a distribution per column by a softmax over axis 0.
    Despite its name in the thesis this is no kernel statistic.

    Args:
        source: float tensor `(num_source, latent_size)` with at least two rows.
        target: float tensor `(num_target, latent_size)` with at least two rows.
        reduction: over the latent_size x latent_size entries of each divergence: "mean" as in the reference
            implementation, "sum" as the divergence is defined (summed over the columns).

    Returns:
        Scalar, 0 or more.

    Raises:
        ValueError: if `reduction` is neither.
    """
    return _distance(_moments(source), _moments(target), reduction)


def adaptation_loss(
    latents: tf.Tensor, centre_ids: tf.Tensor, source: int, num_centres: int, *, reduction: str = "mean"
) -> tf.Tensor:
    """Sum of the moment-matching losses (eq. 2.14) of all target centres in a batch.

    The moments are taken under masks, so that the graph has fixed shapes whichever centre a row comes from. A
    centre with fewer than two rows has no covariance: it contributes nothing, and so do all if that is the
    source.

    Args:
        latents: float tensor `(batch, latent_size)`.
        centre_ids: int tensor `(batch,)`, the centre of each row, 0 to `num_centres` - 1.
        source: id of the source centre.
        num_centres: number of centres, in this batch or not.
        reduction: as in `moment_matching_loss`.

    Returns:
        Scalar, 0 or more.

    Raises:
        ValueError: if `source` is not the id of a centre, or `reduction` is unknown.
    """
    if not 0 <= source < num_centres:
        raise ValueError(f"source must be between 0 and {num_centres - 1}, got {source}")
    masks = ops.one_hot(centre_ids, num_centres, dtype=latents.dtype)
    counts = ops.sum(masks, axis=0)
    moments = [_masked_moments(latents, masks[:, k], counts[k]) for k in range(num_centres)]
    total = ops.zeros((), dtype=latents.dtype)
    for k in range(num_centres):
        if k == source:
            continue
        # Both branches are finite whatever the counts, hence so is the gradient of the one not taken.
        enough = ops.logical_and(counts[k] >= 2, counts[source] >= 2)
        distance = _distance(moments[source], moments[k], reduction)
        total = total + ops.where(enough, distance, ops.zeros_like(distance))
    return total


def _moments(latents: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean `(latent_size,)` and unbiased covariance `(latent_size, latent_size)` of the rows."""
    ones = ops.ones_like(latents[:, 0])
    return _masked_moments(latents, ones, ops.sum(ones))


def _masked_moments(latents: tf.Tensor, mask: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Moments of the rows whose mask is 1; finite for any count."""
    mean = ops.sum(latents * mask[:, None], axis=0) / ops.maximum(count, 1.0)
    centred = (latents - mean) * mask[:, None]
    covariance = ops.matmul(ops.transpose(centred), centred) / ops.maximum(count - 1.0, 1.0)
    return mean, covariance


def _distance(source, target, reduction: str) -> tf.Tensor:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
    mean_term = ops.mean(ops.square(source[0] - target[0]))
    log_source = ops.log_softmax(source[1], axis=0)
    log_target = ops.log_softmax(target[1], axis=0)
    # KL(S_0 || S_k) + KL(S_k || S_0) = sum of (S_0 - S_k) (log S_0 - log S_k)
    divergence = (ops.exp(log_source) - ops.exp(log_target)) * (log_source - log_target)
    return mean_term + 0.5 * _REDUCTIONS[reduction](divergence)
