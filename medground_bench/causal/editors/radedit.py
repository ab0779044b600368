"""RadEdit (Perez-Garcia et al. 2024): diffusion editing of radiographs inside a mask, on diffusers parts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medground_bench.causal.editors.base import Editor, EditRequest, Progress
from medground_bench.causal.editors.diffusion import Schedule, Trajectory, invert, reverse
from medground_bench.causal.editors.parts import MAX_TEXT, Parts, load_parts
from medground_bench.core.errors import EditorError
from medground_bench.imaging import Letterbox

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["RadEditEditor"]

_NEAR, _FAR = 2, 4  # latent cells from the edit: the decoded edit up to the first, the round trip from the second on
_BLACK = 1.0 / 255.0  # standard deviation of an image in [0, 1] that shows nothing


class RadEditEditor(Editor):
    """Edits a radiograph by masked reverse diffusion from its own inversion.

    The image is letterboxed to ``size``, encoded and inverted with the empty prompt; reverse steps reuse the inverted
    noise, guided by the prompt inside the edit mask, and the inverted latents are pasted back everywhere else. Image,
    seed and settings decide the inversion, so edits of one image with one seed share it. A decoder's normalisation and
    attention spread an edit over the whole image, faintly; beyond a few latent cells from the edit the pixels of the
    plain round trip take over, so that the kept region is the round trip exactly.

    Parameters
    ----------
    unet, vae, text_encoder, tokenizer : str or path
        Folder or hub id of each part; a folder that holds the part in a subfolder of its name will do. The tokenizer
        is the text encoder's unless given.
    size : int
        Side of the square the diffusion works on, pixels: 512 (what the network was trained at); the paper's
        benchmark used 224.
    steps, guidance, skip_ratio : int, float, float
        N, the guidance weight and the share of the noisiest steps that is skipped.
    dtype : {"float32", "bfloat16"}, optional
        Of the UNet and the text encoder; bfloat16 on a GPU and float32 on a CPU by default. The VAE always runs in
        float32: in half precision its decoder overflows, which gives black images.
    device : str, optional
        A GPU if there is one.
    batch_size : int
        Edits per network call. Does not change what an edit is.
    keep_pixels : bool
        Puts the original pixels back outside the mask. By default the whole decoded image is the edit, as in the
        paper, and the round trip through the VAE shows outside the mask too (as "leakage" in the edit's quality).
    allow_remote_code : bool
        Lets the text encoder's repository run its own Python code (BioViL-T needs it).
    seed_offset : int
        Added to every seed.

    Raises
    ------
    EditorError
        If a part cannot be loaded, the parts do not fit together, or a setting is out of range.
    MissingDependencyError
        If diffusers is not installed.
    """

    name = "radedit"

    def __init__(
        self,
        unet: str = "microsoft/radedit",
        vae: str = "stabilityai/sdxl-vae",
        text_encoder: str = "microsoft/BiomedVLP-BioViL-T",
        tokenizer: str | None = None,
        size: int = 512,
        steps: int = 200,
        guidance: float = 7.5,
        skip_ratio: float = 0.3,
        dtype: str | None = None,
        device: str | None = None,
        batch_size: int = 4,
        keep_pixels: bool = False,
        allow_remote_code: bool = False,
        seed_offset: int = 0,
    ) -> None:
        self._configure(size, steps, guidance, skip_ratio, batch_size, keep_pixels, seed_offset)
        self._bind(
            load_parts(
                unet=unet,
                vae=vae,
                text_encoder=text_encoder,
                tokenizer=tokenizer,
                dtype=dtype,
                device=device,
                allow_remote_code=allow_remote_code,
            )
        )

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        *,
        size: int = 512,
        steps: int = 200,
        guidance: float = 7.5,
        skip_ratio: float = 0.3,
        batch_size: int = 4,
        keep_pixels: bool = False,
        seed_offset: int = 0,
    ) -> RadEditEditor:
        """An editor from parts that are already in memory."""
        self = cls.__new__(cls)
        self._configure(size, steps, guidance, skip_ratio, batch_size, keep_pixels, seed_offset)
        self._bind(parts)
        return self

    def _configure(
        self,
        size: int,
        steps: int,
        guidance: float,
        skip_ratio: float,
        batch_size: int,
        keep_pixels: bool,
        seed_offset: int,
    ) -> None:
        for setting, value, fine, expected in (
            ("size", size, 8 <= size <= 4096, "8 to 4096 pixels"),
            ("steps", steps, 1 <= steps <= 1000, "1 to 1000"),
            ("guidance", guidance, np.isfinite(guidance) and guidance >= 0, "a finite number from 0"),
            ("skip_ratio", skip_ratio, 0 <= skip_ratio < 1, "from 0 to below 1"),
            ("batch_size", batch_size, batch_size >= 1, "at least 1"),
        ):
            if not fine:
                raise EditorError(f"{setting} is {value}", expected=expected)
        self.size, self.steps, self.guidance, self.skip_ratio = size, steps, float(guidance), float(skip_ratio)
        self.batch_size, self.keep_pixels, self.seed_offset = batch_size, bool(keep_pixels), int(seed_offset)

    def _bind(self, parts: Parts) -> None:
        self.parts = parts
        if self.size % parts.factor:
            raise EditorError(
                f"size {self.size} does not fit the VAE", expected=f"a multiple of its factor {parts.factor}"
            )
        if self.steps > parts.scheduler.config.num_train_timesteps:
            raise EditorError(
                f"{self.steps} steps", expected=f"at most the {parts.scheduler.config.num_train_timesteps} of training"
            )
        self._schedule = Schedule.of(parts.scheduler, self.steps, self.skip_ratio)
        self._texts: dict[str, Tensor] = {}
        self._inverted: OrderedDict[tuple[str, int], _Inverted] = OrderedDict()

    @property
    def settings(self) -> Mapping[str, Any]:
        return {
            "name": self.name,
            "size": self.size,
            "steps": self.steps,
            "guidance": self.guidance,
            "skip_ratio": self.skip_ratio,
            "keep_pixels": self.keep_pixels,
            "seed_offset": self.seed_offset,
            "max_text": MAX_TEXT,
            **self.parts.settings,
        }

    # -- pieces, in the frame ------------------------------------------------------------------------------------

    @torch.inference_mode()
    def round_trip(self, image: Image) -> Image:
        """The image through letterbox, VAE and back: what an edit that changes nothing looks like."""
        box = Letterbox.fit(*image.size, self.size)
        (pixels,) = self.parts.decode(self.parts.encode(self._frame(image, box)))
        return _to_native(pixels, box, image.mode)

    def latent_masks(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """A native mask on the latent grid: (edit, keep), complementary, each (size / factor, size / factor).

        A cell is edited when at least half of it is; the padding is kept. A region too small for that still gets
        the cell it covers most, and so does a kept one.
        """
        from PIL import Image as pil

        height, width = mask.shape
        box = Letterbox.fit(width, height, self.size)
        x1, y1, x2, y2 = box.content
        frame = np.zeros((self.size, self.size), np.float32)
        shrunk = pil.fromarray(mask.astype(np.float32)).resize((x2 - x1, y2 - y1), pil.Resampling.BOX)
        frame[y1:y2, x1:x2] = np.asarray(shrunk)
        inside = np.zeros_like(frame)
        inside[y1:y2, x1:x2] = 1.0
        share, content = _pool(frame, self.parts.factor), _pool(inside, self.parts.factor)
        edit = share >= 0.5
        if mask.any() and not edit.any():
            edit.flat[share.argmax()] = True
        if not mask.all() and edit[content >= 0.5].all():
            edit.flat[(content - share).argmax()] = False
        return edit, ~edit

    def _frame(self, image: Image, box: Letterbox) -> Tensor:
        array = np.asarray(box.apply(image.convert("RGB")), np.float32) / 127.5 - 1.0
        return torch.from_numpy(array).permute(2, 0, 1)[None].to(self.parts.device)

    def _embed(self, prompt: str) -> Tensor:
        if prompt not in self._texts:
            self._texts[prompt] = self.parts.embed(prompt)
        return self._texts[prompt]

    # -- edits ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _edit_batch(self, requests: Sequence[EditRequest], progress: Progress | None) -> list[Image | EditorError]:
        # Neighbours share inversions: keep requests of one image together.
        order = sorted(range(len(requests)), key=lambda i: (requests[i].image_digest, requests[i].seed, i))
        out: dict[int, Image | EditorError] = {}
        work = _Work(len(self._schedule), len(requests), progress)
        for start in range(0, len(order), self.batch_size):
            chunk = order[start : start + self.batch_size]
            for i, outcome in zip(chunk, self._edit_chunk([requests[i] for i in chunk], work), strict=True):
                out[i] = outcome
        return [out[i] for i in range(len(requests))]

    def _edit_chunk(self, requests: Sequence[EditRequest], work: _Work) -> list[Image | EditorError]:
        inverted = self._invert(requests, work)
        edit = np.stack([self.latent_masks(request.mask)[0] for request in requests])
        latents = self._reverse(requests, inverted, edit, work)
        return [self._finish(*arguments) for arguments in zip(requests, latents, inverted, edit, strict=True)]

    def _reverse(
        self, requests: Sequence[EditRequest], inverted: Sequence[_Inverted], edit: NDArray[np.bool_], work: _Work
    ) -> Tensor:
        acts = torch.from_numpy(edit).to(self.parts.device, torch.float32)[:, None]
        return reverse(
            self.parts.predict,
            self._schedule,
            [one.trajectory for one in inverted],
            torch.cat([self._embed(request.prompt) for request in requests]),
            self._embed(""),
            self.guidance,
            acts,
            1 - acts,
            lambda: work.tick(len(requests)),
        )

    def _invert(self, requests: Sequence[EditRequest], work: _Work) -> list[_Inverted]:
        keys = [(request.image_digest, request.seed) for request in requests]
        missing = {key: r for key, r in zip(keys, requests, strict=True) if key not in self._inverted}
        if missing:
            frames = [self._frame(r.image, Letterbox.fit(*r.image.size, self.size)) for r in missing.values()]
            # One by one through the VAE: at 512 pixels its activations, not the UNet's, are what fills a GPU.
            x0 = torch.cat([self.parts.encode(frame) for frame in frames])
            seeds = [r.seed + self.seed_offset for r in missing.values()]
            found = invert(
                self.parts.predict, self._schedule, x0, self._embed(""), seeds, lambda: work.tick(len(missing))
            )
            plain = self.parts.decode(x0)
            self._inverted.update({key: _Inverted(t, p) for key, t, p in zip(missing, found, plain, strict=True)})
        out = [self._inverted[key] for key in keys]
        for key in keys:
            self._inverted.move_to_end(key)
        while len(self._inverted) > max(8, self.batch_size):
            self._inverted.popitem(last=False)
        return out

    def _finish(
        self, request: EditRequest, latent: Tensor, inverted: _Inverted, edit: NDArray[np.bool_]
    ) -> Image | EditorError:
        if not torch.isfinite(latent).all():
            return EditorError(
                "the diffusion diverged: the edited latents are not finite",
                remedy="use dtype=float32 or a lower guidance",
            )
        (pixels,) = self.parts.decode(latent[None])
        if not np.isfinite(pixels).all():
            return EditorError("the decoded image is not finite", remedy="keep the VAE in float32")
        if np.clip(pixels, 0.0, 1.0).std() < _BLACK <= np.asarray(request.image, np.float32).std() / 255.0:
            return EditorError(
                "the decoded image is black or of one grey", remedy="check the VAE and its scaling factor"
            )
        weight = np.kron(_nearness(edit), np.ones((self.parts.factor, self.parts.factor), np.float32))
        pixels = weight * pixels + (1 - weight) * inverted.round_trip
        edited = _to_native(pixels, Letterbox.fit(*request.image.size, self.size), request.image.mode)
        if not self.keep_pixels:
            return edited
        from PIL import Image as pil

        return pil.composite(edited, request.image, pil.fromarray(request.mask.astype(np.uint8) * 255, "L"))


class _Inverted(NamedTuple):
    """What is remembered of an image: its inversion, and its round trip, (3, S, S) around [0, 1]."""

    trajectory: Trajectory
    round_trip: NDArray[np.float32]


class _Work:
    """Counts network calls, in units of one edit's step, and reports them."""

    def __init__(self, steps: int, edits: int, progress: Progress | None) -> None:
        # Inversion is one call per step, reverse one of doubled batch; shared inversions make it end early.
        self._total, self._done, self._progress = 2 * steps * edits, 0, progress

    def tick(self, edits: int) -> None:
        self._done = min(self._total, self._done + edits)
        if self._progress is not None:
            self._progress(self._done, self._total)


def _nearness(edit: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 within ``_NEAR`` cells of the edit, 0 from ``_FAR`` on, falling between."""
    near = torch.from_numpy(edit.astype(np.float32))[None, None]
    weight = torch.zeros_like(near)
    for distance in range(_FAR):
        grown = torch.nn.functional.max_pool2d(near, 2 * distance + 1, stride=1, padding=distance)
        weight = torch.maximum(weight, grown * min(1.0, (_FAR - distance) / (_FAR - _NEAR)))
    return weight[0, 0].numpy()


def _pool(plane: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    side = plane.shape[0] // factor
    return plane.reshape(side, factor, side, factor).mean(axis=(1, 3))


def _to_native(pixels: NDArray[np.float32], box: Letterbox, mode: str) -> Image:
    """(3, S, S) in [0, 1] -> the native image, of its size and mode."""
    from PIL import Image as pil

    array = np.rint(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    if mode == "L":
        image = pil.fromarray(np.rint(array.mean(axis=0)).astype(np.uint8), "L")
    else:
        image = pil.fromarray(np.ascontiguousarray(array.transpose(1, 2, 0)), "RGB")
    content = image.crop(box.content)
    size = (box.width, box.height)
    return content if content.size == size else content.resize(size, pil.Resampling.BICUBIC)
