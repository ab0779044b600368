"""Verdicts or released files -> records -> a dataset folder and its publication."""
