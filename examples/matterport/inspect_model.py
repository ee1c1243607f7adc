"""Look into a trained network step by step, as notebooks do: targets, proposals, heads, weights, pictures.

The images are those that shapes.py draws.

    python3 inspect_model.py look --weights=last
"""

import random

import keras
import matplotlib.pyplot as plt
import numpy as np
from shapes import InferenceConfig, ShapesDataset, get_ax
from small_detector import load_model, parse_arguments

import mrcnn.model as modellib
from mrcnn import utils, visualize

# Layers of the two heads, from the proposals to the masks
LAYERS = ["ROI", "roi_align_classifier", "mrcnn_class_conv1", "mrcnn_class_logits", "mrcnn_class"]
LAYERS += ["mrcnn_bbox_fc", "mrcnn_bbox", "mrcnn_detection", "roi_align_mask", "mrcnn_mask_conv1"]
LAYERS += ["mrcnn_mask_conv2", "mrcnn_mask_conv3", "mrcnn_mask_conv4", "mrcnn_mask_deconv", "mrcnn_mask"]

if __name__ == "__main__":
    args = parse_arguments()
    random.seed(2)
    config = InferenceConfig()
    dataset = ShapesDataset()
    dataset.load_shapes(4, config.IMAGE_SHAPE[0], config.IMAGE_SHAPE[1])
    dataset.prepare()
    model = load_model("inference", config, args.weights)

    # What the heads would be trained on, from random boxes
    generator = modellib.data_generator(
        dataset, config, shuffle=False, random_rois=1000, batch_size=3, detection_targets=True
    )
    inputs, [target_class_ids, target_bbox, target_mask] = next(generator)
    gt_boxes, (rpn_rois, rois) = inputs[5], inputs[7:]
    class_ids, rows = target_class_ids[0, :, 0], np.arange(rois.shape[1])
    refined = utils.apply_box_deltas(rois[0], target_bbox[0, rows, class_ids] * config.BBOX_STD_DEV)
    roi_masks = target_mask[0, rows, :, :, class_ids]
    sample_image = modellib.unmold_image(inputs[0][0], config)
    visualize.draw_rois(sample_image, rois[0], refined, roi_masks, class_ids, dataset.class_names)

    # An image, what is in it and what is found
    image, image_meta, gt_class_id, gt_bbox, gt_mask = modellib.load_image_gt(dataset, config, 0)
    r = model.detect([image])[0]
    found = r["rois"], r["class_ids"], r["scores"], r["masks"]
    visualize.display_differences(image, gt_bbox, gt_class_id, gt_mask, *found, dataset.class_names, ax=get_ax())

    # The proposal network
    outputs = ["rpn_class", "rpn_bbox", "ROI"]
    rpn = model.run_graph([image], [(name, model.keras_model.get_layer(name).output) for name in outputs])
    best = np.argsort(rpn["rpn_class"][0, :, 1])[::-1][:20]
    visualize.draw_boxes(image, boxes=model.anchors[best], ax=get_ax())

    # The heads, layer by layer, as Keras models of their own
    molded_images, image_metas, windows = model.mold_inputs([image])
    anchors = model.get_anchors(molded_images.shape[1:])[np.newaxis]
    heads = model.run_graph([image], [(name, model.keras_model.get_layer(name).output) for name in LAYERS])
    inputs = [molded_images, image_metas, anchors]
    parts = {name: keras.Model(model.keras_model.input, model.keras_model.get_layer(name).output) for name in LAYERS}
    activations = {name: part(inputs).numpy() for name, part in parts.items()}
    mrcnn_mask = parts["mrcnn_mask"].predict(inputs, verbose=0)
    visualize.display_images(np.transpose(activations["mrcnn_mask_conv1"][0, 0, :, :, :4], [2, 0, 1]))

    # Masks of the detections, each of its class
    detections = activations["mrcnn_detection"][0]
    found_ids = detections[:, 4].astype(np.int32)
    boxes = utils.denorm_boxes(detections[:, :4], image.shape[:2])
    small_masks = [mrcnn_mask[0, i, :, :, c] for i, c in enumerate(found_ids) if c]
    masks = [utils.unmold_mask(m, boxes[i], image.shape) for i, m in enumerate(small_masks)]

    # Weights
    names = ["conv1", "fpn_p2", "rpn_model", "mrcnn_class_logits", "mrcnn_mask"]
    _, axes = plt.subplots(1, len(names), figsize=(3 * len(names), 3))
    counts = {}
    for i, name in enumerate(names):
        kernel = model.keras_model.get_layer(name).get_weights()[0]
        counts[name], *_ = axes[i].hist(kernel.flatten(), 50)
        axes[i].set_title(name)
    visualize.display_weight_stats(model)
