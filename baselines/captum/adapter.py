"""``captum:NAME``: any attribution class of Captum that can explain a score of the frame, by its name."""

from __future__ import annotations

import inspect
from dataclasses import field, make_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.captum.classes import attribution_class
from baselines.shared.frames import float_frame, frame_tensor, reference_frames
from medground_bench.attribution.fills import fill_frame
from medground_bench.attribution.method import Attribution, Method, from_heatmap
from medground_bench.attribution.regions import region_labels
from medground_bench.core.errors import MethodError

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["captum_method"]

_OURS = {"feature_mask", "baselines", "sliding_window_shapes", "strides"}
_SKIPPED = {
    *("self", "inputs", "target", "additional_forward_args", "return_convergence_delta", "show_progress", "kwargs")
}
_BATCHES = {"internal_batch_size": 4, "perturbations_per_eval": 16}  # Captum's own defaults hold everything, or one


@cache
def captum_method(name: str) -> Method:
    """The method ``captum:name``.

    Its parameters are those of the class's ``attribute`` that are numbers, text or switches, and ``fill`` (what is the
    absence of a pixel), ``regions`` (what is one feature), ``window`` and ``stride`` (pixels, of ``Occlusion``),
    ``references`` (of ``GradientShap``) and ``seed``, where the class has use for them.

    Raises
    ------
    MissingDependencyError, MethodError
        As :func:`~baselines.captum.classes.attribution_class`.
    """
    kind, gradients = attribution_class(name)
    given = inspect.signature(kind.attribute).parameters

    def run(lvlm: Lvlm, episode: Episode, parameters: Any) -> Attribution:
        return _attribute(kind, given, gradients, lvlm, episode, parameters)

    run.__doc__ = f"``captum.attr.{name}`` of the sequence score, with respect to the grey levels of the frame."
    return Method(
        name=f"captum:{name}",
        function=run,
        family="captum",
        parameters=make_dataclass(f"{name}Parameters", _fields(name, given), frozen=True),
        needs=("white_box", "gradients") if gradients else (),
        cost="by its parameters",
        reference=f"Kokhlikyan et al., Captum, arXiv 2009.07896: {name}",
        signed=name != "Saliency",
        over="frame",
    )


def _fields(name: str, given: Any) -> list[tuple[str, Any, Any]]:
    """Fields of the parameters' dataclass."""
    found: list[tuple[str, Any, Any]] = [("seed", int, field(default=0))]
    for one in given.values():
        plain = isinstance(one.default, bool | int | float | str) or one.default is None
        if one.name in _SKIPPED | _OURS or one.default is inspect.Parameter.empty or not plain:
            continue
        found.append((one.name, Any, field(default=_BATCHES.get(one.name, one.default))))
    if "baselines" in given:
        found.append(("fill", str, field(default="black")))
    if "feature_mask" in given:
        found.append(("regions", str, field(default="tiles:8x8")))
    if "sliding_window_shapes" in given:
        found += [("window", int, field(default=28)), ("stride", int, field(default=28))]
    if name == "GradientShap":
        found.append(("references", str, field(default="phantom")))
    return found


def _attribute(kind: Any, given: Any, gradients: bool, lvlm: Lvlm, episode: Episode, parameters: Any) -> Attribution:
    import torch

    options = {name: getattr(parameters, name) for name in given if hasattr(parameters, name)}
    frame = frame_tensor(float_frame(episode)).requires_grad_(gradients)
    if "baselines" in given:
        options["baselines"] = frame_tensor(fill_frame(parameters.fill, episode).astype(np.float64))
    if hasattr(parameters, "references"):
        pool = reference_frames(parameters.references, episode, 16, parameters.seed)
        options["baselines"] = torch.cat([frame_tensor(one) for one in pool])
    if "feature_mask" in given:
        labels = region_labels(parameters.regions, episode)
        # Bars of the letterbox are a feature as well, one whose absence is itself.
        options["feature_mask"] = torch.as_tensor(np.where(labels < 0, labels.max() + 1, labels))[None, None]
    if "sliding_window_shapes" in given:
        options["sliding_window_shapes"] = (frame.shape[1], parameters.window, parameters.window)
        options["strides"] = (frame.shape[1], parameters.stride, parameters.stride)

    def soft(frames: torch.Tensor) -> torch.Tensor:
        return lvlm.soft_log_probs(episode, frames).sum(1)

    def black_box(frames: torch.Tensor) -> torch.Tensor:
        levels = frames.detach().round().clamp(0, 255).to(torch.uint8)
        stack = levels[:, 0] if levels.shape[1] == 1 else levels.permute(0, 2, 3, 1)
        return torch.as_tensor(np.asarray(lvlm.log_probs(episode, stack.numpy()), np.float64).sum(1))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(parameters.seed)
        try:
            found = kind(soft if gradients else black_box).attribute(frame, **options)
        except (AssertionError, ValueError, TypeError) as error:  # what Captum has to say of its parameters
            raise MethodError(f"captum.attr.{kind.__name__} refuses: {' '.join(str(error).split())[:300]}") from error
    heat = found.detach().double()[0].sum(0).cpu().numpy()
    return from_heatmap(heat, episode, signed=kind.__name__ != "Saliency")
