"""Centres, cells, the evaluation across centres, reports and the thesis' experiments."""
