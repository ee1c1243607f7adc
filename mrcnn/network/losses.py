"""The losses of the detector (thesis eq. 2.1-2.4).

Each is a mean over what it applies to, and 0 where nothing applies, so that an image without cells gives no NaN.
Sums and counts run over the whole batch of one replica.
"""

import keras
import tensorflow as tf


def smooth_l1(errors: tf.Tensor) -> tf.Tensor:
    """Elementwise 0.5 x^2 where |x| < 1, else |x| - 0.5 (thesis eq. 2.3)."""
    size = tf.abs(errors)
    return tf.where(size < 1.0, 0.5 * size * size, size - 0.5)


def masked_mean(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Mean of `values` where the bool tensor `mask` of the same shape holds; 0 where it never holds."""
    total = tf.reduce_sum(tf.where(mask, values, 0.0))
    return tf.math.divide_no_nan(total, tf.reduce_sum(tf.cast(mask, tf.float32)))


def rpn_class_loss(match: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Log loss of object against background over the sampled anchors.

    Args:
        match: int `(batch, anchors)`: 1 object, -1 background, 0 not used.
        logits: float `(batch, anchors, 2)`.

    Returns:
        Scalar.

    Reference:
        Ren et al. 2015, eq. 1, first term.
    """
    labels = tf.cast(match == 1, tf.int32)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return masked_mean(losses, match != 0)


def rpn_bbox_loss(match: tf.Tensor, target_deltas: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
    """Smooth L1 loss of the anchors' deltas over the sampled objects (thesis eq. 2.2).

    Args:
        match: int `(batch, anchors)`.
        target_deltas: float `(batch, anchors, 4)`.
        deltas: float `(batch, anchors, 4)`.

    Returns:
        Scalar, the mean over coordinates too.
    """
    losses = tf.reduce_mean(smooth_l1(target_deltas - deltas), axis=-1)
    return masked_mean(losses, match == 1)


def head_class_loss(class_ids: tf.Tensor, valid: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Log loss of the class over the sampled RoIs (thesis 2.4.1, -log p_u).

    Args:
        class_ids: int `(batch, rois)`, 0 for background.
        valid: bool `(batch, rois)`, False for padding.
        logits: float `(batch, rois, classes)`.

    Returns:
        Scalar.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits)
    return masked_mean(losses, valid)


def head_bbox_loss(class_ids: tf.Tensor, target_deltas: tf.Tensor, deltas: tf.Tensor) -> tf.Tensor:
    """Smooth L1 loss of the true class' deltas over the positive RoIs (thesis eq. 2.2).

    Args:
        class_ids: int `(batch, rois)`.
        target_deltas: float `(batch, rois, 4)`.
        deltas: float `(batch, rois, classes, 4)`.

    Returns:
        Scalar, the mean over coordinates too.
    """
    chosen = tf.gather(deltas, class_ids, axis=2, batch_dims=2)
    losses = tf.reduce_mean(smooth_l1(target_deltas - chosen), axis=-1)
    return masked_mean(losses, class_ids > 0)


def head_mask_loss(class_ids: tf.Tensor, target_masks: tf.Tensor, masks: tf.Tensor) -> tf.Tensor:
    """Mean binary cross-entropy of the true class' mask over the positive RoIs (thesis eq. 2.4).

    Args:
        class_ids: int `(batch, positives)`, 0 for padding.
        target_masks: float `(batch, positives, height, width)` of 0 and 1.
        masks: float `(batch, positives, height, width, classes)`, probabilities.

    Returns:
        Scalar.
    """
    one_hot = tf.one_hot(class_ids, masks.shape[-1])[:, :, tf.newaxis, tf.newaxis, :]
    chosen = tf.reduce_sum(masks * one_hot, axis=-1)
    losses = tf.reduce_mean(keras.ops.binary_crossentropy(target_masks, chosen), axis=(2, 3))
    return masked_mean(losses, class_ids > 0)
