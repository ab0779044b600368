"""What an editor is, and the request it answers."""

from __future__ import annotations

import abc
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from medground_bench.core.errors import EditorError

if TYPE_CHECKING:
    from PIL.Image import Image

    from medground_bench.core.schema import Candidate

__all__ = ["EditRequest", "Editor", "Progress", "image_digest"]

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all) of the work under way."""


def image_digest(image: Image) -> str:
    """``sha256`` (hex) of an image's mode, size and pixels: the same for any file that holds them."""
    digest = hashlib.sha256(f"{image.mode}\0{image.size[0]}x{image.size[1]}\0".encode())
    digest.update(image.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class EditRequest:
    """One edit to make.

    Attributes
    ----------
    image : PIL image, mode "L" or "RGB"
        The native radiograph.
    mask : bool array, shape (H, W)
        True where the image may change.
    prompt : str
        What the edited region should show, e.g. ``"No pleural effusion"``.
    seed : int
        Of the edit's noise.

    Raises
    ------
    EditorError
        If image and mask do not belong together.
    """

    image: Image
    mask: NDArray[np.bool_]
    prompt: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.image.mode not in ("L", "RGB"):
            raise EditorError(
                f"an image of mode {self.image.mode!r} cannot be edited",
                expected='mode "L" or "RGB", 8 bits per channel',
                remedy="read it with medground_bench.imaging.read.read_image",
            )
        mask = np.asarray(self.mask)
        width, height = self.image.size
        if mask.shape != (height, width):
            raise EditorError(
                f"the mask has shape {mask.shape}, the image is {width}x{height}",
                expected=f"shape ({height}, {width}): one value per native pixel",
            )
        if mask.dtype != np.bool_:
            raise EditorError(f"the mask holds {mask.dtype}", expected="bool, True where the image may change")

    @cached_property
    def image_digest(self) -> str:
        """Digest of the image's pixels."""
        return image_digest(self.image)

    @cached_property
    def mask_digest(self) -> str:
        """Digest of the mask."""
        digest = hashlib.sha256(f"{self.mask.shape}\0".encode())
        digest.update(np.packbits(self.mask).tobytes())
        return digest.hexdigest()


class Editor(abc.ABC):
    """Changes an image inside a mask so that it shows what a prompt says.

    Subclasses implement :meth:`_edit`, or :meth:`_edit_batch` where several edits at once are cheaper. Their outputs
    have the size and mode of the image that was given, and depend on the request and :attr:`settings` alone.
    """

    name: ClassVar[str]
    """Key in the registry."""
    exact: ClassVar[bool] = False
    """Whether an edit that changes nothing is right: there was nothing to change."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Everything that decides the output beside the request, as plain JSON: part of the cache's key."""
        return {"name": self.name}

    def bind(self, candidate: Candidate, image: Image) -> None:  # noqa: B027 - most editors need no such help
        """Tell the editor which candidate an image belongs to, before its edits are asked for."""

    def edit(self, image: Image, mask: NDArray[np.bool_], prompt: str, seed: int = 0) -> Image:
        """Edit one image.

        Parameters
        ----------
        image : PIL image, mode "L" or "RGB"
            The native radiograph.
        mask : bool array, shape (H, W)
            True where the image may change. With an empty mask the image comes back as it is.
        prompt : str
            What the edited region should show.
        seed : int
            The same seed gives the same image.

        Returns
        -------
        PIL image
            Of the same size and mode.

        Raises
        ------
        EditorError
            If image and mask do not belong together, or the edit failed.
        """
        (outcome,) = self.edit_batch([EditRequest(image, mask, prompt, seed)])
        if isinstance(outcome, EditorError):
            raise outcome
        return outcome

    def edit_batch(
        self, requests: Sequence[EditRequest], *, progress: Progress | None = None
    ) -> list[Image | EditorError]:
        """Edit several images; one that fails does not stop the others.

        Returns
        -------
        list
            For each request its edited image, or the :class:`~medground_bench.core.errors.EditorError` that says why
            not.
        """
        outcomes: list[Image | EditorError] = [request.image.copy() for request in requests]
        todo = [i for i, request in enumerate(requests) if request.mask.any()]
        edited = self._edit_batch([requests[i] for i in todo], progress) if todo else []
        for i, outcome in zip(todo, edited, strict=True):
            outcomes[i] = outcome if isinstance(outcome, EditorError) else _checked(outcome, requests[i], self.name)
        return outcomes

    def _edit_batch(self, requests: Sequence[EditRequest], progress: Progress | None) -> list[Image | EditorError]:
        out: list[Image | EditorError] = []
        for request in requests:
            try:
                out.append(self._edit(request))
            except EditorError as error:
                out.append(error)
            if progress is not None:
                progress(len(out), len(requests))
        return out

    def _edit(self, request: EditRequest) -> Image:
        raise NotImplementedError


def _checked(image: Image, request: EditRequest, name: str) -> Image | EditorError:
    if image.size != request.image.size or image.mode != request.image.mode:
        return EditorError(
            f"editor {name!r} gave back {image.size[0]}x{image.size[1]} {image.mode!r}",
            expected=f"{request.image.size[0]}x{request.image.size[1]} {request.image.mode!r}, as it was given",
        )
    return image
