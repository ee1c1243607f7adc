"""Morphometry: what a haematologist reads from one cell, as named numbers."""

from mrcnn.morphology.detections import measure_detections
from mrcnn.morphology.measurement import COLUMNS, column_names, measure
from mrcnn.morphology.surroundings import Surroundings, describe_surroundings

__all__ = ["COLUMNS", "Surroundings", "column_names", "describe_surroundings", "measure", "measure_detections"]
