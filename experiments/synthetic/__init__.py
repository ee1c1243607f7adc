"""Synthetic smears with exact masks and labels."""
