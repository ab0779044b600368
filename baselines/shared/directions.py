"""Which direction of the residual stream raises a response token's logit, with the final norm's scale held fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from baselines.shared.chosen_tokens import answer_tokens, opposite_verdict
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["CONTRASTS", "logit_directions"]

CONTRASTS = ("softmax", "logit", "yes_no")


def logit_directions(lvlm: Lvlm, episode: Episode, trace: AttentionTrace, contrast: str) -> torch.Tensor:
    """Directions d_r, (T, D) float32: ``<d_r, h_r>`` is the logit of token y_r, h_r the state before the final norm.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    trace : AttentionTrace
        Of this pass: its final states give the frozen scale.
    contrast : {"softmax", "logit", "yes_no"}
        ``logit``: ``W_U[y]`` times the norm's scale. ``softmax``: less the mean of all tokens' rows under the
        predicted distribution, which is the gradient of log-softmax: what raises every token counts for none.
        ``yes_no``: of the first token of the verdict alone, less the row of the opposite verdict.

    Raises
    ------
    MethodError
        If the head is not a plain matrix, the logits are capped, or a response without yes or no is to be contrasted.
    """
    import torch
    from torch.nn.functional import linear

    from medground_bench.lvlm.norms import frozen_scale

    head = lvlm.model.get_output_embeddings()
    if type(head) is not torch.nn.Linear:
        raise MethodError(f"a head of class {type(head).__name__}", expected="a plain linear head (no quantisation)")
    if getattr(lvlm.adapter.text_config(lvlm.config), "final_logit_softcapping", None):
        raise MethodError("the model caps its logits: they are not linear in its last state")
    norm: Any = lvlm.adapter.decoder(lvlm.model).norm
    with torch.no_grad():
        final = trace.final[list(episode.rows)]
        rows = head.weight[list(episode.token_ids)].float()
        if contrast == "softmax":
            logits = linear(norm(final).to(head.weight.dtype), head.weight, head.bias).float()  # no pass of the model
            for k, share in enumerate(logits.softmax(-1)):  # a row at a time: the vocabulary is large
                rows[k] -= share.to(head.weight.dtype) @ head.weight
        elif contrast == "yes_no":
            first, other = _verdict(lvlm, episode)
            own = rows[first] - head.weight[other].float()
            rows = torch.zeros_like(rows)
            rows[first] = own
        return rows * frozen_scale(norm, final)


def _verdict(lvlm: Lvlm, episode: Episode) -> tuple[int, int]:
    """Number of the token that begins the verdict, and the id of the one that would begin its opposite."""
    spelt = answer_tokens([token.text for token in episode.tokens])
    turned = opposite_verdict("".join(episode.tokens[t].text for t in spelt))
    if turned is None:
        raise MethodError(f"the response {episode.response[:40]!r} holds no yes and no no", expected="contrast=softmax")
    return spelt[0], lvlm.processor.tokenizer(turned, add_special_tokens=False)["input_ids"][0]
