import inspect

import pytest

from mrcnn import model as modellib
from mrcnn import utils, visualize

# Names, order and defaults that scripts written for Matterport's package rely on.
UTILS = {
    "apply_box_deltas": "boxes, deltas",
    "batch_slice": "inputs, graph_fn, batch_size, names=None",
    "box_refinement": "box, gt_box",
    "box_refinement_graph": "box, gt_box",
    "compute_ap": "gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, "
    "iou_threshold=0.5",
    "compute_ap_range": "gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask, "
    "iou_thresholds=None, verbose=1",
    "compute_iou": "box, boxes, box_area, boxes_area",
    "compute_matches": "gt_boxes, gt_class_ids, gt_masks, pred_boxes, pred_class_ids, pred_scores, pred_masks, "
    "iou_threshold=0.5, score_threshold=0.0",
    "compute_overlaps": "boxes1, boxes2",
    "compute_overlaps_masks": "masks1, masks2",
    "compute_recall": "pred_boxes, gt_boxes, iou",
    "denorm_boxes": "boxes, shape",
    "download_trained_weights": "coco_model_path, verbose=1",
    "expand_mask": "bbox, mini_mask, image_shape",
    "extract_bboxes": "mask",
    "generate_anchors": "scales, ratios, shape, feature_stride, anchor_stride",
    "generate_pyramid_anchors": "scales, ratios, feature_shapes, feature_strides, anchor_stride",
    "minimize_mask": "bbox, mask, mini_shape",
    "non_max_suppression": "boxes, scores, threshold",
    "norm_boxes": "boxes, shape",
    "resize": "image, output_shape, order=1, mode='constant', cval=0, clip=True, preserve_range=False, "
    "anti_aliasing=False, anti_aliasing_sigma=None",
    "resize_image": "image, min_dim=None, max_dim=None, min_scale=None, mode='square'",
    "resize_mask": "mask, scale, padding, crop=None",
    "trim_zeros": "x",
    "unmold_mask": "mask, bbox, image_shape",
}
VISUALIZE = {
    "apply_mask": "image, mask, color, alpha=0.5",
    "display_differences": "image, gt_box, gt_class_id, gt_mask, pred_box, pred_class_id, pred_score, pred_mask, "
    "class_names, title='', ax=None, show_mask=True, show_box=True, iou_threshold=0.5, score_threshold=0.5",
    "display_images": "images, titles=None, cols=4, cmap=None, norm=None, interpolation=None",
    "display_instances": "image, boxes, masks, class_ids, class_names, scores=None, title='', figsize=(16; 16), "
    "ax=None, show_mask=True, show_bbox=True, colors=None, captions=None",
    "display_table": "table",
    "display_top_masks": "image, mask, class_ids, class_names, limit=4",
    "display_weight_stats": "model",
    "draw_box": "image, box, color",
    "draw_boxes": "image, boxes=None, refined_boxes=None, masks=None, captions=None, visibilities=None, title='', "
    "ax=None",
    "draw_rois": "image, rois, refined_rois, mask, class_ids, class_names, limit=10",
    "plot_overlaps": "gt_class_ids, pred_class_ids, pred_scores, overlaps, class_names, threshold=0.5",
    "plot_precision_recall": "AP, precisions, recalls",
    "random_colors": "N, bright=True",
}
MODEL = {
    "build_detection_targets": "rpn_rois, gt_class_ids, gt_boxes, gt_masks, config",
    "build_rpn_targets": "image_shape, anchors, gt_class_ids, gt_boxes, config",
    "compose_image_meta": "image_id, original_image_shape, image_shape, window, scale, active_class_ids",
    "compute_backbone_shapes": "config, image_shape",
    "data_generator": "dataset, config, shuffle=True, augment=False, augmentation=None, random_rois=0, batch_size=1, "
    "detection_targets=False, no_augmentation_sources=None",
    "generate_random_rois": "image_shape, count, gt_class_ids, gt_boxes",
    "load_image_gt": "dataset, config, image_id, augment=False, augmentation=None, use_mini_mask=False",
    "log": "text, array=None",
    "mold_image": "images, config",
    "parse_image_meta": "meta",
    "unmold_image": "normalized_images, config",
}
MASK_RCNN = {
    "__init__": "self, mode, config, model_dir",
    "ancestor": "self, tensor, name",
    "detect": "self, images, verbose=0",
    "detect_molded": "self, molded_images, image_metas, verbose=0",
    "find_last": "self",
    "find_trainable_layer": "self, layer",
    "get_anchors": "self, image_shape",
    "get_imagenet_weights": "self",
    "get_trainable_layers": "self",
    "load_weights": "self, filepath, by_name=False, exclude=None",
    "mold_inputs": "self, images",
    "run_graph": "self, images, outputs, image_metas=None",
    "set_log_dir": "self, model_path=None",
    "set_trainable": "self, layer_regex, keras_model=None, indent=0, verbose=1",
    "train": "self, train_dataset, val_dataset, learning_rate, epochs, layers, augmentation=None, "
    "custom_callbacks=None, no_augmentation_sources=None",
    "unmold_detections": "self, detections, mrcnn_mask, original_image_shape, image_shape, window",
}


def check_signature(function, wanted):
    """Compare argument names and their order, and the defaults of those that have one in `wanted`."""
    parameters = list(inspect.signature(function).parameters.values())
    for parameter, part in zip(parameters, wanted.split(", "), strict=False):
        name, _, default = part.partition("=")
        assert parameter.name == name
        if default:
            assert repr(parameter.default).replace(", ", "; ") == default
    required = len(wanted.split(", "))
    assert len(parameters) >= required
    assert all(p.default is not inspect.Parameter.empty for p in parameters[required:])


OWNERS = ((utils, UTILS), (visualize, VISUALIZE), (modellib, MODEL), (modellib.MaskRCNN, MASK_RCNN))


@pytest.mark.parametrize(("owner", "name", "wanted"), [(o, n, wanted[n]) for o, wanted in OWNERS for n in wanted])
def test_names_take_the_arguments_of_matterports(owner, name, wanted):
    assert owner is modellib.MaskRCNN or name in owner.__all__
    check_signature(getattr(owner, name), wanted)
