"""From scored RoIs to the final detections."""

from typing import Any

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops


@keras.saving.register_keras_serializable("mrcnn")
class DetectionLayer(keras.layers.Layer):
    """Refine RoIs by their class' deltas, drop weak ones and suppress overlaps within each class.

    Args:
        max_detections: rows of the result.
        min_confidence: lowest class probability that counts as a detection.
        nms_iou_threshold: of two detections of a class that overlap more than this, the better one stays.
        bbox_std_dev: four factors that the deltas are multiplied by.
    """

    def __init__(
        self, max_detections: int, min_confidence: float, nms_iou_threshold: float, bbox_std_dev: tuple, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.max_detections, self.min_confidence = max_detections, min_confidence
        self.nms_iou_threshold, self.bbox_std_dev = nms_iou_threshold, bbox_std_dev

    @classmethod
    def from_settings(cls, config: Config, **kwargs: Any) -> "DetectionLayer":
        """The layer that a configuration describes."""
        limits = config.DETECTION_MAX_INSTANCES, config.DETECTION_MIN_CONFIDENCE, config.DETECTION_NMS_THRESHOLD
        return cls(*limits, tuple(map(float, config.BBOX_STD_DEV)), **kwargs)

    def call(self, inputs: list) -> tf.Tensor:
        """Detect.

        Args:
            inputs: [rois `(batch, n, 4)` normalised, probabilities `(batch, n, classes)`, deltas
                `(batch, n, classes, 4)`, windows `(batch, 4)` normalised: the part that is image, not padding].

        Returns:
            Float `(batch, max_detections, 6)`: normalised box, class id, score; best first, padded with zero rows.
        """
        rois, probabilities, deltas, windows = inputs
        class_ids = tf.argmax(probabilities, axis=-1, output_type=tf.int32)
        scores = tf.reduce_max(probabilities, axis=-1)
        chosen = tf.gather(deltas, class_ids, axis=2, batch_dims=2) * tf.constant(self.bbox_std_dev)
        refined = box_ops.clip(box_ops.decode(rois, chosen), windows)
        real = (box_ops.areas(rois) > 0.0) & (box_ops.areas(refined) > 0.0)
        usable = real & (class_ids > 0) & (scores >= self.min_confidence)
        scores = tf.where(usable, scores, -1.0)
        rows = tf.TensorSpec((self.max_detections, 6))
        return tf.map_fn(self._suppress, (refined, scores, class_ids), fn_output_signature=rows)

    def _suppress(self, detections: tuple) -> tf.Tensor:
        refined, scores, class_ids = detections
        # Classes are moved apart, further than any two boxes can lie, so that one suppression serves all of them.
        apart = refined + 2.0 * tf.cast(class_ids, tf.float32)[:, tf.newaxis]
        keep = tf.image.non_max_suppression(
            apart, scores, self.max_detections, self.nms_iou_threshold, score_threshold=0.0
        )
        rows = tf.concat([refined, tf.cast(class_ids, tf.float32)[:, tf.newaxis], scores[:, tf.newaxis]], axis=-1)
        kept = tf.gather(rows, keep)
        return tf.pad(kept, [[0, self.max_detections - tf.shape(kept)[0]], [0, 0]])
