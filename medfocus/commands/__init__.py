"""Console commands that MedFocus adds through the entry-point group ``medground_bench.commands``."""
