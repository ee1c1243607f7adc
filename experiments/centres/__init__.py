"""Centres: folders of images with labels and masks, their cell types, splits and checks."""
