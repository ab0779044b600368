"""The parts of RadEdit: UNet, VAE, text encoder, tokenizer and scheduler, loaded from folders or the hub."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medground_bench.core.errors import EditorError, MissingDependencyError
from medground_bench.core.files import folder_fingerprint

__all__ = ["MAX_TEXT", "Parts", "default_scheduler", "load_parts"]

MAX_TEXT = 128
"""Longest prompt in tokens: what BioViL-T was trained with."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def default_scheduler() -> Any:
    """The DDIM scheduler that RadEdit was published with."""
    return _diffusers().DDIMScheduler(
        beta_schedule="linear",
        clip_sample=False,
        prediction_type="epsilon",
        timestep_spacing="trailing",
        steps_offset=1,
    )


@dataclass
class Parts:
    """The networks, and the few things the algorithm asks of them.

    Attributes
    ----------
    unet, vae, text_encoder, tokenizer, scheduler
        The diffusers and transformers objects. The VAE is moved to float32.
    revisions : dict of str to str
        Where each part came from: part of an edit's settings.

    Raises
    ------
    EditorError
        If the parts do not fit together.
    """

    unet: Any
    vae: Any
    text_encoder: Any
    tokenizer: Any
    scheduler: Any = None
    revisions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scheduler is None:
            self.scheduler = default_scheduler()
        latent, channels = self.vae.config.latent_channels, self.unet.config.in_channels
        if latent != channels:
            raise EditorError(f"the VAE has {latent} latent channels, the UNet takes {channels}")
        width, expected = self.text_encoder.config.hidden_size, self.unet.config.cross_attention_dim
        if width != expected:
            raise EditorError(
                f"the text encoder gives {width} numbers per token, the UNet takes {expected}",
                remedy="use the text encoder the UNet was trained with",
            )
        self.vae = self.vae.to(torch.float32)
        for part in (self.unet, self.vae, self.text_encoder):
            part.eval()
            part.requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the UNet is."""
        return torch.device(self.unet.device)

    @property
    def factor(self) -> int:
        """Pixels per latent cell along a side."""
        return int(2 ** (len(self.vae.config.block_out_channels) - 1))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the output, as plain JSON."""
        return {
            "dtype": str(self.unet.dtype).removeprefix("torch."),
            "parts": dict(self.revisions),
            "scheduler": {
                k: v
                for k, v in dict(self.scheduler.config).items()
                if not k.startswith("_") and isinstance(v, str | int | float | bool | type(None))
            },
        }

    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> scaled latents (B, C, S / factor, S / factor), the posterior's mode."""
        latents: Tensor = self.vae.encode(pixels.to(self.vae.device, torch.float32)).latent_dist.mode()
        return ((latents - self._shift) * self.vae.config.scaling_factor).to(self.device)

    def decode(self, latents: Tensor) -> NDArray[np.float32]:
        """Scaled latents -> (B, 3, S, S) float32 around [0, 1]."""
        latents = latents.to(self.vae.device, torch.float32) / self.vae.config.scaling_factor + self._shift
        pixels = torch.cat([self.vae.decode(latent[None]).sample for latent in latents])
        return ((pixels.float() + 1) / 2).cpu().numpy()

    @property
    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)

    def embed(self, prompt: str) -> Tensor:
        """Prompt -> (1, L, D), padded to the encoder's length as diffusers' text-to-image pipelines do."""
        limit = getattr(self.text_encoder.config, "max_position_embeddings", MAX_TEXT) or MAX_TEXT
        tokens = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=min(MAX_TEXT, int(limit)), return_tensors="pt"
        )
        ids = tokens.input_ids.to(self.text_encoder.device)
        # Like there, padding is masked only for encoders that were trained so.
        masked = bool(getattr(self.text_encoder.config, "use_attention_mask", False))
        output = self.text_encoder(ids, attention_mask=tokens.attention_mask.to(ids.device) if masked else None)
        hidden: Tensor = output[0] if not hasattr(output, "last_hidden_state") else output.last_hidden_state
        return hidden.to(self.device, self.unet.dtype)

    def predict(self, latents: Tensor, timestep: int, text: Tensor) -> Tensor:
        """The UNet's noise estimate, float32."""
        estimate: Tensor = self.unet(
            latents.to(self.unet.dtype), timestep, encoder_hidden_states=text, return_dict=False
        )[0]
        return estimate.float()


