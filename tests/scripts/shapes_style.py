"""Train on drawn squares, circles and triangles, then look at what the network does with them.

The images are drawn in memory. Run it from a folder two levels below the project:

    python3 shapes_style.py --init_with=coco
"""

import argparse
import os
import random
import sys

import cv2
import matplotlib
import numpy as np

# Agg backend runs without a display
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

ROOT_DIR = os.path.abspath("../../")

sys.path.append(ROOT_DIR)
import mrcnn.model as modellib  # noqa: E402
from mrcnn import utils, visualize  # noqa: E402
from mrcnn.config import Config  # noqa: E402
from mrcnn.model import log  # noqa: E402

MODEL_DIR = os.path.join(ROOT_DIR, "logs")
COCO_MODEL_PATH = os.path.join(ROOT_DIR, "mask_rcnn_coco.h5")


class ShapesConfig(Config):
    """Settings for drawn shapes."""

    NAME = "shapes"
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2
    NUM_CLASSES = 1 + 3  # background + 3 shapes
    BACKBONE = "resnet50"
    IMAGE_MIN_DIM = 64
    IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (8, 16, 32, 48, 64)  # side in pixels
    TRAIN_ROIS_PER_IMAGE = 8
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 30
    DETECTION_MAX_INSTANCES = 8
    MAX_GT_INSTANCES = 6
    STEPS_PER_EPOCH = 2
    VALIDATION_STEPS = 1


