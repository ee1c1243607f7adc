"""A Matterport-style Mask R-CNN for Keras 3 that hands over the RoI features of each cell."""

from mrcnn.files.start_up import hold_back_notes

# Before any module imports TensorFlow.
hold_back_notes()
