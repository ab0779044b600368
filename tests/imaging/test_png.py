"""PNG files that Pillow alone reads wrongly or not at all; written here chunk by chunk."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from medground_bench.core.errors import ImageError
from medground_bench.imaging.read import image_size, read_image, read_radiograph

DEEP = np.random.default_rng(0).integers(0, 65536, (31, 17), dtype=np.uint16)
TYPES = {1: 0, 2: 4, 3: 2, 4: 6}


def chunk(kind: bytes, data: bytes, damage: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ damage)


def write_png(path: Path, values: np.ndarray, side: tuple[bytes, ...] = (), end: tuple[bytes, ...] = ()) -> Path:
    """(H, W) or (H, W, channels) samples, filtered row by row in turn with every filter that needs no neighbours."""
    height, width = values.shape[:2]
    channels = 1 if values.ndim == 2 else values.shape[2]
    bits = values.dtype.itemsize * 8
    step, rows = channels * bits // 8, b""
    previous = np.zeros(width * step, np.uint8)
    for y in range(height):
        line = np.frombuffer(values[y].astype(values.dtype.newbyteorder(">")).tobytes(), np.uint8)
        left = np.concatenate([np.zeros(step, np.uint8), line[:-step]])
        rows += bytes([y % 3]) + (line, line - left, line - previous)[y % 3].tobytes()
        previous = line
    header = struct.pack(">IIBBBBB", width, height, bits, TYPES[channels], 0, 0, 0)
    parts = (chunk(b"IHDR", header), *side, chunk(b"IDAT", zlib.compress(rows)), *end, chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


def expected(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return np.rint((values - values.min()) / (values.max() - values.min()) * 255)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_are_kept(tmp_path: Path, channels: int) -> None:
    # A narrow range: cut to 8 bits, these 1,001 levels would be four.
    grey = (20_000 + DEEP % 1001).astype(np.uint16)
    values = grey if channels == 1 else np.dstack([grey] * channels)
    if channels in (2, 4):
        values[..., -1] = DEEP  # alpha says nothing about the radiograph
    path = write_png(tmp_path / "a.png", values)
    radiograph = read_radiograph(path)
    assert radiograph.bits == 16
    assert (np.asarray(radiograph.image) == expected(grey)).all()
    assert image_size(path) == (17, 31)


def test_16_bit_colour_is_refused_and_rounding_noise_is_not(tmp_path: Path) -> None:
    values = np.dstack([DEEP // 2] * 3)
    values[..., 1] += 257 * 24
    read_image(write_png(tmp_path / "a.png", values))
    values[3, 4, 1] += 257
    with pytest.raises(ImageError, match="colour image"):
        read_image(write_png(tmp_path / "b.png", values))


@pytest.mark.parametrize("place", ["side", "end"])
@pytest.mark.parametrize("kind", [b"tEXt", b"iCCP", b"tIME", b"zTXt", b"gAMA"])
def test_a_bad_checksum_beside_the_pixels_is_read(tmp_path: Path, kind: bytes, place: str) -> None:
    values = (DEEP >> 8).astype(np.uint8)
    path = write_png(tmp_path / "a.png", values, **{place: (chunk(kind, b"key\0some text", damage=1),)})
    assert image_size(path) == (17, 31)
    assert (np.asarray(read_image(path)) == values).all()


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_bad_checksum_of_the_pixels_is_an_error(tmp_path: Path, kind: bytes) -> None:
    path = write_png(tmp_path / "a.png", DEEP)
    data = bytearray(path.read_bytes())
    at = data.index(kind)
    data[at + 4 + struct.unpack(">I", data[at - 4 : at])[0]] ^= 1
    path.write_bytes(data)
    with pytest.raises(ImageError, match=r"truncated or corrupt|not an image"):
        read_image(path)


def test_frames_are_still_seen(tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.fromarray((DEEP >> 8).astype(np.uint8) // k) for k in (1, 2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="holds 2 images"):
        read_image(tmp_path / "a.png")


def test_a_header_that_lies_about_a_chunks_length(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", DEEP, side=(struct.pack(">I", 0x7FFFFFFF) + b"tEXt",))
    with pytest.raises(ImageError):
        read_image(path)


def test_16_bits_and_truncated(tmp_path: Path) -> None:
    path = write_png(tmp_path / "a.png", np.dstack([DEEP] * 3))
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(ImageError, match="truncated or corrupt"):
        read_image(path)