class ShapesDataset(utils.Dataset):
    """Images with a few shapes, drawn when they are asked for from the specification in image_info."""

    def load_shapes(self, count, height, width):
        self.add_class("shapes", 1, "square")
        self.add_class("shapes", 2, "circle")
        self.add_class("shapes", 3, "triangle")
        for i in range(count):
            bg_color, shapes = self.random_image(height, width)
            self.add_image(
                "shapes", image_id=i, path=None, width=width, height=height, bg_color=bg_color, shapes=shapes
            )

    def load_image(self, image_id):
        info = self.image_info[image_id]
        bg_color = np.array(info["bg_color"]).reshape([1, 1, 3])
        image = np.ones([info["height"], info["width"], 3], dtype=np.uint8)
        image = image * bg_color.astype(np.uint8)
        for shape, color, dims in info["shapes"]:
            image = self.draw_shape(image, shape, dims, color)
        return image

    def image_reference(self, image_id):
        info = self.image_info[image_id]
        if info["source"] == "shapes":
            return info["shapes"]
        return super(self.__class__, self).image_reference(image_id)

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        shapes = info["shapes"]
        mask = np.zeros([info["height"], info["width"], len(shapes)], dtype=np.uint8)
        for i, (shape, _, dims) in enumerate(shapes):
            mask[:, :, i] = self.draw_shape(mask[:, :, i].copy(), shape, dims, 1)
        # What is drawn later hides what was drawn before.
        occlusion = np.logical_not(mask[:, :, -1]).astype(np.uint8)
        for i in range(len(shapes) - 2, -1, -1):
            mask[:, :, i] = mask[:, :, i] * occlusion
            occlusion = np.logical_and(occlusion, np.logical_not(mask[:, :, i]))
        class_ids = np.array([self.class_names.index(s[0]) for s in shapes])
        return mask.astype(bool), class_ids.astype(np.int32)

    def draw_shape(self, image, shape, dims, color):
        x, y, s = dims
        if shape == "square":
            cv2.rectangle(image, (x - s, y - s), (x + s, y + s), color, -1)
        elif shape == "circle":
            cv2.circle(image, (x, y), s, color, -1)
        elif shape == "triangle":
            points = np.array([[(x, y - s), (x - s, y + s), (x + s, y + s)]], dtype=np.int32)
            cv2.fillPoly(image, points, color)
        return image

    def random_image(self, height, width):
        """Choose a background and one to three shapes that do not cover each other."""
        bg_color = np.array([random.randint(0, 255) for _ in range(3)])
        shapes, boxes = [], []
        for _ in range(random.randint(1, 3)):
            shape = random.choice(["square", "circle", "triangle"])
            color = tuple(random.randint(0, 255) for _ in range(3))
            s = random.randint(height // 8, height // 5)
            x, y = random.randint(s, width - s - 1), random.randint(s, height - s - 1)
            shapes.append((shape, color, (x, y, s)))
            boxes.append([y - s, x - s, y + s, x + s])
        # Leave out shapes that others cover.
        keep_ixs = utils.non_max_suppression(np.array(boxes), np.arange(len(boxes)), 0.3)
        return bg_color, [s for i, s in enumerate(shapes) if i in keep_ixs]


def get_ax(rows=1, cols=1, size=4):
    """Axes of one size for all pictures."""
    _, ax = plt.subplots(rows, cols, figsize=(size * cols, size * rows))
    return ax


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--init_with", default="coco", help="imagenet, coco, or last")
    parser.add_argument("--images", type=int, default=500)
    args = parser.parse_args()
    random.seed(1)

    config = ShapesConfig()
    config.display()

    dataset_train = ShapesDataset()
    dataset_train.load_shapes(args.images, config.IMAGE_SHAPE[0], config.IMAGE_SHAPE[1])
    dataset_train.prepare()

    dataset_val = ShapesDataset()
    dataset_val.load_shapes(max(1, args.images // 10), config.IMAGE_SHAPE[0], config.IMAGE_SHAPE[1])
    dataset_val.prepare()

    # Look at some samples
    for image_id in np.random.choice(dataset_train.image_ids, 2):
        image = dataset_train.load_image(image_id)
        mask, class_ids = dataset_train.load_mask(image_id)
        visualize.display_top_masks(image, mask, class_ids, dataset_train.class_names)

    # Look at a batch as the training sees it
    generator = modellib.data_generator(
        dataset_train, config, shuffle=True, random_rois=40, batch_size=2, detection_targets=True
    )
    inputs, targets = next(generator)
    [
        normalized_images,
        image_meta,
        rpn_match,
        rpn_bbox,
        gt_class_ids,
        gt_boxes,
        gt_masks,
        rpn_rois,
        rois,
    ] = inputs
    [mrcnn_class_ids, mrcnn_bbox, mrcnn_mask] = targets
    log("rois", rois)
    log("mrcnn_class_ids", mrcnn_class_ids)
    batch_image = modellib.unmold_image(normalized_images[0], config)
    batch_anchors = utils.generate_pyramid_anchors(
        config.RPN_ANCHOR_SCALES,
        config.RPN_ANCHOR_RATIOS,
        modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE),
        config.BACKBONE_STRIDES,
        config.RPN_ANCHOR_STRIDE,
    )
    positive_anchors = batch_anchors[rpn_match[0].flatten() == 1]
    visualize.draw_boxes(batch_image, boxes=positive_anchors, ax=get_ax())
    source_image_id = modellib.parse_image_meta(image_meta)["image_id"][0]

    # Train
    model = modellib.MaskRCNN(mode="training", config=config, model_dir=MODEL_DIR)
    if args.init_with == "imagenet":
        model.load_weights(model.get_imagenet_weights(), by_name=True)
    elif args.init_with == "coco":
        if not os.path.exists(COCO_MODEL_PATH):
            utils.download_trained_weights(COCO_MODEL_PATH)
        model.load_weights(
            COCO_MODEL_PATH,
            by_name=True,
            exclude=["mrcnn_class_logits", "mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_mask"],
        )
    elif args.init_with == "last":
        model.load_weights(model.find_last(), by_name=True)

    # First the new heads alone, then all layers more gently
    model.train(dataset_train, dataset_val, learning_rate=config.LEARNING_RATE, epochs=1, layers="heads")
    model.train(dataset_train, dataset_val, learning_rate=config.LEARNING_RATE / 10, epochs=2, layers="all")

    saved_path = os.path.join(MODEL_DIR, "mask_rcnn_shapes.h5")
    model.keras_model.save_weights(saved_path)

    # Detect
    class InferenceConfig(ShapesConfig):
        GPU_COUNT = 1
        IMAGES_PER_GPU = 1
        DETECTION_MIN_CONFIDENCE = 0

    inference_config = InferenceConfig()
    model = modellib.MaskRCNN(mode="inference", config=inference_config, model_dir=MODEL_DIR)
    model_path = model.find_last()
    print("Loading weights from ", model_path)
    model.load_weights(model_path, by_name=True)

    image_id = random.choice(dataset_val.image_ids)
    original_image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
        dataset_val, inference_config, image_id, use_mini_mask=False
    )
    log("original_image", original_image)
    log("image_meta", image_meta)
    log("gt_class_id", gt_class_id)
    log("gt_bbox", gt_bbox)
    log("gt_mask", gt_mask)
    visualize.display_instances(
        original_image, gt_bbox, gt_mask, gt_class_id, dataset_train.class_names, figsize=(8, 8), ax=get_ax()
    )

    results = model.detect([original_image], verbose=1)
    r = results[0]
    visualize.display_instances(
        original_image, r["rois"], r["masks"], r["class_ids"], dataset_val.class_names, r["scores"], ax=get_ax()
    )
    visualize.display_differences(
        original_image,
        gt_bbox,
        gt_class_id,
        gt_mask,
        r["rois"],
        r["class_ids"],
        r["scores"],
        r["masks"],
        dataset_val.class_names,
        ax=get_ax(),
        iou_threshold=0.5,
        score_threshold=0.5,
    )

    # The same image, molded by hand
    molded_images = np.expand_dims(modellib.mold_image(original_image, inference_config), 0)
    molded_results = model.detect_molded(molded_images, np.expand_dims(image_meta, 0), verbose=1)

    # What goes on inside
    activations = model.run_graph(
        [original_image],
        [
            ("rpn_class", model.keras_model.get_layer("rpn_class").output),
            ("proposals", model.keras_model.get_layer("ROI").output),
            ("probs", model.keras_model.get_layer("mrcnn_class").output),
            ("deltas", model.keras_model.get_layer("mrcnn_bbox").output),
            ("detections", model.keras_model.get_layer("mrcnn_detection").output),
            ("masks", model.keras_model.get_layer("mrcnn_mask").output),
        ],
    )
    proposals = utils.denorm_boxes(activations["proposals"][0], inference_config.IMAGE_SHAPE[:2])
    roi_class_ids = np.argmax(activations["probs"][0], axis=1)
    refined = utils.apply_box_deltas(
        proposals.astype(np.float32),
        activations["deltas"][0, np.arange(len(proposals)), roi_class_ids] * inference_config.BBOX_STD_DEV,
    ).astype(np.int32)
    visualize.draw_boxes(original_image, boxes=proposals[:5], refined_boxes=refined[:5], ax=get_ax())
    visualize.display_weight_stats(model)

    # Evaluate: VOC-style mAP at IoU 0.5
    APs, recalls_of_proposals = [], []
    for image_id in dataset_val.image_ids:
        image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
            dataset_val, inference_config, image_id, use_mini_mask=False
        )
        result = model.detect([image], verbose=0)[0]
        AP, precisions, recalls, overlaps = utils.compute_ap(
            gt_bbox, gt_class_id, gt_mask, result["rois"], result["class_ids"], result["scores"], result["masks"]
        )
        APs.append(AP)
        recalls_of_proposals.append(utils.compute_recall(proposals, gt_bbox, iou=0.3)[0])
    visualize.plot_precision_recall(AP, precisions, recalls)
    visualize.plot_overlaps(gt_class_id, result["class_ids"], result["scores"], overlaps, dataset_val.class_names)
    print("mAP: ", np.mean(APs))
