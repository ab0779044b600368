"""What an eager pass of a real class computes in its attention layers, kept as part of the graph: an oracle."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from medground_bench.lvlm.testing import tiny_gemma, tiny_qwen


@dataclass
class Eager:
    """Per decoder layer the tensors of the pass itself: queries, keys, values (heads apart, keys and values still
    grouped), attention, and what left the layer; and the sequence score."""

    lvlm: Any
    episode: Any
    queries: list[Any] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    attention: list[Any] = field(default_factory=list)
    left: list[Any] = field(default_factory=list)
    score: Any = None

    def visible(self, layer: int) -> torch.Tensor:
        return self.attention[layer] > 0

    def gradient(self, layer: int, target: Any = None) -> torch.Tensor:
        """Of the score, or of a target, with respect to a layer's attention, (H, S, S)."""
        target = self.score if target is None else target
        (found,) = torch.autograd.grad(target, self.attention[layer], retain_graph=True)
        return found[0]

    def lens(self, layer: int, t: int) -> torch.Tensor:
        """The layer's own logit of the t-th token of the response."""
        model = self.lvlm.model
        hidden = self.left[layer][0, self.episode.rows[t]]
        logits = model.lm_head(model.model.language_model.norm(hidden))
        return logits[self.episode.token_ids[t]]


def build(family: str, kernel: str) -> Any:
    return tiny_qwen(attention=kernel) if family == "qwen" else tiny_gemma(attention=kernel, image_size=224, tokens=16)


def eager_pass(family: str, image: Any, question: str, response: str, side: int | None) -> Eager:
    lvlm = build(family, "eager")
    episode = lvlm.prepare(image, question, response, side=side)
    out = Eager(lvlm, episode)
    modules = [layer.self_attn for layer in lvlm.layers]
    home = sys.modules[type(modules[0]).__module__]
    original = home.eager_attention_forward

    def watched(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(module, query, key, value, *args, **kwargs)
        if any(module is m for m in modules):
            out.queries.append(query)
            out.keys.append(key)
            out.values.append(value)
            out.attention.append(result[1])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(home, "eager_attention_forward", watched)
        hooks = [layer.register_forward_hook(lambda m, a, o: out.left.append(o)) for layer in lvlm.layers]
        logits = lvlm.model(**lvlm.model_inputs(episode), use_cache=False).logits[0, list(episode.rows)]
        for hook in hooks:
            hook.remove()
    out.left = [o[0] if isinstance(o, tuple) else o for o in out.left]
    out.score = logits.log_softmax(-1)[range(len(episode.rows)), list(episode.token_ids)].sum()
    return out
