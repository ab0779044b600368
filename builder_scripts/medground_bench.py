"""Loading script for ``datasets<4``.

    load_dataset("builder_scripts/medground_bench.py", "direct", trust_remote_code=True,
                 sources={"imagenome": DIR, "vindr_cxr": DIR, "padchest_gr": DIR}, records="direct.json")

It is the builder of the installed package, ``medground_bench.dataset.builder``. From ``datasets`` 4 on, scripts are
not loaded any more: build a folder with ``medground-bench build`` and load that, or use the builder class itself.
"""

from medground_bench.dataset.builder import MedGroundBench as _MedGroundBench


class MedGroundBench(_MedGroundBench):
    """MedGround-Bench: configs direct, reason and candidates, split test."""
