"""The detection network as one functional model with Matterport's inputs, outputs and layer names."""

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.molding import META_FIELDS
from mrcnn.network import boxes as box_ops
from mrcnn.network.assembly import DetectorParts
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.proposals import ProposalLayer
from mrcnn.network.roi_align import PyramidROIAlign
from mrcnn.training.weights import LoadReport, load_by_name, save_matterport


@keras.saving.register_keras_serializable("mrcnn")
class AlignBatch(PyramidROIAlign):
    """RoIAlign of a fixed number of RoIs for each image, padding too, as Matterport's layer takes them."""

    def call(self, rois: tf.Tensor, feature_maps: list, images: tf.Tensor) -> tf.Tensor:
        """Crop `(batch, num_rois, 4)` normalised RoIs: `(batch * num_rois, pool, pool, channels)`."""
        shape = tf.shape(rois)
        batch_index = tf.repeat(tf.range(shape[0]), shape[1])
        return super().call(tf.reshape(rois, (-1, 4)), batch_index, feature_maps, tf.shape(images)[1:3])

    def compute_output_spec(self, rois: Any, feature_maps: list, images: Any) -> keras.KerasTensor:
        """Shape of the crops."""
        return keras.KerasTensor((None, self.pool_size, self.pool_size, feature_maps[0].shape[-1]), "float32")


@keras.saving.register_keras_serializable("mrcnn")
class MetaWindow(keras.layers.Layer):
    """Windows of image meta rows `(batch, 12 + classes)`, normalised: float `(batch, 4)`."""

    def call(self, image_meta: tf.Tensor) -> tf.Tensor:
        """Read and normalise them by the shape that the first row names."""
        image_meta = tf.cast(image_meta, tf.float32)
        return box_ops.normalized_boxes(image_meta[:, 7:11], image_meta[0, 4:6])

    def compute_output_spec(self, image_meta: Any) -> keras.KerasTensor:
        """Four numbers for each image."""
        return keras.KerasTensor((image_meta.shape[0], 4), "float32")


@keras.saving.register_keras_serializable("mrcnn")
class FirstOfBatch(keras.layers.Layer):
    """The first image's anchors `(anchors, 4)` of a batch of them, which are all alike."""

    def call(self, anchors: tf.Tensor) -> tf.Tensor:
        """Take them."""
        return anchors[0]

    def compute_output_spec(self, anchors: Any) -> keras.KerasTensor:
        """As the input, less the batch."""
        return keras.KerasTensor(anchors.shape[1:], "float32")


