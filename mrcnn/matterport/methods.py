"""Methods of `MaskRCNN` that only Matterport's notebooks and third-party scripts call."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.data.molding import (
    DetectionFrame,
    compose_image_meta,
    mold_for_detection,
    mold_image,
    parse_image_meta,
    unmold_detections,
)
from mrcnn.files.errors import InputError
from mrcnn.network.anchors import pixel_anchors
from mrcnn.network.assembly import DetectorParts
from mrcnn.network.boxes import normalized_boxes
from mrcnn.network.graph import ProposalSteps
from mrcnn.training.step import DetectorModel

# How TensorFlow 1 named the last operation of a layer, which notebooks write after the layer's name.
LAST_OPERATIONS = ("", "add", "BiasAdd", "concat", "Relu", "Reshape", "Sigmoid", "Softmax", "stack", "truediv")


def log(text: str, array: np.ndarray | None = None) -> None:
    """Print a text and, if given, the shape, range and type of an array."""
    if array is not None:
        limits = f"min: {array.min():10.5f}  max: {array.max():10.5f}" if array.size else "empty"
        text = f"{text:25}  shape: {array.shape!s:20}  {limits}  {array.dtype}"
    print(text)


def log_images(images: Sequence[np.ndarray], verbose: int) -> None:
    """Print what a batch holds, if `verbose`."""
    if verbose:
        log(f"Processing {len(images)} images")
        for image in images:
            log("image", np.asarray(image))


class MatterportMethods:
    """What looks into the network: its layers, tensors, anchors, and images as it takes them."""

    parts: DetectorParts
    config: Config
    strategy: tf.distribute.Strategy
    _detection: Any
    _anchor_shape: tuple[int, ...]

    @cached_property
    def keras_model(self) -> DetectorModel:
        """The network as one functional model with Matterport's layer names, which `train` trains."""
        with self.strategy.scope():
            return DetectorModel.of_parts(self.parts, self.config)

    def detect_molded(
        self, molded_images: np.ndarray, image_metas: np.ndarray, verbose: int = 0
    ) -> list[dict[str, np.ndarray]]:
        """Find the cells of images as `mold_inputs` makes them: as of `detect`, in pixels of the molded images."""
        log_images(molded_images, verbose)
        batch = np.asarray(molded_images, np.float32) + np.asarray(self.config.MEAN_PIXEL, np.float32)
        height, width = self._anchor_shape = batch.shape[1:3]
        windows = parse_image_meta(image_metas)["window"].astype(np.float32)
        frame = DetectionFrame((height, width), (0, 0, height, width), (height, width))
        return self._detection.on_batch(batch, windows, [frame] * len(batch), True, True)

    def mold_inputs(self, images: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Resize images, to one size, and subtract the mean.

        Returns:
            Images float32 (batch, height, width, channels); metas (batch, 12 + num_classes); windows int (batch, 4),
            pixels.
        """
        molded = [mold_for_detection(image, self.config) for image in images]
        if len({m.image.shape for m in molded}) > 1:
            raise InputError("these images have different sizes after resizing and make no batch; give them one by one")
        metas = []
        for image, m in zip(images, molded, strict=True):
            shape = (*np.shape(image)[:2], m.image.shape[2])
            metas.append(compose_image_meta(0, shape, m.image.shape, m.window, m.scale, [0] * self.config.NUM_CLASSES))
        subtracted = np.stack([mold_image(m.image, self.config) for m in molded])
        return subtracted, np.stack(metas), np.array([m.window for m in molded])

    def unmold_detections(
        self,
        detections: np.ndarray,
        mrcnn_mask: np.ndarray,
        original_image_shape: Sequence[int],
        image_shape: Sequence[int],
        window: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Bring one image's output of `keras_model` to the image, of which the shapes are before and after resizing.

        Returns:
            boxes int32 (n, 4), class_ids int32 (n,), scores float32 (n,), masks bool (height, width, n).
        """
        real = np.asarray(detections)[:, 4] > 0
        rows = np.asarray(detections)[real]
        small = np.asarray(mrcnn_mask)[real][np.arange(len(rows)), :, :, rows[:, 4].astype(int)]
        frame = DetectionFrame(tuple(image_shape[:2]), tuple(window), tuple(original_image_shape[:2]))
        result = unmold_detections(rows, frame, None, {"masks": small})
        return result["rois"], result["class_ids"], result["scores"], result["masks"]

    def run_graph(
        self, images: Sequence[np.ndarray], outputs: Sequence[tuple[str, Any]], image_metas: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Compute tensors of `keras_model` for some images.

        Args:
            images: as of `detect`, or molded ones if `image_metas` is given.
            outputs: names of your choice, and tensors such as `keras_model.get_layer("ROI").output`.
            image_metas: of molded images.

        Returns:
            The values by these names, in their order; the heads' have RoIs by image, `(batch, rois, ...)`. It is a
            ValueError if a tensor is None or not part of the network.
        """
        if image_metas is None:
            molded, image_metas, _ = self.mold_inputs(images)
        else:
            molded = np.asarray(images, np.float32)
        anchors = np.tile(self.get_anchors(molded.shape[1:]), (len(molded), 1, 1))
        names, tensors = zip(*outputs, strict=True)
        if None in tensors:
            raise ValueError(f"{names[tensors.index(None)]}: None instead of a tensor; no layer of that name was found")
        network = keras.Model(self.keras_model.inputs, list(tensors))
        found = keras.tree.flatten(network([molded, np.asarray(image_metas, np.float32), anchors], training=False))
        values = dict(zip(names, map(np.asarray, found), strict=True))
        for name, value in values.items():
            log(name, value)
        return values

    def get_anchors(self, image_shape: Sequence[int]) -> np.ndarray:
        """Normalised anchors of an image of (height, width, ...), float32 (num_anchors, 4); pixels in `anchors`."""
        self._anchor_shape = tuple(int(side) for side in image_shape[:2])
        return normalized_boxes(self.anchors, image_shape).numpy()

    @property
    def anchors(self) -> np.ndarray:
        """Anchors of the last image that was detected on, or of IMAGE_SHAPE: float32 (num_anchors, 4), pixels."""
        return pixel_anchors(self.config, self._anchor_shape).numpy()

    def get_trainable_layers(self) -> list[keras.layers.Layer]:
        """Every layer with weights, frozen ones too."""
        return self.parts.named_layers()

    def find_trainable_layer(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        """The layer that a wrapper wraps, or the layer itself."""
        return self.find_trainable_layer(layer.layer) if isinstance(layer, keras.layers.Wrapper) else layer

    def ancestor(self, tensor: Any, name: str) -> Any:
        """The tensor of `keras_model` called `name`, or None; it is not asked whether it lies on the way to `tensor`.

        The name is that of a layer; "layer:0" and "layer/Relu:0", as TensorFlow 1 named its output, are the same. After
        "ROI/" stand steps of the proposals, such as "ROI/refined_anchors".
        """
        layer, _, step = name.split(":")[0].partition("/")
        if layer == "ROI" and step.split("/")[0] in ProposalSteps.STEPS:
            steps = self.keras_model.get_layer("ROI_steps").output
            return dict(zip(ProposalSteps.STEPS, steps, strict=True))[step.split("/")[0]]
        known = step in LAST_OPERATIONS and layer in {each.name for each in self.keras_model.layers}
        return self.keras_model.get_layer(layer).output if known else None
