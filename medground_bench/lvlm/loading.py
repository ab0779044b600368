"""From a key, hub id or folder to an :class:`Lvlm`."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import LvlmError, MissingDependencyError, nearest
from medground_bench.core.files import folder_fingerprint
from medground_bench.core.schema import LVLMS
from medground_bench.lvlm.families import TWO_TOWERS, family_of
from medground_bench.lvlm.server.address import PREFIX
from medground_bench.lvlm.server.model import ServerLvlm
from medground_bench.lvlm.toy import TOYS

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm.model import Lvlm

__all__ = ["load_lvlm"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


def load_lvlm(
    key_or_path: str | Path,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    attention: str | None = None,
    *,
    key: str | None = None,
    revision: str | None = None,
    memory_budget: int | None = None,
    decoding: Mapping[str, Any] | None = None,
    bits: int | None = None,
) -> Lvlm:
    """Load a vision-language model for scoring, generation and attribution.

    Parameters
    ----------
    key_or_path : str or Path
        A key of :data:`medground_bench.core.schema.LVLMS`, ``toy_qwen`` or ``toy_gemma``, a hub id or a local folder
        with model and processor of any family behind ``AutoModelForImageTextToText``, or a model at an
        OpenAI-compatible server, ``openai:MODEL@http://HOST:PORT/v1`` (then
        :class:`~medground_bench.lvlm.server.model.ServerLvlm` stands for it, and device, type, attention and budget are
        the server's), or a two-tower model (CLIP, SigLIP: a
        :class:`~medground_bench.lvlm.two_tower.TwoTower` stands for it).
    dtype : str or torch.dtype, optional
        Default: bfloat16 on a GPU, float32 on a CPU.
    device : str or torch.device, optional
        Default: the GPU if there is one, else the CPU. ``"auto"`` spreads the model over what there is.
    attention : str, optional
        Attention kernel: ``"sdpa"`` (default), ``"eager"``, ... Score in the kernel that generated: they differ in
        the last bits.
    key : str, optional
        Name of the LVLM in verdicts, records and submissions; by default what it was asked for by.
    revision : str, optional
        Commit, branch or tag on the hub.
    memory_budget : int, optional
        Bytes that a batch may use beyond the weights.
    decoding : mapping, optional
        Logits processors beside greedy decoding, such as ``{"repetition_penalty": 1.05}``. Without it there are none,
        whatever the model's stored generation configuration says.
    bits : {8, 4}, optional
        Load the weights in so many bits with bitsandbytes, for models that do not fit otherwise. Meant for the filter
        and black-box methods; the numbers are those of the quantised model, which the provenance says.

    Returns
    -------
    Lvlm

    Raises
    ------
    LvlmError
        If the name is unknown, the folder incomplete, the family unsupported, the hub out of reach or the device
        absent.
    MissingDependencyError
        If torch, torchvision or transformers is not installed.

    Notes
    -----
    Models of a few million parameters, such as the toys, are many times faster with ``torch.set_num_threads(1)``. The
    commands see to that themselves (``medground-bench --threads``).
    """
    asked = str(key_or_path)
    if asked.startswith(PREFIX):
        if dtype is not None or attention is not None or revision is not None or bits is not None:
            raise LvlmError(
                "type, bits, attention and revision are the server's choice", where=asked.rpartition("@")[0]
            )
        served: Any = ServerLvlm.connect(asked, key=key, decoding=decoding)
        return served
    check_dependencies()
    location, hub_id = _resolve(key_or_path)
    place = _device(device)
    _check_bits(bits)
    kind = _dtype(dtype, place)

    from medground_bench.lvlm.model import Lvlm

    config, commit = _config(location, revision)
    kind_of_model = config.get("model_type")
    if kind_of_model in TWO_TOWERS:
        if decoding or bits:
            raise LvlmError("a two-tower model is small and decodes nothing", where=asked)
        two: Any = _two_towers(location, commit or revision, kind, place, key or asked, hub_id)
        return two
    family = family_of(kind_of_model, where=asked, written_by=config.get("transformers_version"), auto_map=config)
    if isinstance(location, Path):
        _check_folder(location)
        commit = _snapshot(location) or folder_fingerprint(location)
    else:
        revision = commit or revision  # all parts from one commit, whatever is pushed meanwhile
    with _quiet():
        processor = _processor(location, revision)
        model = _model(location, revision, kind, place, attention or "sdpa", bits)
    model.requires_grad_(False)
    return Lvlm(
        model,
        processor,
        family,
        key=key or asked,
        hub_id=hub_id,
        revision=commit,
        memory_budget=memory_budget,
        decoding=decoding,
        bits=bits,
    )


def _check_bits(bits: int | None) -> None:
    if bits not in (None, 4, 8):
        raise LvlmError(f"weights of {bits} bits cannot be loaded", expected="8 or 4")
    if bits is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise MissingDependencyError(
            f"loading in {bits} bits needs the package bitsandbytes", remedy="pip install bitsandbytes"
        )


def check_dependencies() -> None:
    """Raise :class:`MissingDependencyError` if a package that LVLMs need is not installed."""
    for package in ("torch", "torchvision", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise MissingDependencyError(
                f"vision-language models need the package {package}",
                remedy="pip install 'medground-bench[lvlm]'",
            )


def _toys() -> dict[str, Path]:
    if importlib.util.find_spec("medground_bench.lvlm.toy") is None:
        return {}
    return {name: Path(folder) for name, folder in TOYS.items()}


def _resolve(key_or_path: str | Path) -> tuple[str | Path, str]:
    """What to load from, a hub id or an existing folder, and the name to record."""
    key = str(key_or_path)
    toys = _toys()
    if key in LVLMS:
        return LVLMS[key], LVLMS[key]
    if key in toys:
        return toys[key], key
    path = Path(key).expanduser()
    if path.is_dir():
        return path, str(path)
    if path.exists():
        raise LvlmError("this is a file", where=path, expected="a folder with config.json, weights and processor")
    if isinstance(key_or_path, str) and _HUB_ID.fullmatch(key):
        return key, key
    if key.startswith((".", "/", "~")) or isinstance(key_or_path, Path):
        raise LvlmError(
            "there is no such folder", where=path, expected="a folder with config.json, weights and processor"
        )
    known = [*LVLMS, *toys]
    raise LvlmError(
        f"there is no LVLM {key!r}",
        expected=f"one of {', '.join(known)}, a hub id (owner/name) or a folder",
        remedy=nearest(key, known),
    )


def _device(device: str | torch.device | None) -> torch.device | str:
    import torch

    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "auto":
        return "auto"
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise LvlmError(f"there is no device {device!r}", expected="cpu, cuda, cuda:0, ... or auto") from error
    if place.type == "cuda":
        if not torch.cuda.is_available():
            raise LvlmError("no CUDA device is available", remedy="use device='cpu', or install a CUDA build of torch")
        if place.index is not None and place.index >= torch.cuda.device_count():
            raise LvlmError(f"there is no {place}", expected=f"one of {torch.cuda.device_count()} CUDA device(s)")
    if place.type == "mps" and not torch.backends.mps.is_available():
        raise LvlmError("no MPS device is available", remedy="use device='cpu'")
    return place


def _dtype(dtype: str | torch.dtype | None, place: torch.device | str) -> torch.dtype:
    import torch

    if dtype is None:
        on_gpu = torch.cuda.is_available() if isinstance(place, str) else place.type != "cpu"
        return torch.bfloat16 if on_gpu else torch.float32
    kind = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise LvlmError(f"{dtype!r} is no floating-point type", expected="float32, bfloat16 or float16")
    return kind


def _config(location: str | Path, revision: str | None) -> tuple[dict[str, Any], str | None]:
    """The configuration as it is written, and the commit it came from (of a hub id)."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(location, Path) and (location / "adapter_config.json").is_file():
        raise LvlmError(
            "the folder holds a PEFT adapter, not a whole model",
            where=location,
            expected="a model saved by save_pretrained",
            remedy="merge it (model.merge_and_unload()) and save model and processor, or wrap the loaded model with "
            "Lvlm.from_parts(model, processor)",
        )
    if isinstance(location, Path) and not (location / "config.json").is_file():
        raise LvlmError("the folder has no config.json", where=location, expected="a model saved by save_pretrained")
    try:
        if isinstance(location, Path):
            path = location / "config.json"
        else:
            path = Path(hf_hub_download(location, "config.json", revision=revision))
        config = json.loads(path.read_text(encoding="utf-8"))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _unreachable(location, "the configuration", error) from error
    if not isinstance(config, dict):
        raise LvlmError("config.json is no configuration", where=location, expected="a JSON object")
    return config, None if isinstance(location, Path) else _snapshot(path.parent)


