"""Centres, cells, the evaluation across centres, reports and the thesis' experiments."""

from mrcnn.files.start_up import hold_back_notes

# Before any module imports TensorFlow.
hold_back_notes()
