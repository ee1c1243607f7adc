"""A Matterport-style Mask R-CNN for Keras 3 that hands over the RoI features of each cell."""
