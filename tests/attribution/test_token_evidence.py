"""Token evidence: the drops of a response without the finding, kept in a folder that a run resumes from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medground_bench.attribution.token_evidence import find_token_evidence, read_token_evidence
from medground_bench.causal.editors import Editor, EditRequest
from medground_bench.core.errors import MedGroundError, ScoringError
from medground_bench.dataset.columns import Record
from medground_bench.imaging import Letterbox


class Black(Editor):
    """Removes a finding by black."""

    name = "black"

    def _edit(self, request: EditRequest) -> Image.Image:
        assert request.prompt == "No nodule"
        return Image.fromarray(np.where(request.mask, 0, np.asarray(request.image)).astype(np.uint8))


class Bright:
    """Two tokens: one that does not look, and one whose log-probability is the frame's mean brightness."""

    key, revision, calls = "bright", "1", 0

    def prepare(self, image: Image.Image, question: str, response: str, side: int | None = 224) -> Any:
        letterbox = Letterbox.fit(*image.size, side or max(image.size))
        frame = letterbox.apply(image)
        return SimpleNamespace(letterbox=letterbox, frame=frame, frame_array=np.asarray(frame))

    def log_probs(self, episode: Any, frames: Any) -> np.ndarray:
        self.calls += 1
        return np.array([[-1.0, float(np.mean(frame))] for frame in frames])


class Folder:
    path, fingerprint = Path("dataset"), "sha256:0"

    def __iter__(self) -> Any:
        for k in range(3):
            yield Record(
                id=f"r{k}",
                dataset="d",
                model="bright",
                mode="direct",
                image_id=f"i{k}",
                patient_id="p",
                width=40,
                height=40,
                attribute="nodule",
                question="?",
                response="Yes",
                boxes=((0, 0, 40, 10 * (k + 1)),),
                load_image=lambda: Image.fromarray(np.full((40, 40), 100, np.uint8)),
            )


def find(lvlm: Any, out: Path, **more: Any) -> Any:
    return find_token_evidence(Folder(), lvlm, Black(), [], out, side=40, **more)  # type: ignore[arg-type]


def test_drops_of_known_size(tmp_path: Path) -> None:
    found = find(Bright(), tmp_path / "out")
    assert {k: v.tolist() for k, v in found.drops.items()} == {"r0": [0, 25], "r1": [0, 50], "r2": [0, 75]}
    assert found.header["editor"] == {"name": "black"}
    read = read_token_evidence(tmp_path / "out")
    assert read.header == found.header
    assert list(read.drops) == ["r0", "r1", "r2"]


def test_a_run_resumes_and_refuses_other_settings(tmp_path: Path) -> None:
    lvlm = Bright()
    assert len(find(lvlm, tmp_path, limit=2).drops) == 2
    assert lvlm.calls == 2
    assert len(find(lvlm, tmp_path).drops) == 3
    assert lvlm.calls == 3
    with pytest.raises(MedGroundError, match="seed"):
        find(lvlm, tmp_path, seed=1)


def test_what_cannot_be_read_or_made(tmp_path: Path) -> None:
    with pytest.raises(ScoringError, match="cannot be read"):
        read_token_evidence(tmp_path)
    (tmp_path / "token-evidence.json").write_text('{"kind": "other"}')
    with pytest.raises(ScoringError, match="not token evidence"):
        read_token_evidence(tmp_path)
    other = Bright()
    other.key = "dark"
    with pytest.raises(MedGroundError, match="dark"):
        find(other, tmp_path / "out")
