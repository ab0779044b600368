"""CRAFT: unnamed concepts of the image tokens, and how much each takes part in the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from baselines.shared.checks import require
from baselines.shared.frames import reference_frames
from baselines.surrogate.sobol import total_indices
from medground_bench.attribution.method import Attribution, from_heatmap, method
from medground_bench.core.errors import MissingDependencyError

if TYPE_CHECKING:
    import torch

    from medground_bench.lvlm import Episode, Lvlm

__all__ = ["CraftParameters", "craft", "factorise", "two_sided"]

_FITTED: WeakKeyDictionary[Any, dict[Any, np.ndarray]] = WeakKeyDictionary()
"""LVLM -> what was fitted -> basis: the pool is looked at once."""


@dataclass(frozen=True)
class CraftParameters:
    """Parameters of ``craft``.

    Attributes
    ----------
    references : str
        Radiographs that concepts are learnt from: see :func:`~baselines.shared.frames.reference_frames`.
    pool : int
        Most of them.
    concepts : int
        Rank of the factorisation.
    points : int
        Base points of the Sobol sequence, a power of two.
    seed : int
        Of the pool, of the factorisation and of the points.
    """

    references: str = "phantom"
    pool: int = 16
    concepts: int = 10
    points: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.pool >= 1 and self.concepts >= 1, "craft", "pool and concepts must be at least 1")
        power = self.points >= 2 and self.points & (self.points - 1) == 0
        require(power, "craft", "points must be a power of two, at least 2")


@method(
    "craft",
    family="concept",
    over="frame",
    parameters=CraftParameters,
    needs=("white_box", "geometry", "references", "scikit_learn"),
    cost="88 D; the vision tower once for each radiograph of the pool",
    reference="Fel et al., CRAFT, CVPR 2023",
)
def craft(lvlm: Lvlm, episode: Episode, parameters: CraftParameters) -> Attribution:
    """``sum_k S_k u_pk``: a token's concept coefficients, weighted by the concepts' total Sobol indices, on the grid.

    Concepts are the factors of a non-negative factorisation of the pool's image embeddings, whose positive and negative
    parts stand side by side; u are the image's coefficients, S the indices of the score when shares of the concepts are
    taken out of its embeddings. Unsigned, question-aware through S. ``concept_scores`` hold S. The paper takes crops
    and activations that are positive already, 25 concepts (here 10, of a pool of 16 radiographs), and zooms in on
    concepts again.
    """
    from medground_bench.lvlm.embeddings import leaf_embeddings
    from medground_bench.lvlm.whitebox import embedding_log_probs

    basis = _basis(lvlm, episode, parameters)
    own, positions = leaf_embeddings(lvlm, episode)[0], list(episode.image_positions)
    coefficients = _coefficients(two_sided(_numpy(own[positions])), basis)
    half = basis.shape[1] // 2
    parts = np.einsum("pk,kd->kpd", coefficients, basis[:, :half] - basis[:, half:])  # what each concept adds, signed

    def worth(shares: np.ndarray) -> np.ndarray:
        def variants(start: int, stop: int) -> torch.Tensor:
            gone = np.einsum("nk,kpd->npd", 1 - shares[start:stop], parts)
            out = own.expand(stop - start, -1, -1).clone()
            out[:, positions] -= out.new_tensor(gone)
            return out

        return embedding_log_probs(lvlm, episode, len(shares), variants).sum(1)

    indices = total_indices(worth, len(basis), parameters.points, parameters.seed)
    heat = (coefficients * np.linalg.norm(basis, axis=1)) @ indices
    scores = {f"concept {k}": float(value) for k, value in enumerate(indices)}
    return from_heatmap(episode.grid.as_map(heat), episode, concept_scores=scores)


def two_sided(features: np.ndarray) -> np.ndarray:
    """(n, D) -> (n, 2 D): positive parts and, beside them, negative parts, both non-negative."""
    return np.concatenate([np.maximum(features, 0), np.maximum(-features, 0)], axis=1)


def factorise(features: np.ndarray, concepts: int, seed: int) -> np.ndarray:
    """Basis (k, 2 D) of a non-negative factorisation of two-sided features, k at most ``concepts``."""
    try:
        from sklearn.decomposition import NMF
    except ImportError as error:
        raise MissingDependencyError(
            "method 'craft' needs scikit-learn", remedy='pip install "medground-bench[methods]"'
        ) from error
    rank = min(concepts, *features.shape)
    model = NMF(rank, init="nndsvda", max_iter=400, random_state=seed, tol=1e-3).fit(features)
    basis: np.ndarray = model.components_[np.linalg.norm(model.components_, axis=1) > 0]
    return basis


def _coefficients(features: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """Non-negative least squares of every row, (n, k)."""
    from scipy.optimize import nnls

    return np.stack([nnls(basis.T, row)[0] for row in features])


def _basis(lvlm: Lvlm, episode: Episode, parameters: CraftParameters) -> np.ndarray:
    import torch

    from medground_bench.lvlm.whitebox import merged_embeddings

    key = (parameters.references, parameters.pool, parameters.concepts, parameters.seed, episode.letterbox)
    known = _FITTED.setdefault(lvlm, {})
    if key not in known:
        frames = reference_frames(parameters.references, episode, parameters.pool, parameters.seed)
        found = []
        with torch.no_grad():
            for frame in np.rint(frames).astype(np.uint8):
                merged = merged_embeddings(lvlm, episode, lvlm.pixel_inputs(episode, [frame]))
                found.append(two_sided(_numpy(merged[0, list(episode.image_positions)])))
        known[key] = factorise(np.concatenate(found), parameters.concepts, parameters.seed)
    return known[key]


def _numpy(values: torch.Tensor) -> np.ndarray:
    out: np.ndarray = values.detach().double().cpu().numpy()
    return out
