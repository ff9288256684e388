"""TIFF files of any number of bands as pictures."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from ibot_cli.data.formats.bands import INSTALL, displayable, to_channels, to_levels
from ibot_cli.data.formats.tiff import ALPHA_SAMPLES, TiffImage, is_tiff
from ibot_cli.data.picture import PixelFormat, UnreadableImage

SAMPLES, EXTRA_SAMPLES = 277, 338  # tags


def hidden_bands(image: Image.Image) -> int | None:
    """How many bands a TIFF file has of which Pillow shows one or three; None where it shows all.

    A fourth band beside colours, and one beside grey that the file calls transparency, are no such bands: they are
    dropped as in any other format.

    Args:
        image: Opened by Pillow; of any format.
    """
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    samples, shown = tags.get(SAMPLES, 1), len(image.getbands())
    transparent = shown == 3 or tuple(tags.get(EXTRA_SAMPLES, ()))[:1] in ((kind,) for kind in ALPHA_SAMPLES)
    return samples if samples > shown + transparent else None


def place_in_stack(content: bytes) -> str:
    """`, page 1 of 5` for the image that Pillow shows of a TIFF file with several, else nothing."""
    pages = 1
    with contextlib.suppress(Exception):  # damage behind the first page is none of that page
        pages = getattr(Image.open(io.BytesIO(content)), "n_frames", 1) if is_tiff(content) else 1
    return f", page 1 of {pages}" if pages > 1 else ""


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
        """What people are shown; see `ibot_cli.data.formats.bands.displayable`."""
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
