"""Frames in float, ways between two of them, and frames of other people."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.attribution.fills import FILLS, fill_frame
from medground_bench.core.errors import MethodError
from medground_bench.imaging.read import read_image
from medground_bench.sources.phantom import sample_phantom

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from PIL.Image import Image

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["completeness", "float_frame", "frame_tensor", "on_frame", "reference_frames", "straight_path"]

_SUFFIXES = {".png", ".jpg", ".jpeg", ".dcm", ".dicom"}


def float_frame(episode: Episode) -> np.ndarray:
    """Grey levels of the frame, (H, W) or (H, W, 3) float64."""
    return episode.frame_array.astype(np.float64)


def on_frame(values: np.ndarray) -> np.ndarray:
    """Attributions of a frame's grey levels as a map (H, W): colour channels added up."""
    return values if values.ndim == 2 else values.sum(-1)


def frame_tensor(frame: np.ndarray) -> torch.Tensor:
    """A frame (H, W) or (H, W, 3) as a batch of one for a differentiable pass, (1, C, H, W) float32."""
    import torch

    values = torch.as_tensor(np.asarray(frame, np.float32))
    return values[None, None] if values.ndim == 2 else values.permute(2, 0, 1)[None]


def completeness(lvlm: Lvlm, episode: Episode, starts: Sequence[np.ndarray], total: np.ndarray) -> dict[str, Any]:
    """What a path method should tell (Akhtar & Jalwana, 2023), as extras; a forward for the image and each start.

    ``change`` is ``s(x) - s(start)``, added up over the starts, ``residual`` by how much attributions exceed it, and
    ``at_start`` the geometric mean probability of the response's tokens at each start: what is left of the answer.
    """
    import torch

    with torch.no_grad():
        frames = (float_frame(episode), *starts)
        tokens = [lvlm.soft_log_probs(episode, frame_tensor(one))[0].double() for one in frames]
    change = sum(float(tokens[0].sum() - one.sum()) for one in tokens[1:])
    at_start = [float(one.mean().exp()) for one in tokens[1:]]
    return {"change": change, "residual": float(total.sum()) - change, "at_start": at_start}


def straight_path(lvlm: Lvlm, episode: Episode, start: np.ndarray, steps: int) -> np.ndarray:
    """Integrated gradients of grey levels from a frame to the episode's, by the midpoint rule, like the frame."""
    frame = float_frame(episode)
    places = (np.arange(steps) + 0.5) / steps
    total = np.zeros_like(frame)
    for place in np.array_split(places, -(-steps // 16)):  # 16 frames held at a time
        path = np.stack([start + a * (frame - start) for a in place])
        total += lvlm.frame_gradients(episode, path)[1].sum(0)
    return total / steps * (frame - start)


@lru_cache(maxsize=256)
def _phantom(seed: int) -> Image:
    """A procedural normal radiograph: the same for every record."""
    from PIL import Image as pil

    return pil.fromarray(np.asarray(sample_phantom(seed, size=224, findings=[]).image))


def reference_frames(spec: str, episode: Episode, count: int, seed: int) -> np.ndarray:
    """Normal radiographs in the place of the episode's image, (count or fewer, H, W[, 3]) float64.

    Parameters
    ----------
    spec : str
        ``"phantom"``: procedural normal radiographs, for phantoms and trials; a folder of normal radiographs of other
        patients; or the name of a fill, which is one reference.
    episode : Episode
        Bars of its letterbox stay; references are stretched to its image area.
    count, seed : int
        How many are drawn, and how.

    Raises
    ------
    MethodError
        If the folder does not exist or holds no image.
    """
    if spec in FILLS:
        return fill_frame(spec, episode)[None].astype(np.float64)
    if spec == "phantom":
        images = [_phantom(8_000_000_000 + seed + k) for k in range(count)]
    else:
        folder = Path(spec).expanduser()
        files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
        if not files:
            raise MethodError(
                "no references", where=spec, expected="'phantom', a fill, or a folder of normal radiographs"
            )
        order = np.random.default_rng(seed).permutation(len(files))[:count]
        images = [read_image(files[k]) for k in order]
    frame, (x1, y1, x2, y2) = float_frame(episode), episode.letterbox.content
    out = np.repeat(frame[None], len(images), axis=0)
    for one, image in zip(out, images, strict=True):
        grey = np.asarray(image.convert("L").resize((x2 - x1, y2 - y1)), np.float64)
        one[y1:y2, x1:x2] = grey if frame.ndim == 2 else grey[..., None]
    return out
