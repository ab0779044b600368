"""Evidence as a submission is near the top of every protocol on faithfulness; what knows nothing is at chance.

The world is one in which the answer rests on a bright spot of each record and on nothing else. Of protocols that do not
claim to measure faithfulness, those that judge places have evidence at the top, and what knows nothing is at whatever
chance they name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from medground_bench.attribution.method import method
from medground_bench.scoring.protocols import necessity as module
from medground_bench.scoring.protocols.protocol import available_protocols, get_protocol
from medground_bench.scoring.protocols.run import run_protocols
from medground_bench.submission.masks import encode_rle
from tests.scoring.protocols.kit import SIDE, World, run, world
from tests.scoring.protocols.test_necessity import Black
from tests.scoring.protocols.test_radiology import source_of

if TYPE_CHECKING:
    from medground_bench.scoring.protocols.result import ProtocolResult

RECORDS, SIZE = 16, 14  # patients; pixels of the spot, two tiles of seven

CLAIMS: Mapping[str, tuple[str, float, dict[str, Any]]] = {
    "necessity": ("necessity_gain_blur", 0.8, {"draws": 5}),
    "necessity_edited": ("flip_gain", 0.8, {"draws": 5}),
    "deletion": ("skill", 0.85, {"steps": 16, "randoms": 2}),
    "road": ("gap", 0.9, {"shares": (0.1, 0.3, 0.5)}),
    "sensitivity_n": ("correlation", 0.95, {"sets": 40, "sizes": (4, 16)}),
    "infidelity": ("infidelity", 0.05, {"sets": 40}),
    "pic": ("skill", 0.5, {"shares": (0.02, 0.07, 0.13, 0.3)}),
    "hallucination": ("share", 0.1, {"steps": 16}),
    "necessity_tokens": ("necessity_gain", 0.8, {"draws": 5}),
}
"""Protocol -> the measure in front, what the evidence must reach, and settings that are cheap."""

SILENT = {
    "completeness": "it judges the sum of a signed map, which boxes do not have",
}

PLACES: Mapping[str, tuple[str, ...]] = {
    "chexlocalize": ("hit", "iou_otsu"),
    "strata": ("iou", "dice"),
    "box_rules": ("iou_agreed", "iou_sized", "iou_best"),
    "masks": ("iou", "boundary_f", "instance_f1", "centroid_hit"),
    "smoothing": ("auprc_1",),
    "noise": ("auprc_0", "precision_0"),
    "side": ("hit",),
    "subgroups": ("iou",),
}
"""Protocol that judges places -> measures in which evidence is at the top."""

AT_CHANCE = (
    "chexlocalize",
    "masks",
    "box_rules",
    "smoothing",
    "noise",
    "side",
    "leakage",
    "bam",
    "flip",
    "shift",
    "stability",
    "cues",
)
"""Other protocols whose measures name a chance."""

ELSEWHERE = {
    "grid_pointing": "it needs a world in which others lack the finding: test_sanity",
    "difull": "it needs a model with parts: test_disconnected",
    "dipart": "it needs a model with parts: test_disconnected",
    "subgroups": "it needs an anatomy: test_radiology",
}


def place(k: int) -> tuple[int, int]:
    rng = np.random.default_rng(100 + k)
    return 7 * int(rng.integers(1, 5)), 7 * int(rng.integers(1, 5))


def spot(k: int) -> np.ndarray:
    pixels = np.random.default_rng(k).integers(20, 60, (SIDE, SIDE), dtype=np.uint8)
    x, y = place(k)
    pixels[y : y + SIZE, x : x + SIZE] = 250
    return pixels


def seen(frame: np.ndarray, question: str) -> float:
    """How much of the spot is left, from one in twenty to nineteen."""
    return 0.05 + 0.9 * min(1.0, float((frame > 230).sum()) / SIZE**2)


def evidence(k: int) -> list[list[float]]:
    x, y = place(k)
    return [[float(x), float(y), float(x + SIZE), float(y + SIZE)]]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("controls"), seen, n=RECORDS, image=spot, boxes=evidence)


@pytest.fixture(scope="module")
def submissions(board: World) -> dict[str, Path]:
    rng = np.random.default_rng(7)

    def inside(record: Any) -> np.ndarray:
        heat = np.zeros((8, 8))
        x1, y1, x2, y2 = (int(v) // 7 for v in record.boxes[0])
        heat[y1:y2, x1:x2] = 1
        return heat

    def anywhere(record: Any) -> list[list[float]]:
        x, y = rng.uniform(0, SIDE - SIZE, 2)
        return [[x, y, x + SIZE, y + SIZE]]

    return {
        "truth": board.submit("truth", lambda r: r.boxes, inside),
        # Signed, so that it does not know how many cells a set has.
        "random": board.submit("random", anywhere, lambda r: rng.normal(size=(8, 8)), signed=True),
        "constant": board.submit("constant", lambda r: [[0, 0, SIDE, SIDE]], lambda r: np.ones((8, 8))),
    }


@method("noise_of", family="test", over="frame")
def noise_of(lvlm: Any, episode: Any, parameters: Any) -> np.ndarray:
    """Other noise for any other input."""
    asked = f"{episode.question}\0{episode.response}\0".encode() + episode.frame_array.tobytes()
    return np.random.default_rng(list(hashlib.sha256(asked).digest())).normal(size=(8, 8))


def constant(lvlm: Any, episode: Any) -> np.ndarray:
    return np.ones((8, 8))


def said(k: int) -> str:
    """A side where the spot is on one: the image's left is the patient's right."""
    middle = place(k)[0] + SIZE / 2
    return "Yes" if middle == SIDE / 2 else f"Yes, on the {'right' if middle < SIDE / 2 else 'left'}"


@pytest.fixture(scope="module")
def sided(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("sided")
    return world(root, seen, n=RECORDS, image=spot, boxes=evidence, response=said)


@pytest.fixture(scope="module")
def answers(sided: World) -> dict[str, Path]:
    rng = np.random.default_rng(8)

    def drawn(boxes: Any) -> list[Any]:
        mask = np.zeros((SIDE, SIDE), bool)
        for x1, y1, x2, y2 in boxes:
            mask[int(y1) : int(y2), int(x1) : int(x2)] = True
        return [encode_rle(mask)]

    def anywhere(record: Any) -> list[list[float]]:
        x, y = rng.integers(0, SIDE - SIZE + 1, 2).tolist()
        return [[x, y, x + SIZE, y + SIZE]]

    def map_of(record: Any) -> np.ndarray:
        return noise_of.function(
            sided.lvlm, sided.lvlm.prepare(record.image, record.question, record.response, SIDE), None
        )

    def bright(record: Any) -> np.ndarray:
        return (np.asarray(record.image) > 230).astype(float)

    return {
        "truth": sided.submit("truth", lambda r: r.boxes, bright, lambda r: drawn(r.boxes)),
        "noise_of": sided.submit("noise_of", anywhere, map_of, lambda r: drawn(anywhere(r))),
        "constant": sided.submit("constant", lambda r: [[0, 0, SIDE, SIDE]], lambda r: np.ones((8, 8)), signed=True),
    }


METHODS: Mapping[str, Any] = {
    "truth": lambda lvlm, episode: (np.asarray(episode.frame.convert("L")) > 230).astype(float),
    "noise_of": noise_of,
    "constant": constant,
}


EXTRA: Mapping[str, dict[str, Any]] = {"noise": {"levels": (4, 16), "decoys": (2,)}}
"""Settings that take what is not measured otherwise."""


def judged(board: World, path: Path, name: str) -> ProtocolResult:
    return run(board, path, name, EXTRA.get(name), methods=METHODS, sources=source_of(board, sex=lambda k: "FM"[k % 2]))


@pytest.mark.parametrize("name", PLACES)
def test_evidence_is_at_the_top_of_what_judges_places(sided: World, answers: dict[str, Path], name: str) -> None:
    whole = judged(sided, answers["truth"], name).find()
    assert whole is not None
    assert {measure: whole.values[measure].value for measure in PLACES[name]} == pytest.approx(
        dict.fromkeys(PLACES[name], 1.0)
    )


@pytest.mark.parametrize("name", AT_CHANCE)
def test_what_knows_nothing_is_at_any_chance_that_is_named(sided: World, answers: dict[str, Path], name: str) -> None:
    result = judged(sided, answers["noise_of"], name)
    for measure in get_protocol(name).measures:
        if measure.chance is None or measure.name not in result.values:
            continue
        chance = result.values[measure.chance] if isinstance(measure.chance, str) else measure.chance
        apart = result.values[measure.name] - chance
        apart = apart[~np.isnan(apart)]
        assert len(apart) >= 8, measure
        if measure.name.startswith("auprc"):  # of few cells a random order has more than a constant map
            apart -= expected_precision(64, 4) - 4 / 64
        one = 1 / len(apart) + 1e-9  # record: what is rare may not have happened at all
        assert abs(apart.mean()) <= 3 * apart.std(ddof=1) / np.sqrt(len(apart)) + one, measure


def expected_precision(cells: int, true: int) -> float:
    """Mean average precision of all orders of cells.

    Of the first r, if the last of them is true, ``1 + (true - 1) (r - 1) / (cells - 1)`` are true in the mean.
    """
    r = np.arange(1, cells + 1)
    return float(((1 + (true - 1) * (r - 1) / (cells - 1)) / r).mean())


def test_of_a_constant_map_nothing_is_said(sided: World, answers: dict[str, Path]) -> None:
    """Whatever reads maps, with methods run again or not, but for what needs a model with parts."""
    names = [n for n in available_protocols() if "heatmaps" in get_protocol(n).needs]
    names = [n for n in names if n not in ("difull", "dipart", "layers")]
    assert len(names) > 18
    settings = {name: CLAIMS[name][2] for name in names if name in CLAIMS}
    report = run_protocols(
        [answers["constant"]],
        sided.folder,
        names,
        sided.root / "constant",
        lvlm=sided.lvlm,
        methods=METHODS,
        settings=settings,
        limit=4,
        resamples=200,
    )
    assert not report.errors, report.errors
    assert not report.missing, report.missing
    for name in names:
        result = report.results["constant", name]
        assert result.find() is None, name
        assert sum(result.skipped.values()) == 4, name


def test_every_chance_is_tested() -> None:
    named = {n for n in available_protocols() if any(m.chance is not None for m in get_protocol(n).measures)}
    assert named - set(CLAIMS) - set(SILENT) == {*AT_CHANCE, *ELSEWHERE}


@pytest.fixture
def tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """The game for a decoder: without the spot's image tokens the answer loses what it loses without its pixels."""

    def without(probe: Any, hidden: np.ndarray) -> np.ndarray:
        spot = (probe.frame > 230).reshape(8, 7, 8, 7).sum(axis=(1, 3)).ravel()
        p = 0.05 + 0.9 * (1 - hidden @ (spot / spot.sum()))
        return np.asarray(p if probe.response.startswith("Yes") else 1 - p)

    monkeypatch.setattr(module, "_without_tokens", without)