def _check_folder(folder: Path) -> None:
    has = {p.name for p in folder.iterdir()}
    if not has & {"processor_config.json", "preprocessor_config.json"}:
        raise LvlmError(
            "the folder has no processor",
            where=folder,
            expected="processor_config.json or preprocessor_config.json beside the weights",
            remedy="save it there with processor.save_pretrained(folder)",
        )
    if not has & {"tokenizer.json", "tokenizer.model"}:
        raise LvlmError("the folder has no tokenizer", where=folder, expected="tokenizer.json or tokenizer.model")
    if not any(name.endswith(".safetensors") for name in has):
        raise LvlmError(
            "the folder has no weights", where=folder, expected="*.safetensors (pickled weights are not read)"
        )


def _processor(location: str | Path, revision: str | None) -> Any:
    from transformers import AutoProcessor

    try:
        processor = AutoProcessor.from_pretrained(location, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise _unreachable(location, "the processor", error) from error
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise LvlmError(f"the processor has no {part.replace('_', ' ')}", where=location)
    if not getattr(processor, "chat_template", None):
        processor.chat_template = getattr(processor.tokenizer, "chat_template", None)
    if not processor.chat_template:
        raise LvlmError(
            "the processor has no chat template",
            where=location,
            expected="chat_template.jinja beside it, or one in tokenizer_config.json",
        )
    return processor


def _model(
    location: str | Path,
    revision: str | None,
    dtype: torch.dtype,
    place: torch.device | str,
    kernel: str,
    bits: int | None = None,
) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForImageTextToText

    placement: dict[str, Any] = {"device_map": "auto"} if place == "auto" else {}
    if bits is not None:
        from transformers import BitsAndBytesConfig

        few = {"load_in_8bit": True} if bits == 8 else {"load_in_4bit": True, "bnb_4bit_compute_dtype": dtype}
        placement |= {"quantization_config": BitsAndBytesConfig(**few)}
        placement.setdefault("device_map", {"": place})
    try:
        model, info = AutoModelForImageTextToText.from_pretrained(
            location,
            revision=revision,
            dtype=dtype,
            attn_implementation=kernel,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **placement,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if "attn_implementation" in str(error) or "FlashAttention" in str(error):
            raise LvlmError(
                f"the attention kernel {kernel!r} cannot be used: {_first_line(error)}",
                expected="a kernel of transformers that is installed",
                remedy="attention='sdpa'",
            ) from error
        raise _unreachable(location, "the model", error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        # transformers only warns and leaves such weights random: every number after that would be noise.
        raise LvlmError(
            f"the weights lack {len(missing)} tensors, {missing[0]} among them",
            where=location,
            expected="the complete weights of the model in config.json",
        )
    return model if placement else model.to(place)


def _two_towers(
    location: str | Path, revision: str | None, dtype: torch.dtype, place: torch.device | str, key: str, hub_id: str
) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoProcessor

    from medground_bench.lvlm.two_tower import TwoTower

    if isinstance(location, Path):
        _check_folder(location)
    options = {} if isinstance(location, Path) else {"revision": revision}
    with _quiet():
        try:
            processor = AutoProcessor.from_pretrained(location, trust_remote_code=False, **options)
            model, info = AutoModel.from_pretrained(
                location,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError) as error:
            raise _unreachable(location, "the two-tower model", error) from error
    for part in ("image_processor", "tokenizer"):
        if getattr(processor, part, None) is None:
            raise LvlmError(f"the processor has no {part.replace('_', ' ')}", where=location)
    if missing := sorted(info["missing_keys"]):
        raise LvlmError(f"the weights lack {len(missing)} tensors, {missing[0]} among them", where=location)
    model.requires_grad_(False)
    commit = _snapshot(location) or folder_fingerprint(location) if isinstance(location, Path) else revision
    device = "cpu" if isinstance(place, str) else place
    return TwoTower(model.to(device), processor, key=key, hub_id=hub_id, revision=commit)


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers where nobody watches them."""
    from transformers.utils import logging

    if sys.stderr.isatty() or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _unreachable(location: str | Path, what: str, error: Exception) -> LvlmError:
    message = f"{what} cannot be loaded: {_first_line(error)}"
    if isinstance(location, Path):
        return LvlmError(message, where=location, expected="a complete model saved by save_pretrained")
    return LvlmError(
        message,
        where=location,
        remedy="check the id (or path) and the network; gated models need their licence accepted and `hf auth login`",
    )


def _snapshot(folder: Path) -> str | None:
    """Commit of a snapshot folder in the hub's cache (whose files, not folders, are links)."""
    folder = folder.absolute()
    if folder.parent.name == "snapshots" and _SNAPSHOT.fullmatch(folder.name):
        return folder.name
    return None
