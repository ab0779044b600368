"""``medground-bench doctor``: what is installed, found and free on this machine."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Any

import typer

__all__ = ["command"]

MODELS = {
    "RadEdit": "microsoft/radedit",
    "RadEdit's VAE": "stabilityai/sdxl-vae",
    "RadEdit's text encoder": "microsoft/BiomedVLP-BioViL-T",
    "detector": "google/owlvit-base-patch32",
}
"""What else than LVLMs is downloaded where it is used -> its repository."""


class Format(str, Enum):
    """How it is printed."""

    text = "text"
    json = "json"


def command(
    format_: Format = typer.Option(Format.text, "--format", help="text for people, json for a bug report."),
) -> None:
    """Tell versions, device, extras, methods, weights, caches and free space. Nothing is downloaded.

    Example: medground-bench doctor --format json
    """
    import json

    from medground_bench.core.console import stdout

    found = _examine()
    if format_ is Format.json:
        typer.echo(json.dumps(found, indent=2))
        return
    for title, facts in found.items():
        stdout.print(title, style="bold")
        for name, fact in facts.items():
            stdout.print(f"  {name:<28} {fact}", markup=False, highlight=False, soft_wrap=True)


def _examine() -> dict[str, dict[str, Any]]:
    from medground_bench.attribution.method import describe_methods
    from medground_bench.core.versions import software_versions

    methods = describe_methods()
    broken = {m["name"]: m["error"].splitlines()[0] for m in methods if m["error"]}
    return {
        "versions": software_versions(),
        "device": _device(),
        "extras": _extras(),
        "methods": {"usable": len(methods) - len(broken), **broken},
        "weights": _weights(),
        "caches": _caches(),
        "free space": _space(),
    }


def _device() -> dict[str, str]:
    import platform

    facts = {"platform": platform.platform(), "processors": str(os.cpu_count())}
    try:
        import torch
    except ImportError:
        return {**facts, "GPU": "torch is not installed"}
    facts["threads of torch"] = str(torch.get_num_threads())
    for k in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(k)
        facts[f"cuda:{k}"] = f"{torch.cuda.get_device_name(k)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if not torch.cuda.device_count():
        facts["GPU"] = "none that torch can use"
    return facts


def _extras() -> dict[str, str]:
    """Extra -> whether what it declares is installed in versions that it accepts."""
    from importlib import metadata

    from packaging.requirements import Requirement

    from medground_bench.core.versions import distribution_version

    name = "medground-bench"
    requirements = [Requirement(text) for text in metadata.requires(name) or ()]
    extras = metadata.metadata(name).get_all("Provides-Extra") or []
    found = {}
    for extra in ["", *(one for one in extras if one not in ("all", "dev"))]:
        wrong = []
        for one in requirements:
            base = one.marker is None or one.marker.evaluate({"extra": ""})
            asked = base if not extra else not base and one.marker is not None and one.marker.evaluate({"extra": extra})
            version = distribution_version(one.name)
            if (
                asked
                and one.name != name
                and (version is None or not one.specifier.contains(version, prereleases=True))
            ):
                wrong.append(f"{one.name}{one.specifier}" + (f" (is {version})" if version else ""))
        key = f"[{extra}]" if extra else "core"
        found[key] = "installed" if not wrong else "lacks " + ", ".join(wrong)
    return found


def _weights() -> dict[str, str]:
    from importlib.util import find_spec

    from huggingface_hub import try_to_load_from_cache

    from medground_bench.core.schema import LVLMS

    found = {}
    if find_spec("torch") is not None:
        from medground_bench.lvlm.toy import TOYS

        found = {key: "ships" if any(Path(folder).glob("*.safetensors")) else "missing" for key, folder in TOYS.items()}
    for name, repo in {**LVLMS, **MODELS}.items():
        cached = any(
            isinstance(try_to_load_from_cache(repo, file), str)
            for file in ("config.json", "model_index.json", "preprocessor_config.json", "unet/config.json")
        )
        found[name] = f"{repo}: {'in the cache' if cached else 'not on this machine; downloaded when it is used'}"
    return found


def _caches() -> dict[str, str]:
    from huggingface_hub import constants

    from medground_bench.core.files import cache_folder

    places = {"of this project": cache_folder("x").parent, "of the Hub": Path(constants.HF_HUB_CACHE)}
    return {name: f"{path} ({_state(path)})" for name, path in places.items()}


def _state(path: Path) -> str:
    """Size of a folder, and whether it can be written."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    writable = "" if os.access(there, os.W_OK) else ", cannot be written"
    if not path.is_dir():
        return "not made yet" + writable
    size = 0
    for root, _, names in os.walk(path):
        for name in names:
            try:
                size += (Path(root) / name).lstat().st_size
            except OSError:  # gone meanwhile
                continue
    return f"{size / 1e9:.2f} GB{writable}"


def _space() -> dict[str, str]:
    import shutil
    import tempfile

    places = {"here": Path.cwd(), "temporary files": Path(tempfile.gettempdir())}
    return {name: f"{shutil.disk_usage(path).free / 1e9:.1f} GB ({path})" for name, path in places.items()}