@keras.saving.register_keras_serializable("mrcnn")
class PerImage(keras.layers.Layer):
    """Lay rows of RoIs back in images: `(batch * rois, ...)` -> `(batch, rois, ...)`.

    Args:
        num_rois: of each image.
    """

    def __init__(self, num_rois: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_rois = int(num_rois)

    def call(self, rows: tf.Tensor) -> tf.Tensor:
        """Reshape."""
        return tf.reshape(rows, tf.concat([[-1, self.num_rois], tf.shape(rows)[1:]], axis=0))

    def compute_output_spec(self, rows: Any) -> keras.KerasTensor:
        """One axis more."""
        return keras.KerasTensor((None, self.num_rois, *rows.shape[1:]), rows.dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {**super().get_config(), "num_rois": self.num_rois}


@keras.saving.register_keras_serializable("mrcnn")
class ProposalSteps(ProposalLayer):
    """What lies between anchors and proposals, for people who look at them."""

    def call(self, inputs: list) -> dict[str, tf.Tensor]:
        """Take the inputs of `ProposalLayer`.

        Returns:
            By Matterport's names: the best anchors, the same moved by their deltas, and clipped to the image, each
            normalised `(batch, limit, 4)`; and int32 `(kept,)`, those that the suppression leaves in the first image.
        """
        scores, anchors, refined, clipped = self.candidates(inputs)
        return {
            "pre_nms_anchors": anchors,
            "refined_anchors": refined,
            "refined_anchors_clipped": clipped,
            "rpn_non_max_suppression": self.survivors(clipped[0], scores[0]),
        }

    def compute_output_spec(self, inputs: list) -> dict[str, keras.KerasTensor]:
        """Shapes of the steps."""
        boxes = ("pre_nms_anchors", "refined_anchors", "refined_anchors_clipped")
        steps = {name: keras.KerasTensor((inputs[0].shape[0], None, 4), "float32") for name in boxes}
        return {**steps, "rpn_non_max_suppression": keras.KerasTensor((None,), "int32")}


class MatterportGraph(keras.Model):
    """A functional model that saves and loads `.h5` files in Matterport's layout.

    Attributes:
        proposal_steps: tensors on the way to the proposals, see `ProposalSteps`; set by `build_matterport_graph`.
    """

    proposal_steps: dict[str, Any] = {}

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
        layers: list[keras.layers.Layer] = []
        for layer in self.layers:
            layers += layer.layers if isinstance(layer, keras.Model) else [layer]
        return [layer for layer in layers if layer.weights]


def build_matterport_graph(parts: DetectorParts, config: Config) -> MatterportGraph:
    """Wire the parts as Matterport's inference model.

    It runs the mask head on padding too and so takes several times as long as `FeatureNetwork`; it is there for code
    that asks for layers and tensors by Matterport's names.

    Args:
        parts: the weights, shared.
        config: sizes and thresholds.

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
    scored = [parts.rpn(levels[i]) for i in parts.rpn_levels]
    join = keras.layers.Concatenate
    rpn_logits = _join(join(axis=1, name="rpn_class_logits"), [logits for logits, _ in scored])
    rpn_class = keras.layers.Softmax(name="rpn_class")(rpn_logits)
    rpn_bbox = _join(join(axis=1, name="rpn_bbox"), [deltas for _, deltas in scored])
    scored = [rpn_class, rpn_bbox, FirstOfBatch(name="anchors")(anchors)]
    num_rois = config.POST_NMS_ROIS_INFERENCE
    rois = ProposalLayer.from_settings(config, num_rois, name="ROI")(scored)

    maps = levels[:4]
    roi_features = AlignBatch(config.POOL_SIZE, config.ROI_ALIGN, name="roi_align_classifier")(
        rois, feature_maps=maps, images=image
    )
    # `call` lays the head's own layers into this graph, where a call of the head would be one layer.
    logits, deltas = parts.box_head.call(roi_features)
    probabilities = keras.layers.Softmax(name="mrcnn_class_softmax")(logits)
    mrcnn_class = PerImage(num_rois, name="mrcnn_class")(probabilities)
    mrcnn_bbox = PerImage(num_rois, name="mrcnn_bbox_per_image")(deltas)
    detections = DetectionLayer.from_settings(config, name="mrcnn_detection")(
        [rois, mrcnn_class, mrcnn_bbox, MetaWindow(name="windows")(meta)]
    )
    mask_features = AlignBatch(config.MASK_POOL_SIZE, config.ROI_ALIGN, name="roi_align_mask")(
        detections[..., :4], feature_maps=maps, images=image
    )
    masks = parts.mask_head.call(mask_features)
    mrcnn_mask = PerImage(config.DETECTION_MAX_INSTANCES, name="mrcnn_mask_per_image")(masks)
    outputs = [detections, mrcnn_class, mrcnn_bbox, mrcnn_mask, rois, rpn_class, rpn_bbox]
    graph = MatterportGraph([image, meta, anchors], outputs, name="mask_rcnn")
    graph.proposal_steps = ProposalSteps.from_settings(config, num_rois, name="ROI_steps")(scored)
    return graph


def _join(layer: keras.layers.Layer, tensors: list) -> Any:
    return layer(tensors) if len(tensors) > 1 else tensors[0]


# How TensorFlow 1 named the last operation of a layer, which notebooks write after the layer's name.
LAST_OPERATIONS = ("add", "BiasAdd", "concat", "Relu", "Reshape", "Sigmoid", "Softmax", "stack", "truediv")


def compute_tensors(
    graph: MatterportGraph, outputs: Sequence[tuple[str, Any]], inputs: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute tensors for a batch of molded images.

    Args:
        graph: the network.
        outputs: names of your choice, and tensors that a layer's `output` or `find_ancestor` gave.
        inputs: as the graph takes them.

    Returns:
        The values by these names, in their order. The heads' have RoIs by image, `(batch, rois, ...)`.

    Raises:
        ValueError: if a tensor is None or not part of the network.
    """
    missing = [name for name, tensor in outputs if tensor is None]
    if missing:
        raise ValueError(f"{', '.join(missing)}: None instead of a tensor; no layer of that name was found")
    tensors = _tensors_of_graph(graph, [tensor for _, tensor in outputs])
    network = keras.Model(graph.inputs, tensors)
    values = network(list(inputs), training=False)
    values = values if isinstance(values, (list, tuple)) else [values]
    rows = _tensors_in_rows(graph)
    found = {}
    for (name, _), tensor, value in zip(outputs, tensors, values, strict=True):
        value = np.asarray(value)
        by_image = (len(inputs[0]), -1, *value.shape[1:])
        found[name] = value.reshape(by_image) if id(tensor) in rows else value
    return found


def find_ancestor(graph: MatterportGraph, tensor: Any, name: str) -> Any:
    """The tensor of a certain name on the way to `tensor`, or None.

    Args:
        graph: the network.
        tensor: where the search begins.
        name: of a layer; "layer:0" and "layer/Relu:0", as TensorFlow 1 named its output, are the same, and
            "ROI/pre_nms_anchors", "ROI/refined_anchors", "ROI/refined_anchors_clipped" and
            "ROI/rpn_non_max_suppression" are steps of the proposals.
    """
    layer, _, step = name.split(":")[0].partition("/")
    waiting, seen = [tensor], set()
    while waiting:
        current = waiting.pop(0)
        operation, node_index, _ = current._keras_history
        if operation.name == layer:
            if not step or step in LAST_OPERATIONS:
                return current
            return graph.proposal_steps.get(step.split("/")[0]) if layer == "ROI" else None
        if id(current) not in seen:
            seen.add(id(current))
            waiting += operation._inbound_nodes[node_index].input_tensors
    return None


def _tensors_of_graph(graph: MatterportGraph, tensors: Sequence[Any]) -> list[Any]:
    """Find the tensors of this graph for tensors that `layer.output` gave.

    A layer that was first called in a head of its own has its `output` there; what is wanted is what it puts out here.

    Raises:
        ValueError: if a tensor's layer is not part of the graph.
    """
    of_graph = {id(tensor) for nodes in graph._nodes_by_depth.values() for node in nodes for tensor in node.outputs}
    of_graph |= {id(tensor) for tensor in graph.proposal_steps.values()}
    found = []
    for tensor in tensors:
        operation, _, index = tensor._keras_history
        candidates = [node.outputs[index] for node in operation._inbound_nodes]
        here = [candidate for candidate in [tensor, *candidates] if id(candidate) in of_graph]
        if not here:
            raise ValueError(f"layer {operation.name} is not part of the detection network")
        found.append(here[0])
    # Matterport's names of the heads' last layers stand for what is by image already.
    by_image = {id(layer.input): layer.output for layer in graph.layers if isinstance(layer, PerImage)}
    return [by_image.get(id(tensor), tensor) for tensor in found]


def _tensors_in_rows(graph: MatterportGraph) -> set[int]:
    """Ids of the tensors whose first axis counts the RoIs of all images: from RoIAlign to where images part again."""
    rows: set[int] = set()
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            follows = any(id(tensor) in rows for tensor in node.input_tensors)
            if isinstance(node.operation, AlignBatch) or (follows and not isinstance(node.operation, PerImage)):
                rows |= {id(tensor) for tensor in node.outputs}
    return rows
