"""The autoencoder that turns RoI features into latents that agree across centres."""
