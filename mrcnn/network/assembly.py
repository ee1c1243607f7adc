"""Wiring: the training, detection and feature networks, built from the same parts."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops
from mrcnn.network import losses
from mrcnn.network.anchors import feature_map_shapes, pyramid_anchors
from mrcnn.network.backbone import resnet
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.heads import box_head, mask_head
from mrcnn.network.proposals import ProposalLayer, rpn_head
from mrcnn.network.pyramid import feature_pyramid
from mrcnn.network.roi_align import PyramidROIAlign
from mrcnn.network.targets import assign_anchor_targets, assign_roi_targets


@keras.saving.register_keras_serializable("mrcnn")
class SubtractMean(keras.layers.Layer):
    """Turn images of any number type, 0 to 255, into float with the mean colour subtracted.

    Args:
        mean_pixel: one value for each channel.
    """

    def __init__(self, mean_pixel: tuple[float, ...], **kwargs: Any):
        super().__init__(**kwargs, autocast=False)
        self.mean_pixel = tuple(float(v) for v in mean_pixel)

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Subtract the mean from `(batch, height, width, channels)`."""
        return tf.cast(images, tf.float32) - tf.constant(self.mean_pixel)

    def compute_output_spec(self, images: Any) -> keras.KerasTensor:
        """A float tensor of the images' shape."""
        return keras.KerasTensor(images.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        config = super().get_config()
        config.pop("autocast", None)
        return {**config, "mean_pixel": self.mean_pixel}


class DetectorParts(keras.Model):
    """The parts with weights: pyramid, proposal head, box head, mask head. It is what is saved.

    Args:
        config: sizes and kinds of everything.

    Attributes:
        pyramid_network: images `(batch, H, W, 3)`, 0 to 255 -> [P2, ..., P6].
        rpn: one level -> logits, deltas.
        box_head: RoI features -> class logits, deltas.
        mask_head: RoI features -> masks.
    """

    def __init__(self, config: Config):
        super().__init__(name="mask_rcnn")
        channels, norm = config.TOP_DOWN_PYRAMID_SIZE, config.normalization
        images = keras.Input(tuple(int(v) for v in config.IMAGE_SHAPE), name="input_image", dtype="uint8")
        molded = SubtractMean(config.MEAN_PIXEL, name="mold_image")(images)
        levels = feature_pyramid(resnet(molded, config.BACKBONE, norm), channels, norm)
        self.pyramid_network = keras.Model(images, levels, name="pyramid_network")
        self.rpn = rpn_head(channels, len(config.RPN_ANCHOR_RATIOS), config.RPN_ANCHOR_STRIDE)
        self.box_head = box_head(
            config.POOL_SIZE, channels, config.NUM_CLASSES, config.FPN_CLASSIF_FC_LAYERS_SIZE, norm
        )
        self.mask_head = mask_head(config.MASK_POOL_SIZE, channels, config.NUM_CLASSES, norm)
        self.built = True

    def call(self, images: tf.Tensor) -> list:
        """The pyramid of `images`."""
        return self.pyramid_network(images)

    def score_anchors(self, levels: list, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits `(batch, anchors, 2)` and deltas `(batch, anchors, 4)` of all levels, P2 first."""
        outputs = [self.rpn(level, training=training) for level in levels]
        logits, deltas = zip(*outputs, strict=True)
        return tf.concat(logits, axis=1), tf.concat(deltas, axis=1)

    def named_layers(self) -> list[keras.layers.Layer]:
        """Every layer with weights of all four parts."""
        parts = (self.pyramid_network, self.rpn, self.box_head, self.mask_head)
        return [layer for part in parts for layer in part.layers if layer.weights]


def normalized_anchors(config: Config) -> np.ndarray:
    """The anchors of `config` for its image shape, normalised, float32 `(num_anchors, 4)`."""
    shapes = feature_map_shapes(config.IMAGE_SHAPE, config.BACKBONE_STRIDES)
    anchors = pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        shapes,
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    return box_ops.normalized_boxes(anchors, config.IMAGE_SHAPE[:2]).numpy()


def _image_rows(batch: tf.Tensor, num_rows: int) -> tf.Tensor:
    """Index of the image of each RoI when `(batch, num_rows)` RoIs are laid in one row."""
    return tf.repeat(tf.range(batch), num_rows)


class TrainingNetwork(keras.Model):
    """From a batch with ground truth to the five losses.

    Args:
        parts: the weights.
        config: its settings.
    """

    def __init__(self, parts: DetectorParts, config: Config):
        super().__init__(name="training")
        self.parts, self.config = parts, config
        self.image_shape = tuple(int(v) for v in config.IMAGE_SHAPE[:2])
        self.anchors = tf.constant(normalized_anchors(config))
        self.proposal_layer = ProposalLayer(
            config.POST_NMS_ROIS_TRAINING,
            config.RPN_NMS_THRESHOLD,
            config.PRE_NMS_LIMIT,
            config.RPN_BBOX_STD_DEV,
            name="ROI",
        )
        self.align_boxes = PyramidROIAlign(config.POOL_SIZE, self.image_shape, name="roi_align_classifier")
        self.align_masks = PyramidROIAlign(config.MASK_POOL_SIZE, self.image_shape, name="roi_align_mask")
        self.built = True

    def call(self, batch: dict[str, tf.Tensor], seed: tf.Tensor, training: bool = True) -> dict[str, tf.Tensor]:
        """Compute the losses.

        Args:
            batch: "images" `(batch, H, W, 3)` 0 to 255; "gt_class_ids" int `(batch, max_gt)`; "gt_boxes"
                `(batch, max_gt, 4)` normalised; "gt_masks" `(batch, max_gt, h, w)`. Padding is zero.
            seed: int tensor `(2,)` for the sampling of anchors and RoIs.
            training: whether normalisation layers learn.

        Returns:
            Loss name -> scalar, not weighted.
        """
        config = self.config
        levels = self.parts.pyramid_network(batch["images"], training=training)
        logits, deltas = self.parts.score_anchors(levels, training)
        anchor_targets = assign_anchor_targets(
            self.anchors,
            batch["gt_boxes"],
            batch["gt_class_ids"],
            seed,
            config.RPN_TRAIN_ANCHORS_PER_IMAGE,
            config.RPN_BBOX_STD_DEV,
        )
        proposals = self.proposal_layer([tf.nn.softmax(logits), deltas, self.anchors])
        targets = self._assign_roi_targets(proposals, batch, seed + 2)
        class_logits, box_deltas = self._classify(targets.rois, levels, training)
        masks = self._predict_masks(targets.rois, targets.masks, levels, training)
        return {
            "rpn_class_loss": losses.rpn_class_loss(anchor_targets.match, logits),
            "rpn_bbox_loss": losses.rpn_bbox_loss(anchor_targets.match, anchor_targets.deltas, deltas),
            "mrcnn_class_loss": losses.head_class_loss(targets.class_ids, targets.valid, class_logits),
            "mrcnn_bbox_loss": losses.head_bbox_loss(targets.class_ids, targets.deltas, box_deltas),
            "mrcnn_mask_loss": losses.head_mask_loss(
                targets.class_ids[:, : targets.masks.shape[1]], targets.masks, masks
            ),
        }

    def _assign_roi_targets(self, proposals, batch, seed):
        config = self.config
        if config.TRAIN_ON_GT_BOXES:
            proposals = tf.concat([proposals, batch["gt_boxes"]], axis=1)
        whole_image = tf.broadcast_to(tf.constant([0.0, 0.0, 1.0, 1.0]), tf.shape(batch["gt_boxes"]))
        return assign_roi_targets(
            proposals,
            batch["gt_boxes"],
            batch["gt_class_ids"],
            batch["gt_masks"],
            batch["gt_boxes"] if config.USE_MINI_MASK else whole_image,
            seed,
            config.TRAIN_ROIS_PER_IMAGE,
            config.ROI_POSITIVE_RATIO,
            config.BBOX_STD_DEV,
            config.MASK_SHAPE[0],
            self.image_shape,
        )

    def _classify(self, rois, levels, training):
        batch, num_rois = tf.shape(rois)[0], rois.shape[1]
        roi_features = self.align_boxes(tf.reshape(rois, (-1, 4)), _image_rows(batch, num_rois), levels[:4])
        logits, deltas = self.parts.box_head(roi_features, training=training)
        classes = self.config.NUM_CLASSES
        return tf.reshape(logits, (batch, num_rois, classes)), tf.reshape(deltas, (batch, num_rois, classes, 4))

    def _predict_masks(self, rois, target_masks, levels, training):
        """Masks of the leading rows, the only ones that can be positive."""
        batch, num_rois = tf.shape(rois)[0], target_masks.shape[1]
        rois = tf.reshape(rois[:, :num_rois], (-1, 4))
        roi_features = self.align_masks(rois, _image_rows(batch, num_rois), levels[:4])
        masks = self.parts.mask_head(roi_features, training=training)
        return tf.reshape(masks, (batch, num_rois, *masks.shape[1:]))


class DetectionNetwork(keras.Model):
    """From images to final detections, with the pyramid kept for what comes after.

    Args:
        parts: the weights.
        config: its settings.
    """

    def __init__(self, parts: DetectorParts, config: Config):
        super().__init__(name="detection")
        self.parts = parts
        image_shape = tuple(int(v) for v in config.IMAGE_SHAPE[:2])
        self.anchors = tf.constant(normalized_anchors(config))
        self.num_classes = config.NUM_CLASSES
        self.proposal_layer = ProposalLayer(
            config.POST_NMS_ROIS_INFERENCE,
            config.RPN_NMS_THRESHOLD,
            config.PRE_NMS_LIMIT,
            config.RPN_BBOX_STD_DEV,
            name="ROI",
        )
        self.align_boxes = PyramidROIAlign(config.POOL_SIZE, image_shape, name="roi_align_classifier")
        self.detection_layer = DetectionLayer(
            config.DETECTION_MAX_INSTANCES,
            config.DETECTION_MIN_CONFIDENCE,
            config.DETECTION_NMS_THRESHOLD,
            config.BBOX_STD_DEV,
            name="mrcnn_detection",
        )
        self.built = True

    def call(self, images: tf.Tensor, windows: tf.Tensor) -> tuple[tf.Tensor, list]:
        """Detect.

        Args:
            images: `(batch, H, W, 3)`, 0 to 255, resized and padded.
            windows: float `(batch, 4)`, normalised: the part that is image.

        Returns:
            Detections `(batch, max_detections, 6)` (normalised box, class id, score; zero rows are padding), and
            [P2, ..., P5].
        """
        levels = self.parts.pyramid_network(images, training=False)
        logits, deltas = self.parts.score_anchors(levels)
        rois = self.proposal_layer([tf.nn.softmax(logits), deltas, self.anchors])
        batch, num_rois = tf.shape(rois)[0], rois.shape[1]
        roi_features = self.align_boxes(tf.reshape(rois, (-1, 4)), _image_rows(batch, num_rois), levels[:4])
        class_logits, box_deltas = self.parts.box_head(roi_features, training=False)
        probabilities = tf.reshape(tf.nn.softmax(class_logits), (batch, num_rois, self.num_classes))
        box_deltas = tf.reshape(box_deltas, (batch, num_rois, self.num_classes, 4))
        return self.detection_layer([rois, probabilities, box_deltas, windows]), levels[:4]


class FeatureNetwork(keras.Model):
    """From images to the RoI features of each real detection; optionally their masks.

    Args:
        parts: the weights.
        config: its settings.
        with_masks: also run the mask head on the features, which costs most of the time.
    """

    def __init__(self, parts: DetectorParts, config: Config, with_masks: bool):
        super().__init__(name="features")
        self.detection_network = DetectionNetwork(parts, config)
        self.mask_head = parts.mask_head if with_masks else None
        image_shape = tuple(int(v) for v in config.IMAGE_SHAPE[:2])
        self.align_masks = PyramidROIAlign(config.MASK_POOL_SIZE, image_shape, name="roi_align_mask")
        self.built = True

    def call(self, images: tf.Tensor, windows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detect and extract; padding never reaches the heads.

        Args:
            images: `(batch, H, W, 3)`, 0 to 255, resized and padded.
            windows: float `(batch, 4)`, normalised.

        Returns:
            "detections" `(batch, max_detections, 6)`; for the n real ones, image by image: "features"
            `(n, 14, 14, channels)` and, if asked for, "masks" `(n, 28, 28)` of the detected class.
        """
        detections, levels = self.detection_network(images, windows)
        real = tf.where(detections[..., 5] > 0.0)
        found = tf.gather_nd(detections, real)
        features = self.align_masks(found[:, :4], tf.cast(real[:, 0], tf.int32), levels)
        outputs = {"detections": detections, "features": features}
        if self.mask_head is not None:
            # Convolutions fail on no rows at all on some devices: a row of zeros goes along, for images without a cell.
            masks = self.mask_head(tf.pad(features, [[0, 1], [0, 0], [0, 0], [0, 0]]), training=False)[:-1]
            class_ids = tf.cast(found[:, 4], tf.int32)
            outputs["masks"] = tf.gather(masks, class_ids, axis=3, batch_dims=1)
        return outputs
