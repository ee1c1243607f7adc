"""The autoencoder that turns RoI features into latents that agree across centres."""

from mrcnn.files.start_up import hold_back_notes

# Before any module imports TensorFlow.
hold_back_notes()
