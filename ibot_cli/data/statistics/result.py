"""The statistics of a data set as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHARES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Spread:
    """How a number is distributed over the images.

    Attributes:
        smallest: Minimum.
        p5: 5 % of the images have no more.
        median: Half of them.
        p95: 95 % of them.
        largest: Maximum.
        mean: Arithmetic mean.
    """

    smallest: float
    p5: float
    median: float
    p95: float
    largest: float
    mean: float

    @classmethod
    def of(cls, values: NDArray[np.generic]) -> Spread:
        """Of `[n]` numbers, n > 0; every share is that of an image that exists."""
        numbers = values.astype(np.float64)
        smallest, p5, median, p95, largest = np.quantile(numbers, SHARES, method="inverted_cdf").tolist()
        return cls(smallest, p5, median, p95, largest, float(numbers.mean()))


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """The images of one class.

    Attributes:
        name: Of the class.
        images: Number by part of the data.
    """

    name: str
    images: dict[str, int]

    @property
    def total(self) -> int:
        """Over all parts."""
        return sum(self.images.values())


@dataclass(frozen=True, kw_only=True)
class Copy:
    """One image of a group of duplicates.

    Attributes:
        path: The image.
        part: Which part of the data it is in; None where there are no parts.
        label: Name of its class, or None.
        same: What it shares with an earlier image of the group: `file` (every byte), `pixels`, or `look`; None for the
            first, and for one that looks like a later image only.
        same_as: Path of that image, or None.
    """

    path: str
    part: str | None
    label: str | None
    same: str | None
    same_as: str | None


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """Groups of images that are the same, or look the same, directly or through others of their group.

    Attributes:
        groups: The images of each group, in the order of the data.
        num_images: Images in a group.
        num_extra: Those beside the first of each group.
        num_same_file: Images with every byte of an earlier one.
        num_same_pixels: Images with the pixels of an earlier one, those with the same file left out.
        num_look_alike: The others that look like an earlier one.
        num_across: Groups with images of several parts; None where the data have no parts.
        num_mixed: Groups with images of several classes; None without labels.
    """

    groups: tuple[tuple[Copy, ...], ...]
    num_images: int
    num_extra: int
    num_same_file: int
    num_same_pixels: int
    num_look_alike: int
    num_across: int | None
    num_mixed: int | None


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of the readable images, in pixels.

    Attributes:
        width: Upright.
        height: Upright.
        short_side: The smaller of both.
        aspect: Width / height.
        megapixels: Million pixels.
        num_sizes: Number of different sizes.
        smallest: Width and height of the image with the fewest pixels.
        largest: Of the one with the most.
    """

    width: Spread
    height: Spread
    short_side: Spread
    aspect: Spread
    megapixels: Spread
    num_sizes: int
    smallest: tuple[int, int]
    largest: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Levels scaled to 0..1, as training scales them; each image weighs the same.

    Attributes:
        mean: Per channel.
        std: Around that mean, over all pixels of all images.
        std_within: Mean of the images' own standard deviations, how ImageNet's usual figures were made.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    std_within: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What is in a set of images.

    Attributes:
        data: DATA as given.
        parts: Images by part, all that there are.
        num_images: Over all parts.
        num_checked: Images that were decoded.
        num_readable: Of those.
        unreadable: Reason by path, of the others; a file that a list names twice stands here once.
        classes: Images by class, checked or not; None without labels.
        sizes: Of the readable images.
        file_bytes: Of their files; None for embedded data.
        total_bytes: Sum over their files; None for embedded data.
        formats: Number by file format, most first; `embedded` for those without a file.
        modes: Number by Pillow's mode of the file.
        stored_grey: Number that are stored without colour.
        content_grey: Number that are stored in colour and have none: no channels of a pixel differ by more than 2 of
            255 levels. None where the images are not read as three channels.
        bits: Per level, as the images were read.
        channels: Mean and standard deviation.
        flat: Paths of images of nearly one grey level (standard deviation of 32 x 32 parts below 2 levels); they are
            compared pixel by pixel only.
        duplicates: What occurs more than once among the checked images.
        notes: How the data were read.
        advice: What to do about what was found.
    """

    data: str
    parts: dict[str, int]
    num_images: int
    num_checked: int
    num_readable: int
    unreadable: dict[str, str]
    classes: tuple[ClassCount, ...] | None
    sizes: Sizes
    file_bytes: Spread | None
    total_bytes: int | None
    formats: dict[str, int]
    modes: dict[str, int]
    stored_grey: int
    content_grey: int | None
    bits: int
    channels: Channels
    flat: tuple[str, ...]
    duplicates: Duplicates
    notes: tuple[str, ...]
    advice: tuple[str, ...]
