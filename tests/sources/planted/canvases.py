"""A folder of canvases with everything that can be wrong with one: phantoms stand in for normal radiographs."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from medground_bench.sources.phantom import sample_phantom
from medground_bench.sources.planted import Localization

SIZE = 256


@lru_cache(maxsize=1)
def phantoms():
    """Six normal phantoms."""
    return [sample_phantom(seed, size=SIZE, findings=[]) for seed in range(6)]


def exact_localizer(image):
    """The phantom's own anatomy, told by the image's pixels; anything else is no chest."""
    for phantom in phantoms():
        if image.shape == phantom.image.shape and (image == phantom.image).all():
            return Localization(phantom.masks, 0.9)
    return Localization(sample_phantom(0, size=image.shape[::-1], findings=[]).masks, 0.3)


def write_canvases(folder: Path, good: int = 6) -> Path:
    """``good`` normal phantoms with a manifest."""
    (folder / "images").mkdir(parents=True)
    rows = ["image,patient_id,age,sex,view"]
    for seed, phantom in enumerate(phantoms()[:good]):
        Image.fromarray(phantom.image).save(folder / "images" / f"c{seed}.png")
        rows.append(f"c{seed}.png,p{seed // 2},{40 + seed},F,PA")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def spoil(folder: Path) -> dict[str, str]:
    """Add files that cannot be canvases; file -> what the refusal must say."""
    images, chest = folder / "images", phantoms()[0].image
    rng = np.random.default_rng(0)
    rows = []

    def add(name: str, pixels, row: str = ",50,F,AP") -> None:
        Image.fromarray(pixels).save(images / name)
        rows.append(name + "," + row)

    add("lateral.png", chest, "p9,50,F,LATERAL")
    add("child.png", chest, "p9,11,M,AP")
    add("infant.png", chest, "p9,6M,M,AP")
    add("colour.png", rng.integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8))
    add("tiny.png", chest[:64, :64])
    add("wide.png", np.hstack([chest, chest]))
    add("noise.png", rng.integers(0, 255, (SIZE, SIZE)).astype(np.uint8))
    Image.fromarray(chest).save(images / "stranger.png")
    Image.fromarray(chest).save(images / "c0.tif")
    (images / "broken.png").write_bytes((images / "c0.png").read_bytes()[:400])
    rows.append("broken.png,p9,50,F,AP")
    (images / "thumbs.db").write_bytes(b"x")
    rows.append("gone.png,p9,50,F,AP")
    with open(folder / "manifest.csv", "a") as file:
        file.write("\n".join(rows) + "\n")
    return {
        "lateral.png": "not a frontal view (manifest.csv:8: LATERAL)",
        "child.png": "a child (manifest.csv:9: age 11)",
        "infant.png": "a child (manifest.csv:10: age 6M)",
        "colour.png": "colour",
        "tiny.png": "64x64",
        "wide.png": "times as wide as high",
        "noise.png": "not found with confidence",
        "stranger.png": "not named in manifest.csv",
        "c0.tif": "c0.png has the same image id",
        "broken.png": "",
        "thumbs.db": "not an image file",
        "gone.png": "not there",
    }
