"""Annotations of cells: label masks, COCO, VIA, labelme and Pascal VOC."""
