"""Matterport's name for everything that shows images, detections and weights; the files named here do the work."""

from mrcnn.displays import (
    display_differences,
    display_images,
    display_instances,
    display_top_masks,
    draw_boxes,
    draw_rois,
)
from mrcnn.drawing import apply_mask, draw_box, random_colors
from mrcnn.pictures import OVERLAY_COLORS, augmentation_sheet, draw_detections, sheet
from mrcnn.plots import display_table, display_weight_stats, plot_overlaps, plot_precision_recall

__all__ = [
    "OVERLAY_COLORS",
    "apply_mask",
    "augmentation_sheet",
    "display_differences",
    "display_images",
    "display_instances",
    "display_table",
    "display_top_masks",
    "display_weight_stats",
    "draw_box",
    "draw_boxes",
    "draw_detections",
    "draw_rois",
    "plot_overlaps",
    "plot_precision_recall",
    "random_colors",
    "sheet",
]
