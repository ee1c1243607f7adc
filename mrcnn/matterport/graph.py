"""The detection network as one functional model with Matterport's inputs, outputs and layer names."""

import os
from collections.abc import Sequence
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
from mrcnn.training.weights import LoadReport, load_by_name, save_matterport

# How TensorFlow 1 named the last operation of a layer, which notebooks write after the layer's name.
LAST_OPERATIONS = ("add", "BiasAdd", "concat", "Relu", "Reshape", "Sigmoid", "Softmax", "stack", "truediv")


@keras.saving.register_keras_serializable("mrcnn")
class AlignBatch(PyramidROIAlign):
    """RoIAlign of a fixed number of RoIs for each image, padding too, as Matterport's layer takes them."""

    def call(self, rois: tf.Tensor, feature_maps: list, images: tf.Tensor) -> tf.Tensor:
        """Crop `(batch, num_rois, 4)` normalised RoIs: `(batch * num_rois, pool, pool, channels)`."""
        shape = tf.shape(rois)
        batch_index = tf.repeat(tf.range(shape[0]), shape[1])
        return super().call(tf.reshape(rois, (-1, 4)), batch_index, feature_maps, tf.shape(images)[1:3])


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


@keras.saving.register_keras_serializable("mrcnn")
class MatterportGraph(keras.Model):
    """A functional model that saves and loads `.h5` files in Matterport's layout.

    Attributes:
        row_layers: names of the layers whose first axis counts the RoIs of all images.
    """

    row_layers: frozenset[str] = frozenset()

    def save_weights(self, filepath: str | os.PathLike, overwrite: bool = True, **kwargs: Any) -> None:
        """Save in Matterport's layout, or as Keras does if the name ends in `.weights.h5`."""
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
        """Every layer with weights, those of the nested proposal network too."""
        nested = [layer.layers if isinstance(layer, keras.Model) else [layer] for layer in self.layers]
        return [layer for layers in nested for layer in layers if layer.weights]

    def compute(self, outputs: Sequence[tuple[str, Any]], inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Compute tensors for a batch of molded images; the rest is as of `MaskRCNN.run_graph`."""
        tensors = [self._tensor_here(name, tensor) for name, tensor in outputs]
        values = keras.tree.flatten(keras.Model(self.inputs, tensors)(list(inputs), training=False))
        found = {}
        for (name, _), tensor, value in zip(outputs, tensors, map(np.asarray, values), strict=True):
            in_rows = tensor._keras_history.operation.name in self.row_layers
            found[name] = value.reshape((len(inputs[0]), -1, *value.shape[1:])) if in_rows else value
        return found

    def _tensor_here(self, name: str, tensor: Any) -> Any:
        """The tensor of this graph for one that `layer.output` gave: its head may have called the layer before."""
        if tensor is None:
            raise ValueError(f"{name}: None instead of a tensor; no layer of that name was found")
        operation, _, index = tensor._keras_history
        if operation not in self.operations:
            raise ValueError(f"layer {operation.name} is not part of the detection network")
        return operation._inbound_nodes[-1].output_tensors[index]

    def ancestor(self, tensor: Any, name: str) -> Any:
        """The tensor of a certain name on the way to `tensor`, or None.

        The name is that of a layer; "layer:0" and "layer/Relu:0", as TensorFlow 1 named its output, are the same. After
        "ROI/" stand steps of the proposals, such as "ROI/refined_anchors".
        """
        layer, _, step = name.split(":")[0].partition("/")
        waiting, seen = [tensor], set()
        while waiting:
            current = waiting.pop(0)
            operation, node_index, _ = current._keras_history
            if operation.name == layer and (not step or step in LAST_OPERATIONS):
                return current
            if operation.name == layer == "ROI":
                steps = dict(zip(ProposalSteps.STEPS, self.get_layer("ROI_steps").output, strict=True))
                return steps.get(step.split("/")[0])
            if id(current) not in seen:
                seen.add(id(current))
                waiting += operation._inbound_nodes[node_index].input_tensors
        return None


def build_matterport_graph(parts: DetectorParts, config: Config) -> MatterportGraph:
    """Wire the parts as Matterport's inference model, for code that asks for its layers and tensors by name.

    It shares the weights. It runs the mask head on padding too, and so takes several times as long as `FeatureNetwork`.

    Returns:
        Model from [input_image `(batch, H, W, channels)` with the mean subtracted, input_image_meta
        `(batch, 12 + classes)`, input_anchors `(batch, anchors, 4)` normalised] to [mrcnn_detection
        `(batch, max_detections, 6)`, mrcnn_class `(batch, rois, classes)`, mrcnn_bbox `(batch, rois, classes, 4)`,
        mrcnn_mask `(batch, max_detections, h, w, classes)`, ROI `(batch, rois, 4)`, rpn_class `(batch, anchors, 2)`,
        rpn_bbox `(batch, anchors, 4)`].
    """
    image = parts.pyramid_network.input
    meta = keras.Input((META_FIELDS + config.NUM_CLASSES,), name="input_image_meta")
    anchors = keras.Input((None, 4), name="input_anchors")
    levels = parts.pyramid_network.outputs
    rpn_logits, rpn_bbox = zip(*(parts.rpn(levels[i]) for i in parts.rpn_levels), strict=True)
    rpn_logits = keras.layers.Concatenate(axis=1, name="rpn_class_logits")(rpn_logits)
    rpn_class = keras.layers.Softmax(name="rpn_class")(rpn_logits)
    rpn_bbox = keras.layers.Concatenate(axis=1, name="rpn_bbox")(rpn_bbox)
    num_rois = config.POST_NMS_ROIS_INFERENCE
    # The anchors of all images of a batch are alike.
    steps = ProposalSteps.from_settings(config, num_rois, name="ROI_steps")([rpn_class, rpn_bbox, anchors[0]])
    rois = keras.layers.Identity(name="ROI")(steps["rois"])

    align = AlignBatch(config.POOL_SIZE, config.ROI_ALIGN, name="roi_align_classifier")
    # `call` lays the head's own layers into this graph, where a call of the head would be one layer.
    logits, deltas = parts.box_head.call(align(rois, feature_maps=levels[:4], images=image))
    mrcnn_class = keras.layers.Softmax(name="mrcnn_class")(_by_image(logits, num_rois))
    mrcnn_bbox = _by_image(deltas, num_rois)
    window = (meta[:, 7:11] - np.float32([0, 0, 1, 1])) / (keras.ops.tile(meta[:, 4:6], (1, 2)) - 1.0)  # normalised
    layer = DetectionLayer.from_settings(config, name="mrcnn_detection")
    detections = layer([rois, mrcnn_class, mrcnn_bbox, window])
    align_masks = AlignBatch(config.MASK_POOL_SIZE, config.ROI_ALIGN, name="roi_align_mask")
    masks = parts.mask_head.call(align_masks(detections[..., :4], feature_maps=levels[:4], images=image))
    mrcnn_mask = _by_image(masks, config.DETECTION_MAX_INSTANCES)
    outputs = [detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rois, rpn_class, rpn_bbox]
    graph = MatterportGraph([image, meta, anchors], outputs, name="mask_rcnn")
    in_rows = (align, align_masks, *parts.box_head.layers, *parts.mask_head.layers)
    graph.row_layers = frozenset(layer.name for layer in in_rows)
    return graph


def _by_image(rows: Any, num_rois: int) -> Any:
    """Lay rows of RoIs back in images: `(batch * num_rois, ...)` -> `(batch, num_rois, ...)`."""
    return keras.ops.reshape(rows, (-1, num_rois, *rows.shape[1:]))
