"""Annotations of cells: label masks, COCO, VIA, labelme, GeoJSON and Pascal VOC."""
