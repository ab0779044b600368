"""The one transform between native pixels and the square frame that LVLMs and heat maps use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medground_bench.core.errors import GeometryError
from medground_bench.core.schema import Box
from medground_bench.imaging.heatmap import resize_heatmap

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Letterbox"]


@dataclass(frozen=True, slots=True)
class Letterbox:
    """Longer side to ``side`` pixels, centred, zero-padded to a square, with the exact inverse.

    The scale of each axis is that of the resized image as it really lies in the frame (whole pixels), so a
    box goes there and back without drift. Build it with :meth:`fit` or :meth:`identity`.

    Attributes
    ----------
    width, height : int
        Native image size in pixels.
    frame_width, frame_height : int
        Size of the frame in pixels.
    content : tuple of int
        ``(x1, y1, x2, y2)``: where the image lies in the frame.
    """

    width: int
    height: int
    frame_width: int
    frame_height: int
    content: tuple[int, int, int, int]

    @classmethod
    def fit(cls, width: int, height: int, side: int | None = 224) -> Letterbox:
        """The letterbox of a ``width`` x ``height`` image on a ``side`` x ``side`` frame, or :meth:`identity` for None.

        Raises
        ------
        GeometryError
            If a size is not positive.
        """
        if side is None:
            return cls.identity(width, height)
        if min(width, height, side) < 1:
            raise GeometryError(f"cannot letterbox {width}x{height} to {side}: sizes must be at least 1 pixel")
        scale = side / max(width, height)
        w = min(side, max(1, round(width * scale)))
        h = min(side, max(1, round(height * scale)))
        x, y = (side - w) // 2, (side - h) // 2
        return cls(width, height, side, side, (x, y, x + w, y + h))

    @classmethod
    def identity(cls, width: int, height: int) -> Letterbox:
        """The frame is the native image itself."""
        if min(width, height) < 1:
            raise GeometryError(f"an image of {width}x{height} has no pixels")
        return cls(width, height, width, height, (0, 0, width, height))

    @property
    def scale(self) -> tuple[float, float]:
        """Frame pixels per native pixel, (x, y)."""
        x1, y1, x2, y2 = self.content
        return (x2 - x1) / self.width, (y2 - y1) / self.height

    def to_frame(self, boxes: Iterable[Sequence[float]]) -> list[Box]:
        """Native boxes -> frame boxes (no rounding, no clipping)."""
        w, h, (ox, oy, right, bottom) = self.width, self.height, self.content
        cw, ch = right - ox, bottom - oy
        # Multiply before dividing: the image's own corners then land exactly on the content's.
        return [(x1 * cw / w + ox, y1 * ch / h + oy, x2 * cw / w + ox, y2 * ch / h + oy) for x1, y1, x2, y2 in boxes]

    def to_native(self, boxes: Iterable[Sequence[float]], *, clip: bool = True) -> list[Box]:
        """Frame boxes -> native boxes.

        With ``clip`` (default) boxes are cut to the image and those that lie wholly in the padding are dropped;
        without it the mapping is the exact inverse of :meth:`to_frame`.
        """
        w, h, (ox, oy, right, bottom) = self.width, self.height, self.content
        cw, ch = right - ox, bottom - oy
        out: list[Box] = []
        for x1, y1, x2, y2 in boxes:
            a, b, c, d = (x1 - ox) * w / cw, (y1 - oy) * h / ch, (x2 - ox) * w / cw, (y2 - oy) * h / ch
            if clip:
                a, c = max(a, 0.0), min(c, float(w))
                b, d = max(b, 0.0), min(d, float(h))
                if c <= a or d <= b:
                    continue
            out.append((float(a), float(b), float(c), float(d)))
        return out

    def apply(self, image: Image) -> Image:
        """The image in the frame: bicubic resize, zero padding, mode kept.

        Raises
        ------
        GeometryError
            If the image does not have the native size.
        """
        from PIL import Image as pil

        if image.size != (self.width, self.height):
            raise GeometryError(
                f"image is {image.size[0]}x{image.size[1]}, the letterbox is for {self.width}x{self.height}"
            )
        x1, y1, x2, y2 = self.content
        if (x2 - x1, y2 - y1) == image.size == (self.frame_width, self.frame_height):
            return image.copy()
        frame = pil.new(image.mode, (self.frame_width, self.frame_height))
        frame.paste(image.resize((x2 - x1, y2 - y1), pil.Resampling.BICUBIC), (x1, y1))
        return frame

    def heatmap_to_native(self, heatmap: np.ndarray) -> np.ndarray:
        """A map over the frame, any resolution -> bilinear map over the native image, (height, width) float32."""
        from PIL import Image as pil

        full = pil.fromarray(np.asarray(heatmap, np.float32)).resize(
            (self.frame_width, self.frame_height), pil.Resampling.BILINEAR
        )
        native = full.crop(self.content).resize((self.width, self.height), pil.Resampling.BILINEAR)
        return np.asarray(native, np.float32)

    def heatmap_to_frame(self, heatmap: np.ndarray) -> np.ndarray:
        """A map over the native image, any resolution -> map over the frame, (frame_height, frame_width).

        Bilinear, averaging where it shrinks. The padding gets the map's minimum, which is no heat.
        """
        x1, y1, x2, y2 = self.content
        content = resize_heatmap(heatmap, (y2 - y1, x2 - x1))
        frame = np.full((self.frame_height, self.frame_width), content.min(), content.dtype)
        frame[y1:y2, x1:x2] = content
        return frame
