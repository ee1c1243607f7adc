"""Evaluation across centres: vectors, classifiers, scores and their tables."""
