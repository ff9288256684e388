"""TIFF files of any number of bands, as microscopes, satellites and scanners write them.

Bands lie interleaved, as planes, or as the pages of a stack (also of ImageJ and OME); tiles, strips and compression are
those that tifffile reads, which is an optional package (`pip install 'ibot-cli[tiff]'`). Of several images in a file,
such as a thumbnail or the levels of a pyramid, the first counts. A stack along more than one axis is refused: planes of
depth are no channels. Every stored byte has to be there: tifffile by itself fills what is missing with zeros.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = "Orientation"
ALPHA_SAMPLES = (1, 2)  # of the tag ExtraSamples: premultiplied and plain transparency
AXIS_NAMES = {"C": "channels", "Z": "depth", "T": "time", "Q": "pages", "I": "pages"}


def is_tiff(content: bytes) -> bool:
    """Whether a file begins as a TIFF or BigTIFF does."""
    return content[:4] in MAGIC


class TiffImage:
    """The first image of a TIFF file; its pixels are read when they are asked for.

    Args:
        content: Of the file.

    Attributes:
        size: Width and height in pixels, upright.
        bands: How many values a pixel has.
        top: Largest value that the file's numbers can take, 2^bits - 1; None for signed, 32-bit and real numbers.
        kind: Type of its numbers, such as `uint16`.
        alpha: Whether the file says that its last band is transparency.
        deep: Whether its numbers have more than 8 bits.

    Raises:
        ValueError: It is damaged, too large, complex, or no image of bands; the text says why.
        ModuleNotFoundError: tifffile is not installed, or imagecodecs and its compression needs it.
    """

    def __init__(self, content: bytes) -> None:
        with _quietly():
            import tifffile

            self._length = len(content)
            file = tifffile.TiffFile(io.BytesIO(content))
            if not file.series:
                raise ValueError("no image in it")
            self._series = file.series[0]
            self._page: Any = self._series.keyframe
        self._axis, self.bands = _stacked(self._series.axes, self._series.shape)
        height, width = (self._series.shape[self._series.axes.index(axis)] for axis in "YX")
        if Image.MAX_IMAGE_PIXELS and width * height > 2 * Image.MAX_IMAGE_PIXELS:
            raise ValueError("too large: more pixels than are accepted as safe")
        tag = self._page.tags.get(ORIENTATION)
        self._orientation = int(tag.value) if tag is not None and tag.value in range(1, 9) else 1
        self.size = (height, width) if self._orientation > 4 else (width, height)
        if self._series.dtype.kind == "c":
            raise ValueError("its numbers are complex; store magnitudes, or real and imaginary parts as two bands")
        self.kind = str(self._series.dtype)
        bits = self._page.bitspersample
        unsigned = self._series.dtype.kind in "bu" and isinstance(bits, int) and bits <= 16
        self.top = 2**bits - 1 if unsigned else None
        self._inverted = self._page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and self.top is not None
        extra = tuple(self._page.extrasamples)
        self.alpha = self._axis == "S" and bool(extra) and int(extra[-1]) in ALPHA_SAMPLES
        self.deep = self.top is None or self.top > 255
        self._palette = self._page.photometric == tifffile.PHOTOMETRIC.PALETTE

    def values(self) -> np.ndarray:
        """The pixels `[H, W, bands]` in the file's own numbers, upright, C-contiguous.

        Raises:
            ValueError: The file is cut off or damaged, or its numbers are entries of a palette.
        """
        if self._palette:
            raise ValueError("its numbers are entries of a palette, not levels of bands")
        with _quietly():
            self._check_complete()
            values = np.asarray(self._series.asarray(maxworkers=1))
        if values.dtype == np.bool_:
            values = values.astype(np.uint8)
        axes = self._series.axes
        if self._axis is None:
            values = values.reshape(*(values.shape[axes.index(axis)] for axis in "YX"), 1)
        else:
            kept = [axis for axis in axes if axis in "YX" or axis == self._axis]
            values = values.reshape([self._series.shape[axes.index(axis)] for axis in kept])
            values = values.transpose([kept.index(axis) for axis in ("Y", "X", self._axis)])
        if self._inverted and self.top is not None:
            values = values.dtype.type(self.top) - values
        return np.ascontiguousarray(upright(values, self._orientation))

    def _check_complete(self) -> None:
        """Every page and every strip or tile lies inside the file."""
        series = self._series
        if any(page is None for page in series.pages):
            raise ValueError("pages are missing")
        if series.dataoffset is not None:
            ends = [series.dataoffset + series.nbytes]
        else:
            ends = [
                offset + count
                for page in series.pages
                for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ]
        if not ends or max(ends) > self._length:
            raise ValueError("the file is cut off")


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """Pixels `[H, W, ...]` turned as the orientation tag of TIFF and EXIF says, 1 to 8; 1 leaves them."""
    if orientation > 4:
        values = values.swapaxes(0, 1)
    # after the transposition of 5 to 8, what is left to do is that of 1, 4 or 2, 3
    flips = {2: (1,), 3: (0, 1), 4: (0,), 6: (1,), 7: (0, 1), 8: (0,)}
    return np.flip(values, flips[orientation]) if orientation in flips else values


def _stacked(axes: str, shape: tuple[int, ...]) -> tuple[str | None, int]:
    """The axis along which the bands lie, None for a single band, and their number.

    Raises:
        ValueError: More than one axis besides height and width.
    """
    lengths = dict(zip(axes, shape, strict=True))
    if len(lengths) != len(axes) or not {"Y", "X"} <= lengths.keys():
        raise ValueError(f"its axes are {axes}, not those of an image")
    rest = {axis: length for axis, length in lengths.items() if axis not in "YX" and length > 1}
    if len(rest) > 1:
        counts = " x ".join(f"{length} {AXIS_NAMES.get(axis, f'({axis})')}" for axis, length in rest.items())
        raise ValueError(f"it is a stack of {counts.replace('(S)', 'bands')}, not one image of so many channels")
    return next(iter(rest.items()), (None, 1))


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, tifffile tells its log nothing, and whatever it raises for a damaged file is a ValueError."""
    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    except ModuleNotFoundError:
        raise
    except Exception as error:  # damaged files make decoders raise nearly anything
        text = str(error).split("\n")[0].strip() or type(error).__name__
        raise ValueError(f"damaged ({text})") from error
    finally:
        logger.disabled = before
