"""Train on drawn squares, circles and triangles, then look at what the network does with them.

The images are drawn in memory.

    python3 shapes.py train --weights=coco
"""

import os
import random

import cv2
import matplotlib
import numpy as np

# Agg backend runs without a display
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from small_detector import SmallConfig, load_model, parse_arguments  # noqa: E402

import mrcnn.model as modellib  # noqa: E402
from mrcnn import utils, visualize  # noqa: E402
from mrcnn.model import log  # noqa: E402


class ShapesConfig(SmallConfig):
    NAME = "shapes"
    NUM_CLASSES = 1 + 3  # background + 3 shapes


class InferenceConfig(ShapesConfig):
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0


class ShapesDataset(utils.Dataset):
    """Images with a few shapes, drawn when they are asked for from the specification in image_info."""

    def load_shapes(self, count, height, width):
        for number, name in enumerate(("square", "circle", "triangle"), 1):
            self.add_class("shapes", number, name)
        for i in range(count):
            bg_color, shapes = self.random_image(height, width)
            size = {"width": width, "height": height}
            self.add_image("shapes", image_id=i, path=None, **size, bg_color=bg_color, shapes=shapes)

    def load_image(self, image_id):
        info = self.image_info[image_id]
        image = np.ones([info["height"], info["width"], 3], dtype=np.uint8) * info["bg_color"].astype(np.uint8)
        for shape, color, dims in info["shapes"]:
            image = self.draw_shape(image, shape, dims, color)
        return image

    def load_mask(self, image_id):
        info = self.image_info[image_id]
        shapes = info["shapes"]
        mask = np.zeros([info["height"], info["width"], len(shapes)], dtype=np.uint8)
        for i, (shape, _, dims) in enumerate(shapes):
            mask[:, :, i] = self.draw_shape(mask[:, :, i].copy(), shape, dims, 1)
            mask[:, :, :i] *= 1 - mask[:, :, i : i + 1]  # what is drawn later hides what was drawn before
        return mask.astype(bool), np.array([self.class_names.index(s[0]) for s in shapes], np.int32)

    def draw_shape(self, image, shape, dims, color):
        x, y, s = dims
        if shape == "square":
            cv2.rectangle(image, (x - s, y - s), (x + s, y + s), color, -1)
        elif shape == "circle":
            cv2.circle(image, (x, y), s, color, -1)
        else:
            cv2.fillPoly(image, np.array([[(x, y - s), (x - s, y + s), (x + s, y + s)]], np.int32), color)
        return image

    def random_image(self, height, width):
        """Choose a background and one to three shapes that do not cover each other."""
        shapes, boxes = [], []
        for _ in range(random.randint(1, 3)):
            color = tuple(random.randint(0, 255) for _ in range(3))
            s = random.randint(height // 8, height // 5)
            x, y = random.randint(s, width - s - 1), random.randint(s, height - s - 1)
            shapes.append((random.choice(["square", "circle", "triangle"]), color, (x, y, s)))
            boxes.append([y - s, x - s, y + s, x + s])
        keep_ixs = utils.non_max_suppression(np.array(boxes), np.arange(len(boxes)), 0.3)
        bg_color = np.array([random.randint(0, 255) for _ in range(3)])
        return bg_color, [s for i, s in enumerate(shapes) if i in keep_ixs]


def get_ax(size=4):
    return plt.subplots(1, 1, figsize=(size, size))[1]


if __name__ == "__main__":
    args = parse_arguments()
    random.seed(1)
    config = ShapesConfig()
    dataset_train, dataset_val = ShapesDataset(), ShapesDataset()
    for dataset, count in ((dataset_train, 8), (dataset_val, 1)):
        dataset.load_shapes(count, config.IMAGE_SHAPE[0], config.IMAGE_SHAPE[1])
        dataset.prepare()
    class_names = dataset_train.class_names

    # Look at some samples
    for image_id in np.random.choice(dataset_train.image_ids, 2):
        image = dataset_train.load_image(image_id)
        visualize.display_top_masks(image, *dataset_train.load_mask(image_id), class_names)

    # Look at a batch as the training sees it
    generator = modellib.data_generator(
        dataset_train, config, shuffle=True, random_rois=40, batch_size=2, detection_targets=True
    )
    inputs, [mrcnn_class_ids, mrcnn_bbox, mrcnn_mask] = next(generator)
    [normalized_images, image_meta, rpn_match, rpn_bbox, gt_class_ids, gt_boxes, gt_masks, rpn_rois, rois] = inputs
    log("rois", rois)
    log("mrcnn_class_ids", mrcnn_class_ids)
    batch_image = modellib.unmold_image(normalized_images[0], config)
    backbone_shapes = modellib.compute_backbone_shapes(config, config.IMAGE_SHAPE)
    anchor_settings = config.RPN_ANCHOR_SCALES, config.RPN_ANCHOR_RATIOS
    batch_anchors = utils.generate_pyramid_anchors(
        *anchor_settings, backbone_shapes, config.BACKBONE_STRIDES, config.RPN_ANCHOR_STRIDE
    )
    visualize.draw_boxes(batch_image, boxes=batch_anchors[rpn_match[0].flatten() == 1], ax=get_ax())
    source_image_id = modellib.parse_image_meta(image_meta)["image_id"][0]

    # First the new heads alone, then all layers more gently
    model = load_model("training", config, args.weights)
    model.train(dataset_train, dataset_val, learning_rate=config.LEARNING_RATE, epochs=1, layers="heads")
    model.train(dataset_train, dataset_val, learning_rate=config.LEARNING_RATE / 10, epochs=2, layers="all")
    saved_path = os.path.join(model.model_dir, "mask_rcnn_shapes.h5")
    model.keras_model.save_weights(saved_path)

    # Detect
    inference_config = InferenceConfig()
    model = load_model("inference", inference_config, "last")
    model_path = model.find_last()
    image_id = random.choice(dataset_val.image_ids)
    original_image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(
        dataset_val, inference_config, image_id, use_mini_mask=False
    )
    log("original_image", original_image)
    visualize.display_instances(original_image, gt_bbox, gt_mask, gt_class_id, class_names, figsize=(8, 8), ax=get_ax())
    r = model.detect([original_image], verbose=1)[0]
    visualize.display_instances(
        original_image, r["rois"], r["masks"], r["class_ids"], class_names, r["scores"], ax=get_ax()
    )
    truth, found = (gt_bbox, gt_class_id, gt_mask), (r["rois"], r["class_ids"], r["scores"], r["masks"])
    thresholds = {"iou_threshold": 0.5, "score_threshold": 0.5}
    visualize.display_differences(original_image, *truth, *found, class_names, ax=get_ax(), **thresholds)

    # The same image, molded by hand
    molded_images = np.expand_dims(modellib.mold_image(original_image, inference_config), 0)
    molded_results = model.detect_molded(molded_images, np.expand_dims(image_meta, 0), verbose=1)

    # What goes on inside
    layers = {"rpn_class": "rpn_class", "proposals": "ROI", "probs": "mrcnn_class", "deltas": "mrcnn_bbox"}
    layers |= {"detections": "mrcnn_detection", "masks": "mrcnn_mask"}
    activations = model.run_graph(
        [original_image], [(name, model.keras_model.get_layer(layer).output) for name, layer in layers.items()]
    )
    proposals = utils.denorm_boxes(activations["proposals"][0], inference_config.IMAGE_SHAPE[:2])
    roi_class_ids = np.argmax(activations["probs"][0], axis=1)
    deltas = activations["deltas"][0, np.arange(len(proposals)), roi_class_ids] * inference_config.BBOX_STD_DEV
    refined = utils.apply_box_deltas(proposals.astype(np.float32), deltas).astype(np.int32)
    visualize.draw_boxes(original_image, boxes=proposals[:5], refined_boxes=refined[:5], ax=get_ax())
    visualize.display_weight_stats(model)

    # Evaluate: VOC-style AP at IoU 0.5
    AP, precisions, recalls, overlaps = utils.compute_ap(*truth, *found)
    recall_of_proposals, _ = utils.compute_recall(proposals, gt_bbox, iou=0.3)
    visualize.plot_precision_recall(AP, precisions, recalls)
    visualize.plot_overlaps(gt_class_id, r["class_ids"], r["scores"], overlaps, class_names)
