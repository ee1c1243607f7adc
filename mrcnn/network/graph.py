"""The detection network as one functional graph with Matterport's inputs, outputs and layer names."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.molding import META_FIELDS
from mrcnn.network.assembly import DetectorParts
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.roi_align import PyramidROIAlign


@keras.saving.register_keras_serializable("mrcnn")
class PerRoI(keras.layers.Wrapper):
    """A layer of a head, by whose name it goes, on every RoI of every image: `(batch, num_rois, ...)`.

    Keras' TimeDistributed, which Matterport's heads are made of, takes one RoI after the other.
    """

    def __init__(self, layer: keras.layers.Layer, **kwargs: Any):
        super().__init__(layer, **{"name": layer.name, **kwargs})

    def build(self, input_shape: tuple) -> None:
        """Build the layer for the RoIs in a row."""
        super().build((None, *input_shape[2:]))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Compute all RoIs as one batch."""
        outputs = self.layer(keras.ops.reshape(inputs, (-1, *inputs.shape[2:])))
        return keras.ops.reshape(outputs, (-1, inputs.shape[1], *outputs.shape[1:]))


@keras.saving.register_keras_serializable("mrcnn")
class AlignBatch(PyramidROIAlign):
    """RoIAlign of a fixed number of RoIs for each image, padding too, as Matterport's layer takes them."""

    def call(self, rois: tf.Tensor, feature_maps: list, images: tf.Tensor) -> tf.Tensor:
        """Crop `(batch, num_rois, 4)` normalised RoIs: `(batch, num_rois, pool, pool, channels)`."""
        shape = tf.shape(rois)
        batch_index = tf.repeat(tf.range(shape[0]), shape[1])
        crops = super().call(tf.reshape(rois, (-1, 4)), batch_index, feature_maps, tf.shape(images)[1:3])
        return tf.reshape(crops, (-1, rois.shape[1], *crops.shape[1:]))


@keras.saving.register_keras_serializable("mrcnn")
class ProposalSteps(ProposalLayer):
    """The proposals, and what lies between anchors and proposals, for people who look at it."""

    STEPS = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped", "rois", "rpn_non_max_suppression")

    def call(self, inputs: list) -> dict[str, tf.Tensor]:
        """Give by Matterport's names, for the inputs of `ProposalLayer`, the normalised boxes `(batch, limit, 4)`.

        They are the best anchors, the same moved by their deltas, and clipped to the image, and "rois", the proposals;
        besides int32 `(kept,)`, those that the suppression leaves in the first image.
        """
        scores, anchors, refined, clipped = self.candidates(inputs)
        kept = self.survivors(clipped[0], scores[0])
        return dict(zip(self.STEPS, (anchors, refined, clipped, super().call(inputs), kept), strict=True))


def detector_graph(parts: DetectorParts, config: Config) -> tuple[list, list]:
    """Wire the parts as Matterport's inference model, for code that asks for its layers and tensors by name.

    It shares the weights. It runs the mask head on padding too, and so takes several times as long as `FeatureNetwork`.

    Returns:
        Inputs: input_image `(batch, H, W, channels)` with the mean subtracted, input_image_meta
        `(batch, 12 + classes)`, input_anchors `(batch, anchors, 4)` normalised. Outputs: mrcnn_detection
        `(batch, max_detections, 6)`, mrcnn_class `(batch, rois, classes)`, mrcnn_bbox `(batch, rois, classes, 4)`,
        mrcnn_mask `(batch, max_detections, h, w, classes)`, ROI `(batch, rois, 4)`, rpn_class `(batch, anchors, 2)`,
        rpn_bbox `(batch, anchors, 4)`.
    """
    image = parts.pyramid_network.input
    meta = keras.Input((META_FIELDS + config.NUM_CLASSES,), name="input_image_meta")
    anchors = keras.Input((None, 4), name="input_anchors")
    levels = parts.pyramid_network.outputs
    rpn_logits, rpn_bbox = zip(*(parts.rpn(levels[i]) for i in parts.rpn_levels), strict=True)
    rpn_logits = keras.layers.Concatenate(axis=1, name="rpn_class_logits")(rpn_logits)
    rpn_class = keras.layers.Softmax(name="rpn_class")(rpn_logits)
    rpn_bbox = keras.layers.Concatenate(axis=1, name="rpn_bbox")(rpn_bbox)
    # The anchors of all images of a batch are alike.
    layer = ProposalSteps.from_settings(config, config.POST_NMS_ROIS_INFERENCE, name="ROI_steps")
    steps = layer([rpn_class, rpn_bbox, anchors[0]])
    rois = keras.layers.Identity(name="ROI")(steps["rois"])

    align = AlignBatch(config.POOL_SIZE, config.ROI_ALIGN, name="roi_align_classifier")
    logits, mrcnn_bbox = _per_roi(parts.box_head, align(rois, feature_maps=levels[:4], images=image))
    mrcnn_class = keras.layers.Softmax(name="mrcnn_class")(logits)
    window = (meta[:, 7:11] - np.float32([0, 0, 1, 1])) / (keras.ops.tile(meta[:, 4:6], (1, 2)) - 1.0)  # normalised
    layer = DetectionLayer.from_settings(config, name="mrcnn_detection")
    detections = layer([rois, mrcnn_class, mrcnn_bbox, window])
    align = AlignBatch(config.MASK_POOL_SIZE, config.ROI_ALIGN, name="roi_align_mask")
    mrcnn_mask = _per_roi(parts.mask_head, align(detections[..., :4], feature_maps=levels[:4], images=image))
    if len(config.MASK_PARTS) > 1:
        mrcnn_mask = mrcnn_mask[..., :: len(config.MASK_PARTS)]  # of the whole instances alone
    return [image, meta, anchors], [detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rois, rpn_class, rpn_bbox]


def _per_roi(head: keras.Model, roi_features: Any) -> Any:
    """Lay the layers of a head into the graph of `roi_features`, each with a single place in it."""
    found = {id(head.input): roi_features}
    for layer in head.layers[1:]:  # the first is the input
        found[id(layer.output)] = PerRoI(layer)(found[id(layer.input)])
    outputs = [found[id(tensor)] for tensor in head.outputs]
    return outputs if len(outputs) > 1 else outputs[0]
