"""An LVLM ready to be asked, scored and looked into."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm import generation, soft
from medground_bench.lvlm.batching import batch_size, bytes_per_image, default_budget, run_in_batches
from medground_bench.lvlm.episode import Episode, Generated
from medground_bench.lvlm.families import family_of
from medground_bench.lvlm.families.base import Family, stack_to_tensor
from medground_bench.lvlm.geometry import measure_tokens
from medground_bench.lvlm.head import float32_head
from medground_bench.lvlm.images import letterbox_image, stack_variants, to_rgb_images
from medground_bench.lvlm.text import append_response, check_text, control_tokens, encode_prompts, response_tokens

if TYPE_CHECKING:
    from medground_bench.lvlm.grid import TokenBoxes

__all__ = ["Lvlm", "unwrap"]

_CPU_BATCH = 16

logger = logging.getLogger(__name__)


def unwrap(model: Any) -> Any:
    """The model of ``transformers`` inside a PEFT wrapper; any other model as it is.

    Raises
    ------
    LvlmError
        If the adapter is no part of the model's layers, so that the model alone would ignore it.
    """
    base = getattr(model, "get_base_model", None)
    if not callable(base):
        return model
    configs = getattr(model, "peft_config", None)
    kinds = list(configs.values()) if isinstance(configs, Mapping) else [configs]
    if any(getattr(kind, "is_prompt_learning", False) for kind in kinds):
        raise LvlmError(
            "this PEFT adapter puts learned tokens before the prompt: it is no part of the model's layers",
            where=type(model).__name__,
            expected="an adapter inside the layers, such as LoRA",
        )
    return base()


class Lvlm:
    """A vision-language model with its processor, on one device.

    Made by :func:`medground_bench.lvlm.load_lvlm`, or from objects at hand by :meth:`from_parts`.

    Attributes
    ----------
    key : str
        The name it was asked for by: a key of the benchmark, a hub id or a folder.
    hub_id : str
        Hub id, or the folder's path.
    revision : str or None
        Commit of the hub repository, or a fingerprint of the folder's files.
    model, processor
        The ``transformers`` objects.
    memory_budget : int or None
        Bytes a batch may use; None asks the device before each call.
    processors : dict
        Logits processors that generation uses beside taking the likeliest token.
    bits : int or None
        Of the weights, where they are quantised.
    control_tokens : tuple of str
        What must not stand in a question or response.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        family: Family,
        *,
        key: str,
        hub_id: str,
        revision: str | None = None,
        memory_budget: int | None = None,
        decoding: Mapping[str, Any] | None = None,
        bits: int | None = None,
    ) -> None:
        family.configure(processor)
        self.model = model.eval()
        self.processor = processor
        self._family = family
        self.key = key
        self.hub_id = hub_id
        self.revision = revision
        self.memory_budget = memory_budget
        self.bits = bits
        self.processors = generation.check_decoding(decoding)
        self.control_tokens = control_tokens(processor.tokenizer)
        self._fast_pixels_agree: bool | None = None
        self._keeps_rows = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._checked = not family.whole
        self.followed = False  # whether its image processor was found to take floats as it takes bytes
        self.measured: dict[tuple[int, ...], TokenBoxes | None] = {}

    @classmethod
    def from_parts(
        cls,
        model: Any,
        processor: Any,
        *,
        key: str = "custom",
        hub_id: str | None = None,
        revision: str | None = None,
        decoding: Mapping[str, Any] | None = None,
    ) -> Lvlm:
        """Wrap a model and processor that are already in memory; the model is set to evaluation mode.

        A model that PEFT has wrapped is taken out of its wrapper: adapters that live inside its layers (LoRA and its
        kin) stay there and count.

        Raises
        ------
        LvlmError
            If the model's family is not supported, or its PEFT adapter lives outside its layers (prompt tuning).
        """
        model = unwrap(model)
        family = family_of(getattr(model.config, "model_type", None), where=type(model).__name__)
        return cls(model, processor, family, key=key, hub_id=hub_id or key, revision=revision, decoding=decoding)

    def __repr__(self) -> str:
        return f"Lvlm({self.key!r}, family={self.family!r}, device='{self.device}', dtype={self.dtype})"

    @property
    def family(self) -> str:
        """Name of the family: the ``model_type`` of its configuration."""
        return self._family.model_type

    @property
    def adapter(self) -> Family:
        """What differs between families: see :class:`~medground_bench.lvlm.families.base.Family`."""
        return self._family

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return torch.device(self.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        dtype: torch.dtype = self.model.dtype
        return dtype

    @property
    def precision(self) -> str:
        """Type of the computation, and the bits of the weights where they are quantised, for the provenance."""
        return str(self.dtype).removeprefix("torch.") + (f", {self.bits}-bit weights" if self.bits else "")

    @property
    def config(self) -> Any:
        """The model's configuration."""
        return self.model.config

    @property
    def layers(self) -> torch.nn.ModuleList:
        """The decoder layers."""
        return self._family.layers(self.model)

    @property
    def context_length(self) -> int | None:
        """Most tokens the language model takes, if its configuration says."""
        length = getattr(self._family.text_config(self.config), "max_position_embeddings", None)
        return None if length is None else int(length)

    @property
    def decoding(self) -> dict[str, Any]:
        """How it generates, for the provenance: greedy, with which logits processors, and what is ``off``.

        ``off`` are those that the model's stored generation configuration names and that nobody asked for.
        """
        off = {k: v for k, v in generation.stored_processors(self.model).items() if k not in self.processors}
        return {"greedy": True, **self.processors, **({"off": off} if off else {})}

    # -- asking ---------------------------------------------------------------------------------------------------

    def generate(
        self,
        images: Sequence[Any],
        questions: Sequence[str | Sequence[str]],
        max_new_tokens: int = 256,
        *,
        side: int | None = 224,
        batch_size: int | None = None,
    ) -> list[Generated]:
        """Greedy answers, one per image and question.

        Greedy means the likeliest token at every step: repetition penalties and other logits processors of the model's
        stored generation configuration are off unless ``load_lvlm(decoding=)`` asks for them.

        Parameters
        ----------
        images : sequence of PIL images
            Native images; letterboxed here.
        questions : sequence
            One per image. An item is a question, or the turns of a conversation about the image (question,
            answer, next question, ...).
        max_new_tokens : int
            At most this many tokens per answer, fewer where the model's context ends first.
        side : int, optional
            Side of the frame in pixels; None leaves the image as it is.
        batch_size : int, optional
            Images per batch; by default what the memory budget allows.

        Returns
        -------
        list of Generated
            Text without control tokens, exactly as decoded, and whether the model ended it itself.

        Raises
        ------
        LvlmError
            If a question is empty, the counts differ, or a prompt leaves no room for an answer in the context.
        """
        return generation.generate(
            self, images, questions, max_new_tokens=max_new_tokens, side=side, batch_size=batch_size
        )

    # -- one image, question and response -------------------------------------------------------------------------

    def prepare(self, image: Any, question: str, response: str, side: int | None = 224) -> Episode:
        """Bind an image, a question and a response into an episode.

        Parameters
        ----------
        image : PIL image
            The native radiograph, 8 bits per channel.
        question : str
            The full question, with the suffix of its mode.
        response : str
            The text whose evidence is asked for, exactly as stored (whitespace and newlines count).
        side : int, optional
            Side of the frame in pixels; None leaves the image as it is.

        Returns
        -------
        Episode

        Raises
        ------
        LvlmError
            If a text is empty, the image is unusable, or prompt and response exceed the context.
        """
        tokenizer = self.processor.tokenizer
        check_text(question, "question", self.control_tokens)
        check_text(response, "response", self.control_tokens)
        native, frame, box = letterbox_image(image, side)
        tokens = response_tokens(tokenizer, response)
        try:
            prompt = encode_prompts(self.processor, self._family, [frame], [[question]])
        except ValueError as error:
            raise LvlmError(f"the processor refuses the image of {native.size[0]}x{native.size[1]}: {error}") from error
        inputs = append_response(prompt, [token.id for token in tokens], self._family.response_type)
        start, end = prompt["input_ids"].shape[1], inputs["input_ids"].shape[1]
        self.check_length(end)
        grid, positions = self._family.locate(self.config, inputs, frame.size)
        return Episode(
            image=native,
            frame=frame,
            letterbox=box,
            question=question,
            response=response,
            inputs=MappingProxyType({name: value.to(self.device) for name, value in inputs.items()}),
            tokens=tokens,
            rows=tuple(range(start - 1, end - 1)),
            image_positions=positions,
            geometry=grid if grid is not None else partial(measure_tokens, self, frame.size),
            family=self.family,
        )

    def check_length(self, length: int) -> None:
        """Raise :class:`LvlmError` if a sequence of this many tokens exceeds the context."""
        limit = self.context_length
        if limit is not None and length > limit:
            raise LvlmError(
                f"prompt and response need {length} tokens",
                where=self.key,
                expected=f"at most {limit}, the model's context",
                remedy="shorten the response, or use a smaller frame (side=)",
            )

    # -- scoring --------------------------------------------------------------------------------------------------

    def pixel_inputs(self, episode: Episode, images: Any) -> dict[str, torch.Tensor]:
        """Variants of the frame -> the image inputs of the model, float32, batched, on its device.

        Parameters
        ----------
        episode : Episode
            Whose frame they vary.
        images
            As for :meth:`log_probs`.

        Returns
        -------
        dict of str to tensor
            ``pixel_values`` and what else the family needs, equal to the processor's own output for each image.
        """
        return self._pixels(episode, stack_variants(images, episode.letterbox))

    def _pixels(self, episode: Episode, stack: np.ndarray) -> dict[str, torch.Tensor]:
        if self._fast_pixels_agree is None:
            self._fast_pixels_agree = self._verify_fast_pixels(episode)
        if self._fast_pixels_agree:
            fast = self._family.fast_pixels(self.processor, stack_to_tensor(stack), self.device)
            if fast is not None:
                return fast
        plain = self._family.plain_pixels(self.processor, stack)
        return {name: value.to(self.device) for name, value in plain.items()}

    def _verify_fast_pixels(self, episode: Episode) -> bool:
        """Whether the batched preprocessing gives what the processor gave for this episode's frame."""
        frame = stack_to_tensor(episode.frame_array[None])
        own = self.image_inputs(episode)
        fast = self._family.fast_pixels(self.processor, frame, self.device)
        if fast is None:
            return False
        for name, value in fast.items():
            plain = own[name]
            if value.shape != plain.shape or not torch.allclose(value.float(), plain.float(), rtol=0, atol=1e-5):
                logger.warning("%s: batched preprocessing differs from the processor; using the processor", self.key)
                return False
        return True

    def image_inputs(self, episode: Episode) -> dict[str, torch.Tensor]:
        """The image inputs of the episode's own frame, as the processor made them.

        Raises
        ------
        LvlmError
            If an LVLM of another family prepared the episode.
        """
        self.check_episode(episode)
        if self._family.whole:
            raise LvlmError(
                f"how {self.family!r} lays out its pixel values is not known",
                where=self.key,
                expected="a method that needs no gradients at the pixels",
            )
        return {name: episode.inputs[name] for name in self._family.image_inputs}

    def check_episode(self, episode: Episode) -> None:
        """Raise :class:`LvlmError` if an LVLM of another family prepared the episode."""
        if episode.family and episode.family != self.family:
            raise LvlmError(
                f"the episode was prepared for {episode.family}",
                where=self.key,
                expected=f"an episode of {self.family}",
            )

    def model_inputs(
        self, episode: Episode, images: Mapping[str, torch.Tensor] | None = None, count: int = 1
    ) -> dict[str, Any]:
        """Arguments of the model's forward for ``count`` images under the episode's text.

        Parameters
        ----------
        episode : Episode
            The text.
        images : mapping of str to tensor, optional
            From :meth:`pixel_inputs`; by default the episode's own image.
        count : int
            Number of images in it.
        """
        if images is None and self._family.whole and count == 1:
            self.check_episode(episode)
            return {**episode.inputs, **self._family.positions(self.model, episode.inputs)}
        if images is None:
            images = self.image_inputs(episode)
        return self._family.batch(self.model, episode.inputs, dict(images), count)

    def response_log_probs(self, episode: Episode, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Log-probabilities of the response's tokens, (N, T) float32, differentiable.

        The head is applied in float32 to the final hidden states of the response's rows, whatever the model's type.

        Parameters
        ----------
        episode : Episode
            The response.
        inputs : mapping
            From :meth:`model_inputs`; ``pixel_values`` (or ``inputs_embeds`` in place of it) may carry gradients.
        """
        spread = len(getattr(self.model, "hf_device_map", ())) > 1  # the head may be on another device than the inputs
        rows = torch.tensor(episode.rows, device="cpu" if spread else self.device)
        with float32_head(self.model):
            if self._keeps_rows:
                logits = self.model(**inputs, use_cache=False, logits_to_keep=rows).logits.float()
            else:
                logits = self.model(**inputs, use_cache=False).logits[:, rows].float()
        ids = torch.tensor(episode.token_ids, device=logits.device).expand(logits.shape[0], -1)
        chosen = logits.gather(-1, ids[..., None])[..., 0]
        return chosen - torch.logsumexp(logits, dim=-1)

    def log_probs(self, episode: Episode, images: Any, *, batch_size: int | None = None) -> np.ndarray:
        """Log-probabilities of the response's tokens for variants of the image, by teacher forcing.

        The text is encoded once, only images are preprocessed, and logits are made for the response's rows alone.

        Parameters
        ----------
        episode : Episode
            From :meth:`prepare` of this LVLM.
        images : array or sequence
            N variants of the frame: PIL images of the frame's size (or of the native size: letterboxed here), or
            uint8 of shape (N, H, W) or (N, H, W, 3).
        batch_size : int, optional
            Images per forward pass; by default what the memory budget allows. Halved when memory runs out.

        Returns
        -------
        ndarray
            (N, T) float32.

        Raises
        ------
        LvlmError
            If a variant has another size or type, a logit is not finite, or one image does not fit into memory.
        """
        stack = stack_variants(images, episode.letterbox)
        if len(stack) == 0:
            return np.zeros((0, len(episode.rows)), np.float32)
        size = batch_size if batch_size is not None else self.fitting_batch(episode)
        if size < 1:
            raise LvlmError(f"a batch of {size} images cannot be scored", expected="a batch size of at least 1")
        parts, _ = run_in_batches(len(stack), size, lambda a, b: self._score_batch(episode, stack[a:b]))
        return np.concatenate(parts)

    def soft_log_probs(self, episode: Episode, frames: torch.Tensor) -> torch.Tensor:
        """As :meth:`log_probs`, (N, T), of frames in float, (N, 1 or 3, H, W), with gradients and without rounding."""
        return soft.soft_log_probs(self, episode, frames)

    def frame_gradients(
        self, episode: Episode, frames: np.ndarray, weights: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of float frames and their gradients there: see :func:`medground_bench.lvlm.soft.frame_gradients`."""
        return soft.frame_gradients(self, episode, frames, weights)

    def fitting_batch(self, episode: Episode) -> int:
        """Images per forward pass that the memory budget allows."""
        budget = self.memory_budget if self.memory_budget is not None else default_budget(self.device)
        images = episode.inputs if self._family.whole else self.image_inputs(episode)
        patches = self._family.vision_tokens(self.config, images, 1)
        element = torch.finfo(self.dtype).bits // 8
        size = batch_size(budget, bytes_per_image(self.config, episode.length, len(episode.rows), patches, element))
        # A processor gains nothing from more, and larger activations fall out of its caches.
        return min(size, _CPU_BATCH) if self.device.type == "cpu" else size

    @torch.no_grad()
    def _score_batch(self, episode: Episode, stack: np.ndarray) -> np.ndarray:
        inputs = self.variant_inputs(episode, stack)
        if not self._checked:
            self._check_scores(episode, inputs)
        scores: np.ndarray = self.response_log_probs(episode, inputs).cpu().numpy()
        if not np.isfinite(scores).all():
            bad = np.unique(np.nonzero(~np.isfinite(scores))[1])
            raise LvlmError(
                f"the logits of response token(s) {', '.join(map(str, bad[:5]))} are not finite",
                where=self.key,
                remedy="load the model with dtype='float32' or 'bfloat16'; if they stay, its weights are broken",
            )
        return scores

    def variant_inputs(self, episode: Episode, stack: np.ndarray | torch.Tensor) -> dict[str, Any]:
        """Arguments of the model's forward for variants of the frame, (N, H, W[, 3]) uint8.

        A family that is read whole also takes a float tensor (N, 3, H, W) of grey levels, and is differentiable then.
        """
        if isinstance(stack, np.ndarray) and not self._family.whole:
            return self.model_inputs(episode, self._pixels(episode, stack), len(stack))
        self.check_episode(episode)
        frames = to_rgb_images(stack) if isinstance(stack, np.ndarray) else list(stack)
        prompts = encode_prompts(self.processor, self._family, frames, [[episode.question]] * len(frames))
        inputs = append_response(prompts, episode.token_ids, self._family.response_type)
        if inputs["input_ids"].shape[1] != episode.length:
            raise LvlmError("a variant of the image has another number of tokens than the image", where=self.key)
        return {name: value.to(self.device) for name, value in inputs.items()}

    @torch.no_grad()
    def _check_scores(self, episode: Episode, inputs: Mapping[str, torch.Tensor]) -> None:
        """Once per model: logits stand where the tokens do, and no token sees those after it.

        Raises
        ------
        LvlmError
            If not: every log-probability would be that of something else.
        """
        logits = self.model(**inputs, use_cache=False).logits
        if logits.shape[1] != episode.length:
            raise LvlmError(
                f"{self.family!r} gives {logits.shape[1]} logits for {episode.length} tokens",
                where=self.key,
                expected="a decoder whose sequence holds one place for every image token",
            )
        ids = inputs["input_ids"].clone()
        before, first = ids[:, episode.rows[0]], ids[:, 0]  # tokens of the prompt's text, so no image token
        ids[:, -1] = torch.where(before != ids[:, -1], before, first)
        changed = self.model(**{**inputs, "input_ids": ids}, use_cache=False).logits
        rows = list(episode.rows)
        if not torch.allclose(logits[:, rows].float(), changed[:, rows].float(), rtol=1e-3, atol=1e-2):
            raise LvlmError(
                f"in {self.family!r} a token's log-probability depends on the tokens after it",
                where=self.key,
                expected="causal attention over the response",
            )
        self._checked = True
