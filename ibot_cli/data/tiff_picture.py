"""TIFF files of any number of bands as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from ibot_cli.data.bands import INSTALL, displayable, to_channels, to_levels
from ibot_cli.data.picture import PixelFormat, UnreadableImage
from ibot_cli.data.tiff import TiffImage


class TiffPicture:
    """A TIFF file in its full depth.

    Args:
        content: Of the file.
        path: For messages only.
        pixels: What it becomes.

    Attributes:
        size: Width and height in pixels, upright.
        stored_mode: Type of the numbers and how many a pixel has, such as `uint16 x 5`.
        deep: Whether the numbers have more than 8 bits.

    Raises:
        UnreadableImage: Damaged, too large, or a stack along several axes.
    """

    format = "TIFF"
    shrinks = False

    def __init__(self, content: bytes, path: str, pixels: PixelFormat) -> None:
        self._path = path
        self._pixels = pixels
        with self._explained():
            self._file = TiffImage(content)
        self.size = self._file.size
        self.stored_mode = f"{self._file.kind} x {self._file.bands}"
        self.deep = self._file.deep

    def levels(self, shrink: int = 1) -> np.ndarray:
        """The pixels; see `ibot_cli.data.picture.Picture`."""
        with self._explained():
            levels = to_levels(self._file.values(), self._pixels.bits, self._file.top)
            return to_channels(levels, self._pixels.channels, alpha=self._file.alpha)

    def image(self) -> Image.Image:
        """What people are shown; see `ibot_cli.data.bands.displayable`."""
        return displayable(self.levels())

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise UnreadableImage(
                self._path, f"TIFF files of many bands or 16 bits need the package {error.name}: {INSTALL}"
            ) from error
        except (ValueError, MemoryError) as error:
            raise UnreadableImage(self._path, str(error)) from error
