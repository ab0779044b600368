"""Posed canvases: the window's place by hand, never past the image's edge, and what a posed set says of itself."""

import hashlib
import json
from math import cos, radians, sin

import numpy as np
import pytest

from medground_bench.imaging.read import read_image
from medground_bench.sources import open_source
from medground_bench.sources.planted import CanvasAnatomy, Localization, load_planted, plant, write_planted
from medground_bench.sources.planted.pose import Pose, draw_pose, posed
from medground_bench.sources.verify import verify_source
from tests.sources.planted.canvases import phantoms, write_canvases


def test_windows_by_hand():
    image = np.random.default_rng(0).integers(0, 256, (40, 40)).astype(np.uint8)
    assert (posed(image, Pose(0.0, 1.0, (0.5, 0.5))) == image).all()
    # Turned clockwise by a right angle, the window reads down the image's columns from its right edge.
    for turn, quarters in ((90.0, 1), (-90.0, -1)):  # cos 90 degrees is not quite 0: within a grey level
        assert np.abs(posed(image, Pose(turn, 1.0, (0.5, 0.5))) - np.rot90(image, quarters).astype(int)).max() <= 1


def test_a_quarter_of_the_image_at_its_size():
    across = np.tile(np.arange(60, dtype=np.uint8) * 4, (30, 1))  # grey is 4 x at the centre of column x
    shown = posed(across, Pose(0.0, 0.5, (0.75, 0.25)))
    columns = np.arange(2, 58)
    assert shown.shape == across.shape
    assert np.abs(shown[15, columns].astype(int) - 4 * (30 + (columns + 0.5) / 2 - 0.5)).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(100, 100), (160, 100), (90, 150)])
def test_the_window_never_leaves_the_image_and_uses_its_room(width, height):
    rng = np.random.default_rng(1)
    turns, sides, reached = [], [], []
    for _ in range(500):
        pose = draw_pose(rng, width, height)
        c, s = cos(radians(pose.turn)), sin(radians(pose.turn))
        for u in (-0.5, 0.5):
            for v in (-0.5, 0.5):
                across, down = u * pose.side * width, v * pose.side * height
                x = pose.centre[0] * width + c * across - s * down
                y = pose.centre[1] * height + s * across + c * down
                assert -1e-9 <= x <= width + 1e-9
                assert -1e-9 <= y <= height + 1e-9
                reached.append(min(x, width - x, y, height - y))
        turns.append(pose.turn)
        sides.append(pose.side)
    assert min(turns) < -7
    assert max(turns) > 7
    assert min(sides) < 0.7
    assert max(sides) > 0.95
    assert min(reached) < 0.1


def somewhere(image):
    """A phantom's anatomy, wherever the chest lies: the test is of files, not of anatomy."""
    return Localization(phantoms()[0].masks, 0.9)


def test_a_posed_set_keeps_the_pose_and_is_otherwise_a_planted_set(tmp_path):
    canvases = write_canvases(tmp_path / "canvases")
    made = [
        write_planted(canvases, tmp_path / name, 6, localizer=somewhere, seed=seed, at_most=True, pose=True)
        for name, seed in (("set", 3), ("again", 3), ("other", 4))
    ]
    texts = [(result.root / "planted.json").read_text() for result in made]
    assert texts[0] == texts[1]
    entries = json.loads(texts[0])["images"]
    assert len(entries) >= 3
    for entry in entries:
        given = np.asarray(read_image(canvases / "images" / entry["canvas"]))
        assert hashlib.sha256(f"{given.shape}".encode() + given.tobytes()).hexdigest() == entry["canvas_sha256"]
        window = posed(given, Pose(**entry["pose"]))
        drawn = plant(window, CanvasAnatomy(somewhere(window)), 3)
        read = load_planted(made[0].root, entry["image_id"])
        assert (read.image == drawn.image).all()
        assert (read.canvas == window).all()
        assert not (window == given).all()
    poses = [{e["canvas"]: e["pose"]["turn"] for e in json.loads(text)["images"]} for text in texts]
    assert len(set(poses[0].values())) == len(entries)
    assert all(poses[0][name] != poses[2][name] for name in poses[0].keys() & poses[2].keys())
    assert verify_source("planted", made[0].root).sound
    assert len(open_source("planted", made[0].root)) == made[0].findings


def test_a_set_that_is_not_posed_says_nothing_of_poses(tmp_path):
    canvases = write_canvases(tmp_path / "canvases")
    result = write_planted(canvases, tmp_path / "set", 2, localizer=somewhere, at_most=True)
    assert all("pose" not in entry for entry in json.loads((result.root / "planted.json").read_text())["images"])