def found(board: World, path: Path, name: str) -> ProtocolResult:
    return run(board, path, name, CLAIMS[name][2], editor=Black())


def test_none_is_forgotten() -> None:
    """Those of the guide's sections on faithfulness, and the least share that turns an answer."""
    guide = (Path(__file__).parents[3] / "docs" / "protocols.md").read_text()
    sections = guide[guide.index("## Is the region needed") : guide.index("## Would the map be there")]
    named = set(re.findall(r"^\*\*`(\w+)`\*\*", sections, re.M))
    assert named | {"hallucination"} == set(CLAIMS) | set(SILENT)
    assert all(get_protocol(name).measures[0].name == measure for name, (measure, _, _) in CLAIMS.items())


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize("name", CLAIMS)
def test_evidence_is_near_the_top(board: World, submissions: dict[str, Path], name: str) -> None:
    measure, reached, _ = CLAIMS[name]
    whole = found(board, submissions["truth"], name).find()
    assert whole is not None
    assert whole.records == RECORDS
    low = get_protocol(name).measures[0].better == "low"
    assert (whole.values[measure].value <= reached) if low else (whole.values[measure].value >= reached)


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize("name", CLAIMS)
def test_random_is_at_chance(board: World, submissions: dict[str, Path], name: str) -> None:
    measure = get_protocol(name).measures[0]
    result = found(board, submissions["random"], name)
    if isinstance(measure.chance, str):  # a measure beside it, of the same records
        differences = result.values[measure.name] - result.values[measure.chance]
        assert abs(differences.mean()) < 3 * differences.std(ddof=1) / np.sqrt(RECORDS)
        return
    whole = result.find()
    assert whole is not None
    value, low, high = whole.values[measure.name]
    assert measure.chance is not None
    if name == "infidelity":  # the scale fits best: a little is always explained
        assert 0.9 < value <= measure.chance
    else:
        assert low <= measure.chance <= high
        assert abs(value - measure.chance) < 0.15


@pytest.mark.usefixtures("tokens")
@pytest.mark.parametrize("name", CLAIMS)
def test_constant_is_at_chance_or_says_nothing(board: World, submissions: dict[str, Path], name: str) -> None:
    measure = get_protocol(name).measures[0]
    result = found(board, submissions["constant"], name)
    if "heatmaps" in get_protocol(name).needs:
        assert result.find() is None
        assert result.skipped == {"a constant heat map, or one that is not finite": RECORDS}
    else:
        whole = result.find()
        assert whole is not None
        assert whole.values[measure.name].value == pytest.approx(measure.chance, abs=1e-9)
