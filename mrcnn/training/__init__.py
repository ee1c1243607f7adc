"""Training of the detector, and the weights that it starts from."""
