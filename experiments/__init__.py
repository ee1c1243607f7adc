"""Centres, the command line, the evaluation and the report."""
