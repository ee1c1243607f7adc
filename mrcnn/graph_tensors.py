"""Finding and computing tensors of `MaskRCNN.keras_model`, as Matterport's notebooks do to look inside."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.matterport_graph import AlignBatch, MatterportGraph, PerImage

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
