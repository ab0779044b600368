"""Attention of a pass, rebuilt one layer at a time from what entered each attention layer."""

from __future__ import annotations

import inspect
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from medground_bench.core.errors import LvlmError
from medground_bench.lvlm.embeddings import check_finite, layer_numbers, score_embeddings, score_from_entry
from medground_bench.lvlm.norms import frozen_scale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from medground_bench.lvlm.episode import Episode
    from medground_bench.lvlm.model import Lvlm

__all__ = ["AttentionTrace", "attention_parts", "trace_attention"]


_PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim", "scaling")
_EXPECTED = "attention of the usual form (q_proj, k_proj, v_proj, o_proj, rotary positions), or a black-box method"


@dataclass(frozen=True)
class _Layer:
    """What is kept of one attention layer: enough to rebuild its attention, linear in S."""

    module: Any
    hidden: torch.Tensor  # (S, D), what enters the projections
    cos: torch.Tensor  # (S, d)
    sin: torch.Tensor
    mask: torch.Tensor | None  # as the kernel got it, shared between layers
    last: torch.Tensor  # (H * d,), the heads' output at the last position: a check on the rebuilding
    residual: torch.Tensor  # (S, D), what enters the decoder layer around it
    gradient: torch.Tensor | None  # (S, H * d), the score's gradient at the heads' output
    keys: _Layer | None = None  # whose keys and values it reads, where they are not its own
    token: torch.Tensor | None = None  # (S, E), the layer's own embedding of each token (Gemma 4)


