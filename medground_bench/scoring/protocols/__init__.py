"""Questions to a submission beyond overlap with the evidence: whether its maps are faithful, stable and fair.

A protocol is a function over one record of a submission that returns named numbers (see
:mod:`medground_bench.scoring.protocols.protocol`); everything else (resuming, sharing over processes, the cache of the
LVLM's scores, intervals over patients) is done by :func:`medground_bench.scoring.protocols.run.run_protocols`. Other
packages add theirs in the entry-point group ``medground_bench.protocols``.
"""
