"""Classifiers of cells, kept as folders and applied to new files."""
