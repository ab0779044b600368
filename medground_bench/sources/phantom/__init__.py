"""Procedural chest radiographs with exact masks of anatomy and findings, and exact counterfactuals.

>>> from medground_bench.sources.phantom import sample_phantom
>>> phantom = sample_phantom(7, size=224, findings=["pleural effusion"])
>>> phantom.image.shape, phantom.findings[0].attribute
((224, 224), 'pleural effusion')
>>> normal = phantom.without("pleural effusion")
"""

from __future__ import annotations

from medground_bench.sources.phantom.findings import FINDINGS
from medground_bench.sources.phantom.sample import Finding, Phantom, mask_box, sample_phantom
from medground_bench.sources.phantom.source import INFO, read
from medground_bench.sources.phantom.writers import LAYOUTS, WrittenSource, write_source

__all__ = [
    "FINDINGS",
    "INFO",
    "LAYOUTS",
    "Finding",
    "Phantom",
    "WrittenSource",
    "mask_box",
    "read",
    "sample_phantom",
    "write_source",
]
