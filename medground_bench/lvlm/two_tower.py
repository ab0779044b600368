"""Two-tower models (CLIP and SigLIP classes): no text is written; an image is compared with a prompt for a finding.

What is attributed is ``log p(finding)``: of the similarities to a positive and a negative prompt, scaled as the model
scales them, the log-softmax at the positive one. Black-box methods work on it as on the log-probability of a response
of one token; :mod:`baselines.two_tower` looks inside.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch.nn.functional import logsigmoid, normalize

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.batching import default_budget, run_in_batches
from medground_bench.lvlm.episode import Episode, ResponseToken
from medground_bench.lvlm.families import TWO_TOWERS
from medground_bench.lvlm.grid import TokenGrid
from medground_bench.lvlm.images import letterbox_image, stack_variants, to_rgb_images

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TwoTower"]

PROMPTS = ("a chest radiograph with {}", "a chest radiograph without {}")
"""Positive and negative prompt of a finding."""

_QUESTION = re.compile(r"Is there evidence of (.+?) in the image\?.*", re.DOTALL)
_BATCH = 32


class TwoTower:
    """An image tower and a text tower, in the place of an LVLM.

    Made by :func:`medground_bench.lvlm.load_lvlm`, or from objects at hand.

    Attributes
    ----------
    key, hub_id, revision
        As of an :class:`~medground_bench.lvlm.Lvlm`.
    model, processor
        The ``transformers`` objects; the processor holds tokenizer and image processor.
    prompts : (str, str)
        Positive and negative prompt, with ``{}`` for the finding.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        key: str = "custom",
        hub_id: str | None = None,
        revision: str | None = None,
        prompts: tuple[str, str] = PROMPTS,
    ) -> None:
        if model.config.model_type not in TWO_TOWERS:
            raise LvlmError(
                f"two-tower models of the class {model.config.model_type!r} are not known",
                where=key,
                expected="one of " + ", ".join(sorted(TWO_TOWERS)),
            )
        self.model = model.eval()
        self.processor = processor
        self.key, self.hub_id, self.revision = key, hub_id or key, revision
        self.prompts = prompts
        self.decoding = {"prompts": list(prompts)}
        self._texts: dict[str, torch.Tensor] = {}

    def __repr__(self) -> str:
        return f"TwoTower({self.key!r}, family={self.family!r}, device='{self.device}', dtype={self.dtype})"

    @property
    def family(self) -> str:
        """The ``model_type`` of its configuration."""
        return str(self.model.config.model_type)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.dtype
        return dtype

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("adapter", "layers", "image_inputs", "model_inputs", "pixel_inputs", "response_log_probs"):
            raise LvlmError(
                f"a two-tower model has no decoder ({name})",
                where=self.__dict__.get("key"),
                expected="a method for two towers (similarity_map), or a black-box method (occlusion, rise)",
            )
        raise AttributeError(name)

    def generate(self, *args: Any, **options: Any) -> NoReturn:
        """Raise :class:`LvlmError`: a two-tower model answers no questions."""
        raise LvlmError(
            "a two-tower model answers no questions",
            where=self.key,
            expected="an LVLM for the filter and for prompting",
            remedy="measure it with medground-bench xbench",
        )

    # -- one image and finding ------------------------------------------------------------------------------------

    def prepare(self, image: Any, question: str, response: str = "", side: int | None = 224) -> Episode:
        """Bind an image and a finding.

        Parameters
        ----------
        image : PIL image
            The native radiograph.
        question : str
            The benchmark's question, whose finding is taken, or the finding itself.
        response : str
            Not used: there is none.
        side : int, optional
            Side of the frame; the model's own processor stretches the frame to its square and crops nothing.

        Returns
        -------
        Episode
            Of one token, the finding; ``inputs`` hold the pixel values and the prompts' unit embeddings, (2, D).
        """
        if not isinstance(question, str) or not question.strip():
            raise LvlmError("no finding is asked for", where=self.key)
        found = _QUESTION.fullmatch(question.strip())
        finding = found[1] if found else question.strip()
        native, frame, box = letterbox_image(image, side)
        with torch.no_grad():
            inputs = {"pixel_values": self.pixels([frame]), "texts": self.texts(finding)}
        return Episode(
            image=native,
            frame=frame,
            letterbox=box,
            question=question,
            response=self.prompts[0].format(finding),
            inputs=MappingProxyType(inputs),
            tokens=(ResponseToken(0, finding),),
            rows=(0,),
            image_positions=(),
            geometry=TokenGrid(*self.patches, frame.size),
            family=self.family,
        )

    @property
    def patches(self) -> tuple[int, int]:
        """Rows and columns of the image tower's patches."""
        vision = self.model.config.vision_config
        side = int(vision.image_size) // int(vision.patch_size)
        return side, side

    def pixels(self, frames: Sequence[Any]) -> torch.Tensor:
        """(N, 3, h, w) pixel values of PIL frames, by the model's image processor, stretched to its square."""
        side = int(self.model.config.vision_config.image_size)
        square = {"height": side, "width": side}
        options = {"size": square, "do_center_crop": False}
        out = self.processor.image_processor(images=list(frames), return_tensors="pt", **options)["pixel_values"]
        if tuple(out.shape[1:]) != (3, side, side):
            raise LvlmError(f"the image processor makes {tuple(out.shape[1:])} of a frame", where=self.key)
        pixels: torch.Tensor = out.to(self.device, self.dtype)
        return pixels

    def texts(self, finding: str) -> torch.Tensor:
        """Unit embeddings of a finding's positive and negative prompt, (2, D)."""
        if finding not in self._texts:
            limit = int(self.model.config.text_config.max_position_embeddings)
            padding = "max_length" if self.family == "siglip" else True  # SigLIP was trained on full rows
            batch = self.processor.tokenizer(
                [prompt.format(finding) for prompt in self.prompts],
                padding=padding,
                max_length=limit,
                truncation=True,
                return_tensors="pt",
            )
            with torch.no_grad():
                out = self.model.get_text_features(**{k: v.to(self.device) for k, v in batch.items()})
            self._texts[finding] = normalize(_features(out).float(), dim=-1)
        return self._texts[finding]

    def image_embeddings(self, pixels: torch.Tensor) -> torch.Tensor:
        """Unit embeddings of images, (N, D) float32; differentiable."""
        return normalize(_features(self.model.get_image_features(pixel_values=pixels)).float(), dim=-1)

    def scores(self, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """``log p(positive)``, (N,) float32, from unit embeddings of images (N, D) and of the two prompts (2, D)."""
        scale = self.model.logit_scale.float().exp()
        similarity = scale * images @ texts.T
        return logsigmoid(similarity[:, 0] - similarity[:, 1])

    @torch.no_grad()
    def log_probs(self, episode: Episode, images: Any, *, batch_size: int | None = None) -> np.ndarray:
        """``log p(finding)`` of variants of the frame, (N, 1) float32: see :meth:`medground_bench.lvlm.Lvlm.log_probs`.

        Raises
        ------
        LvlmError
            If the episode is of another family, or a score is not finite.
        """
        if episode.family != self.family:
            raise LvlmError(f"the episode was prepared for {episode.family}", where=self.key)
        frames = to_rgb_images(stack_variants(images, episode.letterbox))
        size = batch_size or min(_BATCH, max(1, default_budget(self.device) // (1 << 25)))

        def step(start: int, stop: int) -> np.ndarray:
            found = self.scores(self.image_embeddings(self.pixels(frames[start:stop])), episode.inputs["texts"])
            values: np.ndarray = found[:, None].cpu().numpy()
            return values

        parts, _ = run_in_batches(len(frames), size, step)
        out = np.concatenate([np.zeros((0, 1), np.float32), *parts])
        if not np.isfinite(out).all():
            raise LvlmError("a similarity is not finite", where=self.key, remedy="load it with dtype='float32'")
        return out

    # -- inside ---------------------------------------------------------------------------------------------------

    def tower(self, pixels: torch.Tensor) -> tuple[torch.Tensor, Mapping[str, Any]]:
        """Unit embeddings of the images and what the image tower put out, with its hidden states."""
        out = self.model.vision_model(pixel_values=pixels, output_hidden_states=True)
        pooled = out.pooler_output
        if self.family != "siglip":
            pooled = self.model.visual_projection(pooled)
        return normalize(pooled.float(), dim=-1), out

    def patch_embeddings(self, hidden: torch.Tensor) -> torch.Tensor:
        """Unit embeddings of the patches, (N, P, D), from the last hidden state of the image tower.

        They go the way of the pooled token: final norm and projection (CLIP); of SigLIP, whose head pools by attention,
        they are the last hidden state itself, which lies in the same space.
        """
        if self.family == "siglip":
            return normalize(hidden.float(), dim=-1)
        normed = self.model.vision_model.post_layernorm(hidden[:, 1:])
        return normalize(self.model.visual_projection(normed).float(), dim=-1)


def _features(out: Any) -> torch.Tensor:
    """The embeddings, whether the release of ``transformers`` gives them alone or in an output."""
    features: torch.Tensor = getattr(out, "pooler_output", out)
    return features
