"""What views are drawn from: one image file, or some images of DATA."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.data.single import is_image_file, read_levels
from ibot_cli.data.sources import Source
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.cluster.images import open_images

PAIRS_OF_ONE, PAIRS_OF_MANY = 16, 2


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject:
    """The images.

    Attributes:
        source: Where they are.
        index: Places of those that are used, int64 ascending.
        single: Whether it is one image file.
    """

    source: Source
    index: NDArray[np.int64]
    single: bool

    @property
    def default_pairs(self) -> int:
        """Pairs of views per image: many of a single one, for a figure that does not hang on two crops."""
        return PAIRS_OF_ONE if self.single else PAIRS_OF_MANY


def open_subject(place: str, *, channels: int, bits: int = 8, most: int) -> Subject:
    """Open an image file, or DATA: their test part where they have one.

    Args:
        place: The file, or DATA as for `open_source`.
        channels: Of the network.
        bits: Of a level.
        most: Images of DATA to take at most, spread evenly.

    Raises:
        DataError: The file cannot be read, or as `open_source`.
        UsageError: `most` is less than 1.
    """
    if is_image_file(place):
        read_levels(place, channels, bits)
        path = str(Path(place).expanduser())
        pixels = PixelFormat(channels=channels, bits=bits)
        source: Source = FileSource(name=place, root=Path(), names=[path], pixels=pixels)
        return Subject(source=source, index=np.zeros(1, dtype=np.int64), single=True)
    source = open_images(place, channels=channels, bits=bits).source
    return Subject(source=source, index=spread_index(len(source), most), single=False)


def spread_index(num_images: int, most: int) -> NDArray[np.int64]:
    """Places of at most so many images, spread evenly over all; int64 ascending.

    Raises:
        UsageError: `most` is less than 1.
    """
    if most < 1:
        raise UsageError(f"{most} images cannot be matched.", "Take one at least.")
    return np.unique(np.linspace(0, num_images - 1, min(most, num_images)).round().astype(np.int64))


def check_two_files(first: str, second: str) -> None:
    """Refuse DATA where two images are compared.

    Raises:
        UsageError: One of them is not an image file.
    """
    for place in (first, second):
        if not Path(place).expanduser().is_file():
            raise UsageError(
                f"{place} is not an image file.",
                "Name two image files, or a single image or DATA for views of the same image.",
            )
