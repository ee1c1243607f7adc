"""Cells of images: the trained detector, what it finds, and their vectors."""
