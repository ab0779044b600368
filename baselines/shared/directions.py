"""Which direction of the residual stream raises a response token's logit, with the final norm's scale held fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm
    from medground_bench.lvlm.whitebox import AttentionTrace

__all__ = ["CONTRASTS", "logit_directions"]

CONTRASTS = ("softmax", "logit")


def logit_directions(lvlm: Lvlm, episode: Episode, trace: AttentionTrace, contrast: str) -> torch.Tensor:
    """Directions d_r, (T, D) float32: ``<d_r, h_r>`` is the logit of token y_r, h_r the state before the final norm.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    trace : AttentionTrace
        Of this pass: its final states give the frozen scale.
    contrast : {"softmax", "logit"}
        ``logit``: ``W_U[y]`` times the norm's scale. ``softmax``: less the mean of all tokens' rows under the
        predicted distribution, which is the gradient of log-softmax: what raises every token counts for none.

    Raises
    ------
    MethodError
        If the head is not a plain matrix, or the logits are capped.
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
        return rows * frozen_scale(norm, final)
