"""The losses of the detector (thesis eq. 2.1-2.4).

Each is a mean over what it applies to (a box's coordinates and a mask's pixels are averaged first), and 0 where nothing
applies, so that an image without cells gives no NaN. Sum and count are returned apart: over several devices both are
added up before one is divided by the other, so that a step does not depend on how many devices share the batch.
"""

from typing import NamedTuple

import keras
import tensorflow as tf


class LossSum(NamedTuple):
    """A loss before it is averaged."""

    total: tf.Tensor  # scalar, the sum over what the loss applies to
    count: tf.Tensor  # float scalar, how many these are; carries no gradient

    def mean(self) -> tf.Tensor:
        """The loss: total / count, or 0 where nothing applies."""
        return tf.math.divide_no_nan(self.total, self.count)


def masked_sum(values: tf.Tensor, mask: tf.Tensor) -> LossSum:
    """Sum of `values` where the bool tensor `mask` of the same shape holds, and how often it does."""
    return LossSum(tf.reduce_sum(tf.where(mask, values, 0.0)), tf.reduce_sum(tf.cast(mask, tf.float32)))


def rpn_class_loss(match: tf.Tensor, logits: tf.Tensor) -> LossSum:
    """Log loss of object against background over the sampled anchors (Ren et al. 2015, eq. 1, first term).

    `match`, int `(batch, anchors)`, is 1 for an object, -1 for background, 0 if not used; `logits` are `(..., 2)`.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(tf.cast(match == 1, tf.int32), logits)
    return masked_sum(losses, match != 0)


def rpn_bbox_loss(match: tf.Tensor, target_deltas: tf.Tensor, deltas: tf.Tensor) -> LossSum:
    """Smooth L1 (Huber) loss of the deltas `(batch, anchors, 4)` over the sampled objects (thesis eq. 2.2, 2.3)."""
    return masked_sum(keras.losses.huber(target_deltas, deltas), match == 1)


def head_class_loss(class_ids: tf.Tensor, valid: tf.Tensor, logits: tf.Tensor, active_class_ids: tf.Tensor) -> LossSum:
    """Log loss of the class over the sampled RoIs (thesis 2.4.1, -log p_u).

    An RoI that the network takes for a class which its image's data set does not annotate is left out: it may be one.

    Args:
        class_ids: int `(batch, rois)`, 0 for background.
        valid: bool `(batch, rois)`, False for padding.
        logits: float `(batch, rois, classes)`.
        active_class_ids: `(batch, classes)`, 1 for classes that the image's data set annotates, else 0.
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(class_ids, logits)
    predicted = tf.argmax(logits, axis=-1, output_type=tf.int32)
    active = tf.gather(active_class_ids, predicted, batch_dims=1) > 0
    return masked_sum(losses, valid & active)


def head_bbox_loss(class_ids: tf.Tensor, target_deltas: tf.Tensor, deltas: tf.Tensor) -> LossSum:
    """Smooth L1 (Huber) loss of the true class' deltas over the positive RoIs (thesis eq. 2.2, 2.3).

    `class_ids` are int `(batch, rois)`, `target_deltas` `(batch, rois, 4)`, `deltas` `(batch, rois, classes, 4)`.
    """
    chosen = tf.gather(deltas, class_ids, axis=2, batch_dims=2)
    return masked_sum(keras.losses.huber(target_deltas, chosen), class_ids > 0)


def head_mask_loss(class_ids: tf.Tensor, target_masks: tf.Tensor, has_part: tf.Tensor, masks: tf.Tensor) -> LossSum:
    """Mean binary cross-entropy of the true class' masks, a mask for each part (thesis eq. 2.4).

    Args:
        class_ids: int `(rois,)`, the class whose masks are looked at.
        target_masks: float `(rois, height, width, parts)` of 0 and 1.
        has_part: bool `(rois, parts)`, whether the part is known; False for padding.
        masks: float `(rois, height, width, classes * parts)`, probabilities.
    """
    chosen = masks_of_class(masks, class_ids, target_masks.shape[-1])
    losses = tf.reduce_mean(keras.ops.binary_crossentropy(target_masks, chosen), axis=(1, 2))
    return masked_sum(losses, has_part)


def masks_of_class(masks: tf.Tensor, class_ids: tf.Tensor, num_parts: int) -> tf.Tensor:
    """The masks `(rois, height, width, parts)` of a class each, of what the mask head gives for all classes."""
    height, width = masks.shape[1:3]
    by_class = tf.reshape(masks, (-1, height, width, masks.shape[3] // num_parts, num_parts))
    return tf.gather(tf.transpose(by_class, (0, 3, 1, 2, 4)), class_ids, batch_dims=1)
