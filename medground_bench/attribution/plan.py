"""What a run of ``generate`` will cost before it starts: passes, hours and storage, from a measured sample."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medground_bench.attribution.method import Method, as_method
from medground_bench.core.errors import MedGroundError

if TYPE_CHECKING:
    from medground_bench.attribution.results import Attribution
    from medground_bench.dataset.columns import Record
    from medground_bench.lvlm import Lvlm

__all__ = ["MethodPlan", "count_passes", "plan_generate"]

_ROW_BYTES = 600
"""A line of predictions with its boxes and scores, about."""


@dataclass(frozen=True)
class MethodPlan:
    """What one method will cost.

    Attributes
    ----------
    method : str
        Its name.
    records : int
        Records of the whole run.
    forwards, backwards : float
        Images that go through the LVLM, and back, for one record.
    seconds : float
        For one record.
    bytes : float
        Heat map and line of one record on disk.
    error : str or None
        Why it could not be measured.
    """

    method: str
    records: int
    forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0
    bytes: float = 0.0
    error: str | None = None

    @property
    def hours(self) -> float:
        """Of the whole run in one process."""
        return self.seconds * self.records / 3600

    @property
    def gigabytes(self) -> float:
        """Of the whole run."""
        return self.bytes * self.records / 1e9


@contextmanager
def count_passes(lvlm: Any) -> Iterator[dict[str, int]]:
    """Within it, count the images that go forward through a model's head (or to a server) and back from it."""
    counts = {"forwards": 0, "backwards": 0}

    def forward(module: Any, args: Any, logits: Any) -> None:
        images = len(logits)
        counts["forwards"] += images
        if logits.requires_grad:

            def backward(gradient: Any) -> None:
                counts["backwards"] += images

            logits.register_hook(backward)

    with ExitStack() as stack:
        head = None if lvlm.family == "server" else getattr(lvlm.model, "get_output_embeddings", lambda: None)()
        if head is not None:
            stack.callback(head.register_forward_hook(forward).remove)
        else:  # a server, or two towers
            score = lvlm.log_probs

            def counted(episode: Any, images: Any, **options: Any) -> Any:
                out = score(episode, images, **options)
                counts["forwards"] += len(out)
                return out

            lvlm.log_probs = counted
            stack.callback(lambda: delattr(lvlm, "log_probs"))
        yield counts


def plan_generate(
    records: Sequence[Record],
    lvlm: Lvlm,
    methods: Sequence[str | Method],
    *,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    side: int | None = 224,
    limit: int | None = None,
    sample: int = 2,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[MethodPlan]:
    """Run every method on a few records, throw the attributions away, and multiply up.

    Parameters
    ----------
    records, lvlm, methods, settings, side, limit
        As for :func:`medground_bench.attribution.generate.generate`.
    sample : int
        Records measured, spread evenly. The first run of a method is not counted: it loads what is kept afterwards.
    progress : callable, optional
        Called with (done, total, what is under way).

    Raises
    ------
    MedGroundError
        If no record is the LVLM's.
    """
    rows = [record for record in records if record.model == lvlm.key][:limit]
    if not rows:
        raise MedGroundError(f"the dataset has no record of LVLM {lvlm.key!r}")
    chosen = [rows[k] for k in sorted({round(k) for k in np.linspace(0, len(rows) - 1, min(sample, len(rows)))})]
    plans = []
    for k, one in enumerate(methods):
        method = as_method(one)
        if progress is not None:
            progress(k, len(methods), method.name)
        parameters = method.make_parameters((settings or {}).get(method.name))
        try:
            plans.append(_measured(method, parameters, lvlm, chosen, side, len(rows)))
        except (MedGroundError, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError) as error:
            plans.append(MethodPlan(method.name, len(rows), error=" ".join(str(error).split())))
    return plans


def _measured(
    method: Method, parameters: Any, lvlm: Lvlm, chosen: Sequence[Record], side: int | None, records: int
) -> MethodPlan:
    episodes = [lvlm.prepare(r.image, r.question, r.response or "", side=side) for r in chosen]
    method.run(lvlm, episodes[0], parameters)
    with count_passes(lvlm) as counts:
        start = time.perf_counter()
        results = [method.run(lvlm, episode, parameters) for episode in episodes]
        seconds = time.perf_counter() - start
    n = len(episodes)
    return MethodPlan(
        method.name,
        records,
        forwards=counts["forwards"] / n,
        backwards=counts["backwards"] / n,
        seconds=seconds / n,
        bytes=sum(map(_bytes, results)) / n,
    )


def _bytes(result: Attribution) -> float:
    return _ROW_BYTES + (0 if result.heatmap is None else 128 + 4 * np.asarray(result.heatmap).size)
