"""What flashtrace and legrad say of a decoder where their definitions are ours: makes ``decoder.json``.

In an environment of its own that has this project with its extra ``lvlm``, from the repository's root:

    env/bin/pip install flashtrace==0.1.1 legrad-torch==1.1 open-clip-torch==2.23.0
    PYTHONPATH=. env/bin/python tests/baselines/goldens/make_decoder.py

The decoder is that of ``tests/baselines/drawn.py`` with eager attention. flashtrace leaves out biases of values (there
are none), looks for a norm's epsilon under a name that Qwen2.5-VL does not use (set here), and takes the tokens' own
positions for the rows that predict them (here it is told the rows). LeGrad's package knows CLIP only: it is handed the
decoder's attention and states in CLIP's places, the predicting row alone (it would average all tokens), and a final
norm that scales by 1, so that its cosine is the logit up to a constant. Its map is scaled to 0-1.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from flashtrace import core
from legrad import LeWrapper

from tests.baselines.drawn import REASONING, VERDICT, prepared


def flow() -> dict[str, Any]:
    """Importance of the image tokens for the answer, and with one and two hops through the reasoning."""
    lvlm, episode = prepared("eager", REASONING)
    for layer in lvlm.layers:
        layer.input_layernorm.eps = layer.input_layernorm.variance_epsilon
    cache, hooks = core.attach_hooks(lvlm.layers, torch.float32)
    attentions = lvlm.model(**lvlm.model_inputs(episode), output_attentions=True).attentions
    for hook in hooks:
        hook.remove()
    attention = lvlm.layers[0].self_attn
    parameters = core.IFRParameters(
        n_layers=len(lvlm.layers),
        n_heads_q=attentions[0].shape[1],
        n_kv_heads=attention.v_proj.weight.shape[0] // attention.head_dim,
        head_dim=attention.head_dim,
        group_size=attention.num_key_value_groups,
        d_model=attention.o_proj.weight.shape[0],
        sequence_length=episode.length,
        model_dtype=torch.float32,
        chunk_tokens=64,
        sink_chunk_tokens=64,
    )
    rows, image = list(episode.rows), list(episode.image_positions)
    out = {}
    for hops in (0, 1, 2):
        found = core.compute_multi_hop_ifr(
            rows[VERDICT],
            rows[-1],
            (rows[0], rows[VERDICT - 1]),
            hops,
            cache,
            [a.detach() for a in attentions],
            core.build_weight_pack(SimpleNamespace(layers=lvlm.layers), torch.float32),
            parameters,
        )
        out[str(hops)] = found.observation["sum"][image].tolist()
    return out


class _Visual(torch.nn.Module):
    """What LeGrad's package reads of a CLIP's vision tower."""

    def __init__(self, norm: Any, blocks: list[Any], width: int) -> None:
        super().__init__()
        self.ln_post, self.proj = norm, torch.eye(width)
        self.transformer = SimpleNamespace(resblocks=_Blocks(blocks))


class _Blocks(list[Any]):
    def named_children(self) -> Any:
        return ((str(n), block) for n, block in enumerate(self))


def gradients() -> list[float]:
    """LeGrad of the only predicting row, at the image tokens."""
    lvlm, episode = prepared("eager", ".", (140, 140))  # 101 tokens: CLIP's class token and a square of patches
    home = sys.modules[type(lvlm.layers[0].self_attn).__module__]
    maps, left = [], []

    def eager(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **_: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, 1)[0] for part in (key, value))
        attention = (query[0] @ key.transpose(1, 2) * scaling + mask[0]).softmax(-1)
        maps.append(attention)
        return (attention @ value).transpose(0, 1)[None], attention[None]

    own, original = {id(layer.self_attn) for layer in lvlm.layers}, home.eager_attention_forward
    home.eager_attention_forward = lambda module, *a, **k: (eager if id(module) in own else original)(module, *a, **k)
    for layer in lvlm.layers:
        layer.register_forward_hook(lambda m, a, o: left.append(o))
    lvlm.model(**lvlm.model_inputs(episode), use_cache=False)
    home.eager_attention_forward = original
    (row,), (token,) = episode.rows, episode.token_ids
    states = [(o[0] if isinstance(o, tuple) else o)[0, row] for o in left]
    blocks = [
        SimpleNamespace(feat_post_mlp=s.expand(episode.length, 1, -1), attn=SimpleNamespace(attention_maps=a))
        for s, a in zip(states, maps, strict=True)
    ]
    norm = lvlm.model.model.language_model.norm
    clip = SimpleNamespace(visual=_Visual(norm, blocks, len(states[0])), starting_depth=0, patch_size=1)
    heat = LeWrapper.compute_legrad_clip(clip, lvlm.model.lm_head.weight[token][None].detach())
    return heat.ravel()[[p - 1 for p in episode.image_positions]].tolist()


def main() -> None:
    versions = {name: version(name) for name in ("flashtrace", "legrad-torch")}
    out = {"versions": versions, "ifr": flow(), "legrad": gradients()}
    (Path(__file__).parent / "decoder.json").write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