def load_parts(
    *,
    unet: str,
    vae: str,
    text_encoder: str,
    tokenizer: str | None = None,
    dtype: str | None = None,
    device: str | None = None,
    allow_remote_code: bool = False,
) -> Parts:
    """Load the parts; see :class:`~medground_bench.causal.editors.radedit.RadEditEditor`.

    Raises
    ------
    EditorError
        If a part cannot be found or loaded, needs remote code that is not allowed, or does not fit the others.
    MissingDependencyError
        If diffusers is not installed.
    """
    diffusers = _diffusers()
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = dtype or ("bfloat16" if place.startswith("cuda") else "float32")
    if kind not in DTYPES:
        raise EditorError(f"dtype {dtype!r}", expected=" or ".join(DTYPES))
    tokens = tokenizer or text_encoder
    # The text encoder first: it is the part that may be refused.
    encoder, words = _text(text_encoder, tokens, allow_remote_code)
    revisions: dict[str, str] = {}
    models = {}
    for name, location, module in (
        ("unet", unet, diffusers.UNet2DConditionModel),
        ("vae", vae, diffusers.AutoencoderKL),
    ):
        models[name], revisions[name] = _diffusers_part(name, location, module)
    revisions["text_encoder"] = _revision(_part(text_encoder, "text_encoder"), encoder.config)
    try:
        return Parts(
            models["unet"].to(place, DTYPES[kind]),
            models["vae"].to(place),
            encoder.to(place, DTYPES[kind]),
            words,
            revisions=revisions,
        )
    except RuntimeError as error:  # an unknown device, or one that is full
        raise EditorError(f"the parts cannot be moved to {place!r}: {error}") from error


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError(
            "the editor 'radedit' needs diffusers", remedy="pip install 'medground-bench[radedit]'"
        ) from error
    return diffusers


def _part(location: str, name: str) -> str:
    """Folder or hub id of a part; of a folder that holds all parts, the part's own subfolder."""
    path = Path(location).expanduser()
    if not path.exists():
        return location
    if (path / name / "config.json").is_file() or (path / name / "tokenizer_config.json").is_file():
        return str(path / name)
    return str(path)


def _diffusers_part(name: str, location: str, kind: Any) -> tuple[Any, str]:
    where = _part(location, name)
    folders: tuple[str | None, ...] = (None,) if Path(where).exists() else (name, None)
    for subfolder in folders:
        try:
            _, commit = kind.load_config(where, subfolder=subfolder, return_commit_hash=True)
            # use_safetensors: weights come as tensors, never as a pickle.
            model = kind.from_pretrained(where, subfolder=subfolder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            problem: Exception = error
            continue
        return model, commit or _revision(where, None)
    raise _unloadable(name, location, problem) from problem


def _text(location: str, tokenizer: str, allow_remote_code: bool) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer, CLIPTextModel
    from transformers.configuration_utils import PretrainedConfig

    where = _part(location, "text_encoder")
    tokens = _part(tokenizer, "tokenizer")
    if tokens == where:
        sibling = Path(where).parent / "tokenizer"
        if not (Path(where) / "tokenizer_config.json").is_file() and sibling.is_dir():
            tokens = str(sibling)
    try:
        raw, _ = PretrainedConfig.get_config_dict(where)
        if not raw:
            raise OSError("it has no config.json")
    except (OSError, ValueError) as error:
        raise _unloadable("text encoder", location, error) from error
    if raw.get("auto_map") and not allow_remote_code:
        raise EditorError(
            "this text encoder brings Python code of its own, which would be run on this machine",
            where=location,
            expected="a text encoder that transformers knows (CLIP, BERT), or your permission",
            remedy="read the code in its repository, then allow it: --editor-set allow_remote_code=true",
        )
    try:
        kind = CLIPTextModel if raw.get("model_type") in ("clip", "clip_text_model") else AutoModel
        remote = {"trust_remote_code": True} if raw.get("auto_map") else {}
        model = kind.from_pretrained(where, use_safetensors=True, **remote)
        return model, AutoTokenizer.from_pretrained(tokens, **remote)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, ImportError, AttributeError) as error:
        raise _unloadable("text encoder", location, error) from error


def _unloadable(name: str, location: str, error: Exception) -> EditorError:
    return EditorError(
        f"the {name} cannot be loaded: {str(error).strip().splitlines()[0] if str(error).strip() else error!r}",
        where=location,
        expected="a folder with config.json and safetensors weights, or a hub id that can be reached",
        remedy="download it with 'hf download' and give the folder, e.g. --editor-set "
        + name.replace(" ", "_")
        + "=DIR",
    )


def _revision(where: str, config: Any) -> str:
    commit = getattr(config, "_commit_hash", None)
    if commit:
        return str(commit)
    if Path(where).is_dir():
        return folder_fingerprint(Path(where))
    return where
