"""Figures as PNG, PDF and JSON."""
