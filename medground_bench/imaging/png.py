"""What Pillow does not do for PNG: 16 bits of colour and alpha images, and files with damaged side information.

A PNG is a signature and a row of chunks: length, type, data, checksum. Chunks whose type begins with a lower-case
letter are *ancillary* (text, colour profile, time): the pixels do not depend on them.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

__all__ = ["SIGNATURE", "bit_depth", "deep_channels", "essential"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

_HEADER = len(SIGNATURE) + 25  # the signature and the IHDR chunk
_KEPT = (b"acTL", b"fcTL", b"fdAT")  # several frames in one file: that must not be overlooked
_COLOUR, _GREY_ALPHA, _COLOUR_ALPHA = 2, 4, 6
_DEEP = (_COLOUR, _GREY_ALPHA, _COLOUR_ALPHA)  # colour types of which Pillow keeps 8 bits


def essential(path: Path, header_only: bool = False) -> IO[bytes]:
    """The file without its ancillary chunks (those of an animation are kept), as a stream.

    Pillow refuses a whole image because of a wrong checksum in a text chunk. ``header_only`` stops before the pixels.

    Raises
    ------
    SyntaxError
        If the checksum of a chunk that the pixels depend on is wrong.
    """
    out = io.BytesIO()
    with open(path, "rb") as file:
        out.write(file.read(len(SIGNATURE)))
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            ancillary = bool(kind[0] & 0x20)
            if ancillary and kind not in _KEPT:
                file.seek(length + 4, io.SEEK_CUR)
                continue
            if header_only and kind == b"IDAT":
                out.write(head)
                break
            rest = file.read(length + 4)
            if zlib.crc32(kind + rest[:-4]) != int.from_bytes(rest[-4:], "big"):
                if ancillary:
                    continue
                raise SyntaxError(f"bad checksum in chunk {kind!r}")  # as Pillow raises, which skips the check for IDAT
            out.write(head + rest)
            if kind == b"IEND":
                break
    out.seek(0)
    return out


def bit_depth(path: Path) -> int:
    """Bits per sample that the header of a PNG states (0 where the header is cut off)."""
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    return header[24] if len(header) == _HEADER else 0


def deep_channels(path: Path) -> np.ndarray | None:
    """All channels of a 16-bit colour, colour + alpha or grey + alpha PNG.

    Returns
    -------
    ndarray, shape (H, W, 2, 3 or 4), uint16, or None
        None for every other PNG, which Pillow itself reads whole.
    """
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or header[24] != 16 or header[25] not in _DEEP:
        return None
    if header[25] == _GREY_ALPHA:
        # Two 16-bit channels lie in the file like four of 8 bits: grey high and low, alpha high and low.
        samples = _samples(path, "RGBA", "RGBA")
        high, low = samples[..., 0::2], samples[..., 1::2]
    else:
        mode = "RGB" if header[25] == _COLOUR else "RGBA"
        # Read as if low bytes came first, the samples are cut to what are in truth their low bytes.
        high, low = _samples(path, mode, f"{mode};16B"), _samples(path, mode, f"{mode};16L")
    return high.astype(np.uint16) << 8 | low


def _samples(path: Path, mode: str, raw_mode: str) -> np.ndarray:
    """Pixels of a PNG decoded by another raw mode than the one its header asks for."""
    from PIL import Image as pil

    with essential(path) as stream, pil.open(stream, formats=("PNG",)) as image:
        reader: Any = image
        reader._mode = mode
        reader.tile = [
            tile._replace(args=raw_mode) if hasattr(tile, "_replace") else (*tile[:3], raw_mode) for tile in reader.tile
        ]
        return np.asarray(image)
