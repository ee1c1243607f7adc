"""Region proposals: the head that scores anchors, and the layer that turns scores into RoIs."""

from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops


def rpn_head(channels: int, num_ratios: int, anchor_stride: int, hidden: int = 512) -> keras.Model:
    """Build the head that every pyramid level shares, with `hidden` channels between.

    Returns:
        Model from one level `(batch, height, width, channels)` to logits `(batch, anchors, 2)` (background,
        object) and deltas `(batch, anchors, 4)` in units of `RPN_BBOX_STD_DEV`.

    Reference:
        Ren et al. 2015, section 3.1.
    """
    level = keras.Input((None, None, channels), name="input_rpn_feature_map")
    shared = {"strides": anchor_stride, "padding": "same", "activation": "relu"}
    x = keras.layers.Conv2D(hidden, 3, **shared, name="rpn_conv_shared")(level)
    logits = keras.layers.Conv2D(2 * num_ratios, 1, name="rpn_class_raw", dtype="float32")(x)
    deltas = keras.layers.Conv2D(4 * num_ratios, 1, name="rpn_bbox_pred", dtype="float32")(x)
    logits = keras.layers.Reshape((-1, 2), name="rpn_class_logits")(logits)
    deltas = keras.layers.Reshape((-1, 4), name="rpn_bbox")(deltas)
    return keras.Model(level, [logits, deltas], name="rpn_model")


@keras.saving.register_keras_serializable("mrcnn")
class ProposalLayer(keras.layers.Layer):
    """Choose the best RoIs from scored anchors.

    Args:
        num_proposals: rows of the result.
        nms_iou_threshold: of two proposals that overlap more than this, the better one stays.
        pre_nms_limit: only that many best anchors enter the suppression.
        bbox_std_dev: four factors that the deltas are multiplied by.
    """

    def __init__(
        self, num_proposals: int, nms_iou_threshold: float, pre_nms_limit: int, bbox_std_dev: tuple, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.num_proposals, self.nms_iou_threshold, self.pre_nms_limit = num_proposals, nms_iou_threshold, pre_nms_limit
        self.bbox_std_dev = bbox_std_dev

    @classmethod
    def from_settings(cls, config: Config, num_proposals: int, **kwargs: Any) -> "ProposalLayer":
        """The layer that a configuration describes, for so many proposals: training takes more than inference."""
        deviations = tuple(map(float, config.RPN_BBOX_STD_DEV))
        return cls(num_proposals, config.RPN_NMS_THRESHOLD, config.PRE_NMS_LIMIT, deviations, **kwargs)

    def call(self, inputs: list) -> tf.Tensor:
        """Decode, clip and suppress.

        Args:
            inputs: [probabilities `(batch, anchors, 2)`, deltas `(batch, anchors, 4)`, anchors `(anchors, 4)`].

        Returns:
            Normalised boxes `(batch, num_proposals, 4)`, best first, padded with zero rows. No gradient flows back.
        """
        scores, _, _, proposals = self.candidates(inputs)
        chosen = tf.map_fn(
            self._suppress, (proposals, scores), fn_output_signature=tf.TensorSpec((self.num_proposals, 4))
        )
        return tf.stop_gradient(chosen)

    def candidates(self, inputs: list) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        """What enters the suppression, for the inputs of `call`.

        Returns:
            Scores `(batch, limit)`, best first, and normalised boxes `(batch, limit, 4)`: the anchors, the same moved
            by their deltas, and clipped to the image.
        """
        probabilities, deltas, anchors = inputs
        limit = tf.minimum(self.pre_nms_limit, tf.shape(anchors)[0])
        scores, order = tf.math.top_k(probabilities[..., 1], limit, sorted=True)
        deltas = tf.gather(deltas, order, batch_dims=1) * tf.constant(self.bbox_std_dev, tf.float32)
        best = tf.gather(anchors, order)
        refined = box_ops.decode(best, deltas)
        return scores, best, refined, box_ops.clip(refined, tf.constant([0.0, 0.0, 1.0, 1.0]))

    def survivors(self, proposals: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
        """Which boxes `(n, 4)` of one image the suppression leaves: int32 indices, best first."""
        return tf.image.non_max_suppression(proposals, scores, self.num_proposals, self.nms_iou_threshold)

    def _suppress(self, proposals_and_scores: tuple) -> tf.Tensor:
        kept = tf.gather(proposals_and_scores[0], self.survivors(*proposals_and_scores))
        return tf.pad(kept, [[0, self.num_proposals - tf.shape(kept)[0]], [0, 0]])
