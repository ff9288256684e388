"""One image of a source: what is known before its pixels are decoded, and its pixels for networks and for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image


class UnreadableImage(Exception):
    """One image that cannot be used.

    Args:
        path: The file, as shown to people.
        reason: Why, as the end of a sentence that starts with the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


GREY_MODES = ("1", "L", "LA", "La", "I", "F")


def is_grey_mode(stored_mode: str) -> bool:
    """Whether `Picture.stored_mode` tells of an image without colour."""
    mode = stored_mode.partition(",")[0]  # behind a comma is the place in a stack
    return mode in GREY_MODES or mode.startswith("I;") or mode.endswith(" x 1")


def is_deep_mode(stored_mode: str) -> bool:
    """Whether `Picture.stored_mode` tells of more than 8 bits per level."""
    return stored_mode.startswith(("I", "F")) or (
        " x " in stored_mode and not stored_mode.startswith(("uint8", "bool"))
    )


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """What the images of a source become.

    Attributes:
        channels: 1 for grey, 3 for RGB, another number for files that have exactly so many.
        bits: Of a level: 8 for uint8, 16 for uint16.
        decoder: `pillow`, `torchcodec`, or `auto`: torchcodec for what it decodes alike and faster, where it is there.
    """

    channels: int = 3
    bits: int = 8
    decoder: str = "auto"

    @property
    def plain(self) -> bool:
        """Whether they become what Pillow has modes for: 8 bits, grey or RGB."""
        return self.bits == 8 and self.channels in (1, 3)


class Encoded(NamedTuple):
    """A stored image file.

    Attributes:
        content: Its bytes.
        extension: Of its name, lower case, without the dot; `""` where it has none.
    """

    content: bytes
    extension: str


class Picture(Protocol):
    """An image; its pixels are decoded when they are asked for."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, upright: the orientation that EXIF data tell is applied."""

    @property
    def stored_mode(self) -> str:
        """Pillow's mode of what is stored, such as `RGB`, `P`, `I;16` or `L, page 1 of 5`; or such as `uint16 x 5`."""

    @property
    def format(self) -> str:
        """Pillow's name of the file format, such as `JPEG`; `""` for embedded data."""

    @property
    def shrinks(self) -> bool:
        """Whether `levels` can give a smaller image for less work."""

    def levels(self, shrink: int = 1) -> np.ndarray:
        """The pixels as the network's loader wants them; not to be changed in place.

        Args:
            shrink: 1, 2, 4 or 8; the sides become ceil(side / shrink). Pictures that cannot (`shrinks`) ignore it.

        Returns:
            uint8 (uint16 for 16 bits) `[H, W, C]`, C-contiguous.

        Raises:
            UnreadableImage: The pixels are damaged.
        """

    def image(self) -> Image.Image:
        """The whole picture for people and for Pillow: mode `L` or `RGB`, 8 bits, upright; not to be changed.

        Raises:
            UnreadableImage: The pixels are damaged.
        """


class ArrayPicture:
    """A picture that is in memory already.

    Args:
        levels: uint8 `[H, W, C]` with 1 or 3 channels, C-contiguous.
        stored_mode: How it is stored where it came from.
    """

    format = ""
    shrinks = False

    def __init__(self, levels: np.ndarray, stored_mode: str) -> None:
        self.stored_mode = stored_mode
        self._levels = levels

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._levels.shape[1], self._levels.shape[0]

    def levels(self, shrink: int = 1) -> np.ndarray:
        """The array itself."""
        return self._levels

    def image(self) -> Image.Image:
        """The picture as mode `L` or `RGB`."""
        return Image.fromarray(self._levels[..., 0] if self._levels.shape[2] == 1 else self._levels)


class PictureSource:
    """What sources give once they can open a picture: its pixels for networks and for people."""

    def open(self, index: int) -> Picture:
        """The picture; see `ibot_cli.data.sources.Source`."""
        raise NotImplementedError

    def levels(self, index: int) -> np.ndarray:
        """The pixels of a picture for a network; see `Picture.levels`."""
        return self.open(index).levels()

    def read(self, index: int) -> Image.Image:
        """A picture for people; see `Picture.image`."""
        return self.open(index).image()

    def encoded(self, index: int) -> Encoded | None:
        """None: nothing is stored as a file."""
        return None
