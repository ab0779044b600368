"""Worlds in which every protocol's answer is known: a game for an LVLM, records with images, submissions."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from medground_bench.dataset.folder import DatasetFolder, open_folder
from medground_bench.imaging import Letterbox
from medground_bench.lvlm import Generated
from medground_bench.lvlm.grid import TokenGrid
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.submission import write_submission
from tests.baselines.doubles import plain_episode
from tests.baselines.kit import WEIGHTS, quadrants
from tests.scoring.folders import header, make_rows, write_folder

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.result import ProtocolResult

SIDE = 56
FLOOR = 1e-6

Game = Callable[..., float]
"""Frame (H, W) in [0, 255] and the response -> the probability of each of the response's two tokens."""


class GameLvlm:
    """An LVLM whose confidence is a game's; it answers yes from 0.5 on."""

    key = "tiny_a"
    revision = "game-1"
    dtype = "float32"
    decoding: Mapping[str, Any] = {}

    def __init__(self, game: Game) -> None:
        self.game, self.passes = game, 0

    def prepare(self, image: Any, question: str, response: str, side: int | None = 224) -> Any:
        box = Letterbox.identity(*image.size) if side is None else Letterbox.fit(*image.size, side)
        frame = box.apply(image).convert("RGB")
        grid = TokenGrid(8, 8, frame.size)
        return replace(
            plain_episode(),
            image=image,
            frame=frame,
            letterbox=box,
            question=question,
            response=response,
            geometry=grid,
        )

    def log_probs(self, episode: Any, images: Any, **_: Any) -> np.ndarray:
        self.passes += len(images)
        p = [self._p(np.asarray(image, float), episode.question, episode.response) for image in images]
        return np.log(np.maximum(np.array(p), FLOOR))[:, None].repeat(2, axis=1)

    def generate(self, images: Any, questions: Any, max_new_tokens: int = 32, *, side: Any = 224) -> list[Generated]:
        self.passes += len(images)
        found = [self._p(np.asarray(i, float), q, "Yes") >= 0.5 for i, q in zip(images, questions, strict=True)]
        return [Generated("Yes" if yes else "No") for yes in found]

    def _p(self, image: np.ndarray, question: str, response: str) -> float:
        grey = image if image.ndim == 2 else image[..., 0]
        p = float(self.game(grey, question))
        return p if response.lower().startswith("yes") else 1 - p


def png(pixels: np.ndarray) -> dict[str, Any]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}


@dataclass
class World:
    """A dataset folder, its rows, and an LVLM that plays."""

    root: Path
    folder: DatasetFolder
    rows: list[dict[str, Any]]
    lvlm: GameLvlm

    def submit(
        self,
        method: str,
        boxes: Callable[[Any], Sequence[Any]] = lambda record: [],
        heat: Callable[[Any], np.ndarray | None] | None = None,
        masks: Callable[[Any], Sequence[Any]] | None = None,
        **settings: Any,
    ) -> Path:
        """A submission that says of every record what the functions say."""
        folder = self.root / "submissions" / method
        predictions = []
        for k, record in enumerate(self.folder):
            row: dict[str, Any] = {"id": record.id, "boxes": [list(box) for box in boxes(record)]}
            if masks is not None:
                row["masks"] = list(masks(record))
            values = heat(record) if heat is not None else None
            if values is not None:
                row["heatmap"] = f"heatmaps/{k}.npy"
                (folder / "heatmaps").mkdir(parents=True, exist_ok=True)
                np.save(folder / row["heatmap"], np.asarray(values, np.float32))
            predictions.append(row)
        head = header(self.rows, method=method, settings={"frame_side": SIDE, **settings})
        return write_submission(folder, head, predictions)


def additive(frame: np.ndarray, question: str) -> float:
    """The confidence of the additive game of the oracle kit."""
    return float(quadrants(frame) / 255 @ WEIGHTS)


def run(board: World, path: Path, name: str, settings: Any = None, **options: Any) -> ProtocolResult:
    """One protocol on one submission."""
    given = {} if settings is None else {"settings": {name: settings}}
    options = {"lvlm": board.lvlm, "resamples": 200, **given, **options}
    report = run_protocols([path], board.folder, [name], board.root / "out", **options)
    assert not report.errors, report.errors
    assert not report.missing, report.missing
    return report.results[path.name, name]


def mean(result: ProtocolResult, name: str) -> float:
    whole = result.find()
    assert whole is not None
    return float(whole.values[name].value)


def world(
    root: Path,
    game: Game,
    *,
    n: int = 8,
    image: Callable[[int], np.ndarray] = lambda k: np.full((SIDE, SIDE), 255, np.uint8),
    boxes: Callable[[int], list[list[float]]] = lambda k: [[0.0, 0.0, SIDE / 2, SIDE / 2]],
    **columns: Callable[[int], Any],
) -> World:
    """``n`` records of as many patients; ``columns`` gives other values of a row's columns by its number."""
    rows = make_rows(n, lvlms=("tiny_a",))
    for k, row in enumerate(rows):
        height, width = image(k).shape
        row |= {"boxes": boxes(k), "width": width, "height": height, "image": png(image(k)), "patient_id": f"p{k:03d}"}
        row |= {name: value(k) for name, value in columns.items()}
    path = write_folder(root / "dataset", rows)
    return World(root, open_folder(path, "direct"), rows, GameLvlm(game))


def quadrant(k: int, side: int = SIDE) -> list[float]:
    """The box of a quadrant, in reading order."""
    half = side / 2
    y, x = divmod(k, 2)
    return [x * half, y * half, (x + 1) * half, (y + 1) * half]


def quadrant_map(weights: Sequence[float]) -> np.ndarray:
    """A 2 x 2 heat map."""
    return np.asarray(weights, np.float32).reshape(2, 2)
