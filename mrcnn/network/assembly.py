"""Wiring: the training, detection and feature networks, built from the same parts."""

import keras
import tensorflow as tf

from mrcnn.config import Config
from mrcnn.network import boxes as box_ops
from mrcnn.network import losses
from mrcnn.network.anchors import LEVEL_NAMES, anchor_grid
from mrcnn.network.backbone import feature_pyramid, resnet, small_resnet
from mrcnn.network.detections import DetectionLayer
from mrcnn.network.heads import box_head, mask_head
from mrcnn.network.proposals import ProposalLayer, rpn_head
from mrcnn.network.roi_align import PyramidROIAlign
from mrcnn.network.targets import assign_anchor_targets, assign_roi_targets

# The part of a white cell without which it is none.
NUCLEUS = "nucleus"


class DetectorParts(keras.Model):
    """The parts with weights: pyramid, proposal head, box head, mask head. It is what is saved.

    Attributes:
        pyramid_network: images `(batch, H, W, channels)`, the mean colour subtracted -> [P2, ..., P6].
        rpn: one level -> logits, deltas.
        box_head: RoI features -> class logits, deltas.
        mask_head: RoI features -> masks.
    """

    def __init__(self, config: Config):
        super().__init__(name="mask_rcnn")
        channels, norm = config.TOP_DOWN_PYRAMID_SIZE, config.normalization
        self.mean_pixel = tuple(map(float, config.MEAN_PIXEL))
        molded = keras.Input((None, None, config.IMAGE_CHANNEL_COUNT), name="input_image")
        if config.BACKBONE == "small":
            stages = small_resnet(molded, norm)
        else:
            stages = resnet(molded, config.BACKBONE, norm, config.STEM_PADDING)
        levels = feature_pyramid(stages, channels, norm, config.PYRAMID_HIDDEN_SIZE)
        self.pyramid_network = keras.Model(molded, levels, name="pyramid_network")
        num_ratios, stride = len(config.RPN_ANCHOR_RATIOS), config.RPN_ANCHOR_STRIDE
        self.rpn = rpn_head(channels, num_ratios, stride, config.RPN_CHANNELS)
        fc_size = config.FPN_CLASSIF_FC_LAYERS_SIZE
        self.box_head = box_head(config.POOL_SIZE, channels, config.NUM_CLASSES, fc_size, norm)
        num_masks, factor = config.NUM_CLASSES * len(config.MASK_PARTS), config.MASK_SHAPE[0] // config.MASK_POOL_SIZE
        self.mask_head = mask_head(config.MASK_POOL_SIZE, channels, num_masks, norm, config.MASK_CONV_CHANNELS, factor)
        self.rpn_levels = [LEVEL_NAMES.index(name) for name in config.RPN_LEVELS]
        self.built = True

    def call(self, images: tf.Tensor, training: bool = False) -> list:
        """The pyramid [P2, ..., P6] of images `(batch, H, W, channels)`, 0 to 255."""
        return self.pyramid_network(self.subtract_mean(images), training=training)

    def subtract_mean(self, images: tf.Tensor) -> tf.Tensor:
        """Images of any number type, 0 to 255, as float without the mean colour, which has a value for each channel."""
        return tf.cast(images, tf.float32) - tf.constant(self.mean_pixel)

    def score_anchors(self, levels: list, training: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Logits `(batch, anchors, 2)` and deltas `(batch, anchors, 4)` of the levels with anchors, P2 first."""
        outputs = [self.rpn(levels[i], training=training) for i in self.rpn_levels]
        logits, deltas = zip(*outputs, strict=True)
        return tf.concat(logits, axis=1), tf.concat(deltas, axis=1)

    def named_layers(self) -> list[keras.layers.Layer]:
        """Every layer with weights of all four parts."""
        parts = (self.pyramid_network, self.rpn, self.box_head, self.mask_head)
        return [layer for part in parts for layer in part.layers if layer.weights]


def _with_padding_row(rows: tf.Tensor) -> tf.Tensor:
    """Append a row of zeros, since convolutions of no rows at all fail on some devices."""
    return tf.concat([rows, tf.zeros((1, *rows.shape[1:]), rows.dtype)], axis=0)


class TrainingNetwork:
    """From a batch with ground truth to the five losses; no Keras model, so that what uses it has the weights once."""

    def __init__(self, parts: DetectorParts, config: Config):
        self.parts, self.config = parts, config
        self.proposal_layer = ProposalLayer.from_settings(config, config.POST_NMS_ROIS_TRAINING, name="ROI")
        self.align_boxes = PyramidROIAlign(config.POOL_SIZE, config.ROI_ALIGN, name="roi_align_classifier")
        self.align_masks = PyramidROIAlign(config.MASK_POOL_SIZE, config.ROI_ALIGN, name="roi_align_mask")

    def __call__(self, batch: dict[str, tf.Tensor], training: bool = True) -> dict[str, losses.LossSum]:
        """Compute the losses.

        Args:
            batch: "images" `(batch, H, W, channels)` 0 to 255; "gt_class_ids" int `(batch, max_gt)`; "gt_boxes"
                `(batch, max_gt, 4)` in pixels; "gt_masks" `(batch, max_gt, h, w, parts)`; "active_class_ids"
                `(batch, classes)`; "seeds" int `(batch, 2)` for the sampling of anchors and RoIs. Padding is zero.
            training: whether normalisation layers learn.

        Returns:
            Loss name -> sum and count, not weighted.
        """
        config = self.config
        image_shape = tf.shape(batch["images"])[1:3]
        real = tf.reduce_any(batch["gt_boxes"] != 0.0, axis=-1, keepdims=True)
        gt_boxes = tf.where(real, box_ops.normalized_boxes(batch["gt_boxes"], image_shape), 0.0)  # padding stays zero
        anchors = anchor_grid(config, image_shape)
        levels = self.parts(batch["images"], training=training)
        logits, deltas = self.parts.score_anchors(levels, training)
        gt_class_ids, seeds = batch["gt_class_ids"], batch["seeds"]
        anchor_targets = assign_anchor_targets(anchors, gt_boxes, gt_class_ids, seeds, config)
        proposals = self.proposal_layer([tf.nn.softmax(logits), deltas, anchors])
        if config.TRAIN_ON_GT_BOXES:
            cells = tf.where(gt_class_ids[..., tf.newaxis] > 0, gt_boxes, 0.0)
            proposals = tf.concat([proposals, cells], axis=1)
        truth = gt_boxes, gt_class_ids, batch["gt_masks"]
        targets = assign_roi_targets(proposals, *truth, seeds + 2, config, image_shape)
        class_logits, box_deltas = self._classify(targets.rois, levels, training, image_shape)
        mask_targets, masks = self._predict_masks(targets, levels, training, image_shape)
        return {
            "rpn_class_loss": losses.rpn_class_loss(anchor_targets.match, logits),
            "rpn_bbox_loss": losses.rpn_bbox_loss(anchor_targets.match, anchor_targets.deltas, deltas),
            "mrcnn_class_loss": losses.head_class_loss(
                targets.class_ids, targets.valid, class_logits, batch["active_class_ids"]
            ),
            "mrcnn_bbox_loss": losses.head_bbox_loss(targets.class_ids, targets.deltas, box_deltas),
            "mrcnn_mask_loss": losses.head_mask_loss(*mask_targets, masks),
        }

    def _classify(self, rois, levels, training, image_shape):
        batch, num_rois = tf.shape(rois)[0], rois.shape[1]
        images = tf.repeat(tf.range(batch), num_rois)
        roi_features = self.align_boxes(tf.reshape(rois, (-1, 4)), images, levels[:4], image_shape=image_shape)
        logits, deltas = self.parts.box_head(roi_features, training=training)
        classes = self.config.NUM_CLASSES
        return tf.reshape(logits, (batch, num_rois, classes)), tf.reshape(deltas, (batch, num_rois, classes, 4))

    def _predict_masks(self, targets, levels, training, image_shape):
        """Targets and masks of the RoIs that have a mask to learn, and a row of padding."""
        chosen = tf.cast(tf.where(tf.reduce_any(targets.has_part, axis=-1)), tf.int32)
        class_ids = targets.class_ids
        if len(self.config.MASK_PARTS) > 1:
            class_ids = tf.maximum(class_ids, 1)  # background has no part of the first class
        rois, *mask_targets = (
            _with_padding_row(tf.gather_nd(values, chosen))
            for values in (targets.rois, class_ids, targets.masks, targets.has_part)
        )
        images = _with_padding_row(chosen[:, 0])
        roi_features = self.align_masks(rois, images, levels[:4], image_shape=image_shape)
        return mask_targets, self.parts.mask_head(roi_features, training=training)


class DetectionNetwork(keras.Model):
    """From images to final detections, with the pyramid kept for what comes after."""

    def __init__(self, parts: DetectorParts, config: Config):
        super().__init__(name="detection")
        self.parts, self.config = parts, config
        self.proposal_layer = ProposalLayer.from_settings(config, config.POST_NMS_ROIS_INFERENCE, name="ROI")
        self.align_boxes = PyramidROIAlign(config.POOL_SIZE, config.ROI_ALIGN, name="roi_align_classifier")
        self.detection_layer = DetectionLayer.from_settings(config, name="mrcnn_detection")
        self.built = True

    def call(self, images: tf.Tensor, windows: tf.Tensor) -> tuple[tf.Tensor, list]:
        """Detect on images `(batch, H, W, channels)`, 0 to 255, resized and padded.

        `windows`, float `(batch, 4)`, normalised, is the part of each that is image. Returned are the rows of
        `DetectionLayer`, and [P2, ..., P5].
        """
        image_shape = tf.shape(images)[1:3]
        levels = self.parts(images, training=False)
        logits, deltas = self.parts.score_anchors(levels)
        rois = self.proposal_layer([tf.nn.softmax(logits), deltas, anchor_grid(self.config, image_shape)])
        probabilities, box_deltas = self._classify(rois, levels, image_shape)
        return self.detection_layer([rois, probabilities, box_deltas, windows]), levels[:4]

    def _classify(self, rois, levels, image_shape):
        """Class probabilities and deltas; the box head sees the real proposals only, padding has class 0."""
        real = tf.cast(tf.where(box_ops.areas(rois) > 0.0), tf.int32)
        chosen, images = _with_padding_row(tf.gather_nd(rois, real)), _with_padding_row(real[:, 0])
        roi_features = self.align_boxes(chosen, images, levels[:4], image_shape=image_shape)
        class_logits, box_deltas = self.parts.box_head(roi_features, training=False)
        shape = tf.concat([tf.shape(rois)[:2], [self.config.NUM_CLASSES]], axis=0)
        probabilities = tf.scatter_nd(real, tf.nn.softmax(class_logits[:-1]), shape)
        return probabilities, tf.scatter_nd(real, box_deltas[:-1], tf.concat([shape, [4]], axis=0))


class FeatureNetwork(keras.Model):
    """From images to the RoI features of each real detection; optionally their masks, which cost most of the time.

    Where the masks have a nucleus, a detection's score is that of its class times how clearly its nucleus is seen.
    """

    def __init__(self, parts: DetectorParts, config: Config, with_masks: bool):
        super().__init__(name="features")
        self.detection_network, self.config, self.with_masks = DetectionNetwork(parts, config), config, with_masks
        self.mask_head = parts.mask_head
        self.align_masks = PyramidROIAlign(config.MASK_POOL_SIZE, config.ROI_ALIGN, name="roi_align_mask")
        self.built = True

    def call(self, images: tf.Tensor, windows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Detect and extract, see `DetectionNetwork.call`; padding never reaches the heads.

        Returns:
            "detections" `(batch, max_detections, 6)`; for the n real ones, image by image: "features"
            `(n, 14, 14, channels)` and, if asked for, "masks" `(n, h, w)` of the detected class, and for each further
            part of MASK_PARTS `PART_masks`.
        """
        detections, levels = self.detection_network(images, windows)
        real = tf.where(detections[..., 5] > 0.0)
        found = tf.gather_nd(detections, real)
        images_of = tf.cast(real[:, 0], tf.int32)
        features = self.align_masks(found[:, :4], images_of, levels, image_shape=tf.shape(images)[1:3])
        per_cell, part_names = {"features": features}, self.config.MASK_PARTS
        if self.with_masks or NUCLEUS in part_names:
            masks = self.mask_head(_with_padding_row(features), training=False)[:-1]
            masks = losses.masks_of_class(masks, tf.cast(found[:, 4], tf.int32), len(part_names))
            if self.with_masks:
                names = ["masks", *(f"{part}_masks" for part in part_names[1:])]
                per_cell |= dict(zip(names, tf.unstack(masks, axis=-1), strict=True))
            if NUCLEUS in part_names:
                seen = _clarity(masks[..., part_names.index(NUCLEUS)])
                detections, order = self._rescore(detections, real, seen)
                per_cell = {name: tf.gather(values, order) for name, values in per_cell.items()}
        return {"detections": detections, **per_cell}

    def _rescore(self, detections, real, seen):
        """Multiply the scores of the real detections, drop what falls below the least, and put them into their order.

        Returned are the detections and, for the real ones, where they were among the real ones before.
        """
        shape = tf.shape(detections, tf.int64)[:2]
        scores = detections[..., 5] * tf.scatter_nd(real, seen, shape)
        scores = tf.where(scores >= self.config.DETECTION_MIN_CONFIDENCE, scores, 0.0)
        numbers = tf.scatter_nd(real, tf.range(tf.shape(real)[0]), shape)
        detections = tf.where(scores[..., tf.newaxis] > 0.0, detections, 0.0)
        detections = tf.concat([detections[..., :5], scores[..., tf.newaxis]], axis=-1)
        order = tf.argsort(scores, axis=-1, direction="DESCENDING", stable=True)
        detections, numbers = (tf.gather(values, order, batch_dims=1) for values in (detections, numbers))
        return detections, tf.boolean_mask(numbers, detections[..., 5] > 0.0)


def _clarity(masks: tf.Tensor) -> tf.Tensor:
    """How clearly a part is seen in each mask `(n, h, w)`: the mean probability of its clearest pixels, a sixteenth."""
    height, width = masks.shape[1:]
    clearest, _ = tf.math.top_k(tf.reshape(masks, (-1, height * width)), height * width // 16)
    return tf.reduce_mean(clearest, axis=-1)