class AttentionTrace:
    """One pass of the model from which the attention of each layer can be rebuilt when it is asked for.

    Made by :func:`trace_attention`. Only the inputs of the attention layers are kept, so memory grows with
    L * S * D and with one layer's H * R * S at a time, not with L * H * S * S.

    Attributes
    ----------
    layers : tuple of int
        Layers that were traced.
    length : int
        S.
    log_probs : ndarray
        (T,) float32, of the response's tokens in this pass.
    final : tensor
        (S, D), what leaves the last decoder layer, before the final norm.
    """

    def __init__(
        self, lvlm: Lvlm, layers: Mapping[int, _Layer], length: int, log_probs: np.ndarray, final: torch.Tensor
    ) -> None:
        self._lvlm = lvlm
        self.final = final
        self._layers = layers
        self.layers = tuple(layers)
        self.length = length
        self.log_probs = log_probs

    @torch.no_grad()
    def weights(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Attention of one layer, (H, R, S) float32: how much each row (query) takes from each position.

        Parameters
        ----------
        layer : int
            Decoder layer; negative counts from the model's last.
        rows : sequence of int, optional
            R query positions, for example ``episode.rows``; default all S.

        Raises
        ------
        LvlmError
            If the layer was not traced, or the rebuilt attention does not reproduce the layer's output.
        """
        record = self._record(layer)
        chosen = self._rows(rows)
        keys, values = self._keys_values(record)
        self._check(record, keys, values)
        return self._attend(record, keys, chosen)

    @torch.no_grad()
    def scores(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Scores of one layer before the softmax, (H, R, S) float32: ``scale * q k'``; -inf where the mask hides."""
        record = self._record(layer)
        keys, values = self._keys_values(record)
        self._check(record, keys, values)
        scores = self._scores(record, keys, self._rows(rows))
        return scores.masked_fill_(scores < torch.finfo(scores.dtype).min / 2, float("-inf"))  # additive masks

    @torch.no_grad()
    def queries(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Queries of one layer as they meet the keys, (H, R, d) float32: normed where the family does, rotated."""
        return self._queries(self._record(layer), self._rows(rows)).float()

    @torch.no_grad()
    def keys(self, layer: int) -> torch.Tensor:
        """Keys of one layer as they meet the queries, (H, S, d) float32: those of a group once per head."""
        record = self._record(layer)
        return self._per_head(record, self._keys_values(record)[0])

    @torch.no_grad()
    def values(self, layer: int) -> torch.Tensor:
        """Values of one layer, (H, S, d) float32: those of a group once per head."""
        record = self._record(layer)
        return self._per_head(record, self._keys_values(record)[1])

    @torch.no_grad()
    def residual(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """The residual stream that enters a decoder layer, (R, D) float32."""
        record = self._record(layer)
        return record.residual[self._rows(rows)].float()

    @torch.no_grad()
    def head_outputs(self, layer: int, positions: Sequence[int] | None = None) -> torch.Tensor:
        """What each head would write of each position, ``W_O^h v_h[p]``, (H, P, D) float32.

        Attention writes ``scale[r] * sum_(h, p) A[h, r, p] head_outputs[h, p]`` into row r, with ``write_scale``.
        """
        record = self._record(layer)
        values = self.values(layer)[:, self._rows(positions)]  # (H, P, d)
        weight = record.module.o_proj.weight.float().reshape(-1, *values[:, 0].shape)  # (D, H, d)
        return torch.einsum("hpd,ohd->hpo", values, weight)

    @torch.no_grad()
    def write_scale(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Frozen scale of the norm between attention and residual stream, (R, D) float32; 1 where there is none."""
        norm = self._lvlm.adapter.attention_norm(self._lvlm.layers[self._number(layer)])
        attended = self._attended(layer, rows)
        return torch.ones_like(attended) if norm is None else frozen_scale(norm, attended)

    @torch.no_grad()
    def written(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """What attention adds to the residual stream, (R, D) float32."""
        return self._attended(layer, rows) * self.write_scale(layer, rows)

    def _attended(self, layer: int, rows: Sequence[int] | None) -> torch.Tensor:
        record = self._record(layer)
        heads = torch.einsum("hrs,hsd->rhd", self.weights(layer, rows), self.values(layer)).flatten(1)
        out: torch.Tensor = record.module.o_proj(heads.to(record.hidden.dtype))
        return out.float()

    @torch.no_grad()
    def gradient(self, layer: int, rows: Sequence[int] | None = None) -> torch.Tensor:
        """Gradient of the score with respect to that attention, (H, R, S) float32: dA = gO V'.

        gO is the gradient at the heads' output and V the layer's values; positions that the mask hides have a
        gradient too (that of weights the softmax keeps at zero), as in eager attention.
        """
        record = self._record(layer)
        if record.gradient is None:
            raise LvlmError("the trace has no gradients", remedy="trace_attention(..., gradients=True)")
        return self._onto_weights(record.gradient[self._rows(rows)], self._keys_values(record)[1])

    @torch.no_grad()
    def output_gradient(self, layer: int) -> torch.Tensor:
        """Gradient of the score at the heads' output of one layer, (H, S, d) float32."""
        record = self._record(layer)
        if record.gradient is None:
            raise LvlmError("the trace has no gradients", remedy="trace_attention(..., gradients=True)")
        return record.gradient.float().reshape(self.length, -1, record.module.head_dim).transpose(0, 1)

    def lens_gradient(self, layer: int, rows: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        """Gradient of the layer's own logits with respect to its attention, (H, R, S) float32.

        For row r and the token y that belongs to it, ``d <W_U[y], norm(h[r])> / dA[r]``, where h is what leaves this
        decoder layer, norm the model's last one and W_U its head: the raw logit that the "logit lens" reads here.
        It depends on A[r] through this layer alone, so nothing above it is run, and no full backward pass.

        Parameters
        ----------
        layer : int
            Decoder layer; negative counts from the model's last.
        rows, tokens : sequence of int, length R
            Query positions and the token whose logit is read at each, for example ``episode.rows`` and
            ``episode.token_ids``.
        """
        record = self._record(layer)
        chosen = self._rows(rows)
        if len(tokens) != len(chosen):
            raise LvlmError(f"{len(chosen)} rows and {len(tokens)} tokens", expected="one token for each row")
        with torch.no_grad():
            keys, values = self._keys_values(record)
            self._check(record, keys, values)
            weights = self._attend(record, keys, chosen)  # (H, R, S)
            heads = torch.einsum("hrs,hsd->rhd", weights, self._per_head(record, values)).reshape(len(chosen), -1)
        with torch.enable_grad():
            leaf = heads.to(values.dtype).requires_grad_(True)
            token = None if record.token is None else record.token[chosen]
            attend = record.module.o_proj
            left = _leave(
                self._lvlm.layers[self._number(layer)], record.residual[chosen], lambda _: attend(leaf), token
            )
            logits = self._lens(left, torch.tensor(list(tokens), device=left.device))
            (upstream,) = torch.autograd.grad(logits.sum(), leaf)
        check_finite(upstream, f"the gradient at attention layer {layer}", self._lvlm)
        with torch.no_grad():
            return self._onto_weights(upstream, values)

    @torch.no_grad()
    def alone(self, positions: Sequence[int], states: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Keys and values of positions into each of which, and into no other, another state had entered the decoder.

        All positions at once: each reads the keys and values of this trace, and its own new ones. What it changes in
        others, and reads from them again, is left out; under causal attention that is nothing.

        Parameters
        ----------
        positions : sequence of int, length P
        states : tensor, (P, D)
            What enters the first layer there.

        Yields
        ------
        layer : int
        keys, values : tensor, (H, P, d) float32
            As :meth:`keys` and :meth:`values` have them.
        """
        rows, count = self._rows(positions), len(positions)
        twice = torch.cat([rows, rows])  # as it was, and as it would be
        entered = torch.cat([self._record(0).residual[rows], states.to(self._record(0).residual)])
        made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for number in range(len(self._lvlm.layers)):
            record = self._record(number)
            source = self._lvlm.adapter.keys_of(self._lvlm.layers, number)

            def write(hidden: torch.Tensor, record: _Layer = record, number: int = number, source: int = source) -> Any:
                mine = replace(record, hidden=hidden, cos=record.cos[twice], sin=record.sin[twice], keys=None)
                if source == number:
                    keys, values = self._keys_values(mine)
                    made[number] = self._per_head(record, keys), self._per_head(record, values)
                keys, values = made[source]
                queries = self._queries(mine, torch.arange(len(twice))).float()
                old_keys, old_values = (self._per_head(record, x) for x in self._keys_values(record))
                scores = self._masked(record, queries @ old_keys.transpose(1, 2) * record.module.scaling, twice)
                here = torch.arange(len(twice))
                scores[:, here, twice] = (queries * keys).sum(-1) * record.module.scaling
                weights = scores.softmax(-1)
                heads = weights @ old_values + weights[:, here, twice, None] * (values - old_values[:, twice])
                return record.module.o_proj(heads.transpose(0, 1).flatten(1).to(hidden.dtype))

            token = None if record.token is None else record.token[twice]
            left = _leave(self._lvlm.layers[number], entered, write, token)
            keys, values = made[source]
            yield number, keys[:, count:], values[:, count:]
            if number + 1 < len(self._lvlm.layers):
                after = self._record(number + 1).residual[rows]
                # A family may add image features between layers: what was and what would be get the same.
                entered = torch.cat([after, left[count:] + (after - left[:count])])

    def _lens(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Raw logits of one token a row, (R,) float32, from hidden states (R, D) that no norm has seen."""
        model = self._lvlm.model
        head: Any = model.get_output_embeddings()
        norm = getattr(self._lvlm.adapter.decoder(model), "norm", None)
        if norm is None:
            raise LvlmError("the language model has no final norm called 'norm'", where=self._lvlm.key)
        normed = norm(hidden)
        if type(head) is not torch.nn.Linear:  # quantised, or with an adapter of its own
            return head(normed).float().gather(1, tokens[:, None])[:, 0]
        logits: torch.Tensor = (normed.float() * head.weight[tokens].detach().float()).sum(-1)
        return logits if head.bias is None else logits + head.bias[tokens].detach().float()

    def _onto_weights(self, upstream: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """A gradient at the heads' output, (R, H * d), as one at the attention weights, (H, R, S): gO V'."""
        groups, dim = values.shape[0], values.shape[-1]
        grouped = upstream.float().reshape(len(upstream), groups, -1, dim)
        out = torch.einsum("rghd,gsd->ghrs", grouped, values.float())
        return out.reshape(-1, len(upstream), self.length)

    def _per_head(self, record: _Layer, grouped: torch.Tensor) -> torch.Tensor:
        """(groups, S, d) -> (H, S, d) float32."""
        heads = record.last.shape[0] // grouped.shape[-1]
        return grouped.float().repeat_interleave(heads // grouped.shape[0], dim=0)

    def _number(self, layer: int) -> int:
        return layer_numbers([layer], len(self._lvlm.layers), "attention layers")[0]

    def _record(self, layer: int) -> _Layer:
        number = self._number(layer)
        if number not in self._layers:
            raise LvlmError(f"layer {number} was not traced", expected=f"one of {', '.join(map(str, self.layers))}")
        return self._layers[number]

    def _rows(self, rows: Sequence[int] | None) -> torch.Tensor:
        chosen = range(self.length) if rows is None else [int(r) for r in rows]
        if any(not 0 <= r < self.length for r in chosen):
            raise LvlmError(f"a row lies outside the sequence of {self.length} tokens")
        return torch.tensor(list(chosen), dtype=torch.long)

    def _project(self, record: _Layer, name: str, hidden: torch.Tensor) -> torch.Tensor:
        """(n, D) -> (heads, n, d): projection, and the norm of query or key where the family has one."""
        projection = getattr(record.module, f"{name}_proj")
        out = (record.module.k_proj if projection is None else projection)(hidden)  # Gemma 4 has keys serve as values
        out = out.reshape(hidden.shape[0], -1, record.module.head_dim).transpose(0, 1)
        norm = getattr(record.module, f"{name}_norm", None)
        return out if norm is None else norm(out)

    def _keys_values(self, record: _Layer) -> tuple[torch.Tensor, torch.Tensor]:
        record = record.keys or record
        keys = self._lvlm.adapter.rotate(self._project(record, "k", record.hidden), record.cos, record.sin)
        return keys, self._project(record, "v", record.hidden)

    def _queries(self, record: _Layer, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.to(record.hidden.device)
        return self._lvlm.adapter.rotate(
            self._project(record, "q", record.hidden[rows]), record.cos[rows], record.sin[rows]
        )

    def _scores(self, record: _Layer, keys: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        queries = self._queries(record, rows)
        queries = queries.reshape(keys.shape[0], -1, len(rows), queries.shape[-1])
        logits = torch.einsum("ghrd,gsd->ghrs", queries.float(), keys.float()).mul_(record.module.scaling)
        return self._masked(record, logits.reshape(-1, len(rows), self.length), rows.to(keys.device))

    def _attend(self, record: _Layer, keys: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self._scores(record, keys, rows), dim=-1)

    def _masked(self, record: _Layer, logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        mask = record.mask
        if mask is not None and mask.ndim == 4:
            part = mask[0, :, rows, : self.length]
            return logits.masked_fill_(~part, float("-inf")) if part.dtype == torch.bool else logits.add_(part.float())
        # No explicit mask: the kernel was told to be causal (and, in a sliding layer, within its window).
        distance = rows[:, None] - torch.arange(self.length, device=rows.device)
        hidden = distance < 0
        window = getattr(record.module, "sliding_window", None)
        if window:
            hidden |= distance >= window
        return logits.masked_fill_(hidden, float("-inf"))

    def _check(self, record: _Layer, keys: torch.Tensor, values: torch.Tensor) -> None:
        """The rebuilt last row must give the head output that the model itself computed."""
        rows = torch.tensor([self.length - 1])
        weights = self._attend(record, keys, rows)[:, 0]  # (H, S)
        groups = values.shape[0]
        mine = torch.einsum("ghs,gsd->ghd", weights.reshape(groups, -1, self.length), values.float()).reshape(-1)
        theirs = record.last.float()
        tolerance = 2e-3 if values.dtype == torch.float32 else 6e-2
        if (mine - theirs).norm() > tolerance * theirs.norm().clamp(min=1e-12):
            raise LvlmError(
                "the attention rebuilt from queries and keys does not reproduce the layer's output",
                where=self._lvlm.key,
                expected="a kernel that applies the scale and mask of the eager one, rotary positions of whole heads",
                remedy="load the model with attention='sdpa' or 'eager'",
            )


def trace_attention(
    lvlm: Lvlm,
    episode: Episode,
    layers: Iterable[int] | None = None,
    *,
    gradients: bool = False,
    image: Any = None,
    embeddings: torch.Tensor | None = None,
) -> AttentionTrace:
    """Run the model once and keep what its attention can be rebuilt from.

    Parameters
    ----------
    lvlm, episode
        The model and what it reads.
    layers : iterable of int, optional
        Decoder layers to trace; default all.
    gradients : bool
        Also run backward, for :meth:`AttentionTrace.gradient`.
    image : PIL image or array, optional
        A variant of the frame to read in place of the episode's image.
    embeddings : tensor, (1, S, D), optional
        Merged embeddings to read in place of those of the image.

    Examples
    --------
    Raw attention of the last layer, averaged over heads and predicting rows, on the token grid::

        trace = trace_attention(lvlm, episode, [-1])
        rows = trace.weights(-1, episode.rows).mean(dim=(0, 1))
        heat = episode.grid.as_map(rows[list(episode.image_positions)].cpu().numpy())
    """
    wanted = layer_numbers(layers, len(lvlm.layers), "attention layers")
    sources = {layer: lvlm.adapter.keys_of(lvlm.layers, layer) for layer in wanted}
    with torch.set_grad_enabled(gradients), ExitStack() as stack:
        entered, left, residual, tokens = _watch_attention(lvlm, sorted({*wanted, *sources.values()}), stack)
        final: list[torch.Tensor] = []
        keep = lvlm.layers[-1].register_forward_hook(lambda m, a, out: final.append(_first(out)[0].detach()))
        stack.callback(keep.remove)
        if embeddings is None:
            scores, _ = score_from_entry(lvlm, episode, image, leaves=gradients)
        else:
            scores = score_embeddings(lvlm, episode, embeddings.detach().requires_grad_(gradients))
        check_finite(scores, "the score", lvlm)
        found: list[torch.Tensor | None] = [None] * len(wanted)
        if gradients:
            found = list(torch.autograd.grad(scores.sum(), [left[layer] for layer in wanted]))

    def record(layer: int, gradient: torch.Tensor | None = None, keys: _Layer | None = None) -> _Layer:
        module = lvlm.layers[layer].self_attn
        tables = entered[layer]["position_embeddings"]
        if tables is None:
            raise LvlmError("the attention layers are not given rotary tables", where=lvlm.key, expected=_EXPECTED)
        cos, sin = lvlm.adapter.rotary_tables(module, *tables)
        return _Layer(
            module=module,
            hidden=entered[layer]["hidden_states"][0].detach(),
            cos=cos[0],
            sin=sin[0],
            mask=entered[layer]["attention_mask"],
            last=left[layer][0, -1].detach().clone(),
            residual=residual[layer][0].detach(),
            gradient=None if gradient is None else gradient[0],
            keys=keys,
            token=tokens[layer][0].detach() if layer in tokens else None,
        )

    records = {}
    for layer, gradient in zip(wanted, found, strict=True):
        if gradient is not None:
            check_finite(gradient, f"the gradient at attention layer {layer}", lvlm)
        source = sources[layer]
        records[layer] = record(layer, gradient, None if source == layer else record(source))
    return AttentionTrace(lvlm, records, episode.length, scores[0].detach().cpu().numpy(), final[0])


def attention_parts(lvlm: Lvlm, module: Any, entered: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores before the softmax (H, S, S) and values (H, S, d) of one attention layer, float32, part of the graph.

    Parameters
    ----------
    lvlm : Lvlm
        The model.
    module : Module
        One of its attention layers.
    entered : mapping
        What its forward was given, for one sequence: ``hidden_states``, ``position_embeddings``, ``attention_mask``.
    """
    if getattr(module, "is_kv_shared_layer", False):
        raise LvlmError("an attention layer reads the keys of another: it cannot be rebuilt by itself", where=lvlm.key)
    hidden = entered["hidden_states"][0]
    cos, sin = lvlm.adapter.rotary_tables(module, *entered["position_embeddings"])
    record = _Layer(module, hidden, cos[0], sin[0], entered.get("attention_mask"), hidden[0], hidden, None)
    trace = AttentionTrace(lvlm, {0: record}, len(hidden), np.zeros(0), hidden)
    keys, values = trace._keys_values(record)
    scores = trace._scores(record, keys, torch.arange(len(hidden)))
    return scores, values.float().repeat_interleave(len(scores) // len(values), dim=0)


def _watch_attention(
    lvlm: Lvlm, wanted: Sequence[int], stack: ExitStack
) -> tuple[dict[int, dict[str, Any]], dict[int, torch.Tensor], dict[int, torch.Tensor], dict[int, torch.Tensor]]:
    """Record what enters each attention layer, the heads' outputs (what enters ``o_proj``), and the layers' inputs.

    Last come the embeddings that a family gives each layer of its own.
    """
    entered: dict[int, dict[str, Any]] = {}
    left: dict[int, torch.Tensor] = {}
    residual: dict[int, torch.Tensor] = {}
    tokens: dict[int, torch.Tensor] = {}
    names = ("hidden_states", "position_embeddings", "attention_mask")

    def entering(layer: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = dict(zip(names, args, strict=False)) | kwargs
            entered[layer] = {name: given.get(name) for name in names}

        return hook

    def leaving(layer: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...]) -> None:
            left[layer] = args[0]

        return hook

    def beginning(layer: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            residual[layer] = args[0] if args else kwargs["hidden_states"]
            own = kwargs.get("per_layer_input", args[1] if len(args) > 1 else None)
            if own is not None:
                tokens[layer] = own

        return hook

    for number in wanted:
        attention: Any = getattr(lvlm.layers[number], "self_attn", None)
        own = lvlm.adapter.keys_of(lvlm.layers, number) == number
        lacking = [
            name for name in _PARTS if not hasattr(attention, name) and (own or name not in ("k_proj", "v_proj"))
        ]
        if lacking:
            raise LvlmError(
                f"the attention of layer {number} has no {lacking[0]}: it cannot be rebuilt",
                where=lvlm.key,
                expected=_EXPECTED,
            )
        stack.callback(lvlm.layers[number].register_forward_pre_hook(beginning(number), with_kwargs=True).remove)
        stack.callback(attention.register_forward_pre_hook(entering(number), with_kwargs=True).remove)
        stack.callback(attention.o_proj.register_forward_pre_hook(leaving(number)).remove)
    return entered, left, residual, tokens


class _Attended(torch.nn.Module):
    """Stands for an attention layer: what it writes is a function of what enters it, (R, D) -> (R, D)."""

    def __init__(self, write: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.write = write

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, None]:
        entered = args[0] if args else kwargs["hidden_states"]
        return self.write(entered[0])[None], None


def _leave(
    layer: Any, residual: torch.Tensor, write: Callable[[torch.Tensor], torch.Tensor], token: torch.Tensor | None
) -> torch.Tensor:
    """What leaves a decoder layer at some rows, (R, D), from what entered it there and what its attention writes.

    The layer's own forward runs, with its norms and its MLP (all of them act on each row by itself) wherever the family
    has them; only its attention is replaced, for as long as that takes.
    """
    attention = layer.self_attn
    layer.self_attn = _Attended(write)
    try:
        needed = "position_embeddings" in inspect.signature(layer.forward).parameters
        own = {} if token is None else {"per_layer_input": token[None]}
        out = layer(residual[None], **({"position_embeddings": None} if needed else {}), **own)
    finally:
        layer.self_attn = attention
    return _first(out)[0]


def _first(out: Any) -> torch.Tensor:
    """A layer's hidden states, which some releases return alone."""
    hidden: torch.Tensor = out[0] if isinstance(out, tuple) else out
    return hidden
