"""Random resized crops, the centre crop and rotation, on Pillow images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

BICUBIC = Image.Resampling.BICUBIC
ATTEMPTS = 10


def crop_box(
    width: int,
    height: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    first: Sequence[float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """The box of a random resized crop.

    Area is uniform in `scale` times the image's, aspect ratio log-uniform in `aspect`, position uniform. After ten
    boxes that do not fit, the largest centred box whose aspect ratio is in range.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        scale: Range of the area, as a share.
        aspect: Range of width / height.
        first: Four uniform draws for the first attempt: area, aspect, top, left.
        rng: Gives four more for each further attempt.

    Returns:
        Left, top, width, height.

    Source:
        `RandomResizedCrop.get_params` of torchvision, whose distribution it has.
    """
    low, log_low, log_high = scale[0], math.log(aspect[0]), math.log(aspect[1])
    for attempt in range(ATTEMPTS):
        by_area, by_aspect, by_top, by_left = first if attempt == 0 else rng.random(4).tolist()
        area = width * height * (low + (scale[1] - low) * by_area)
        ratio = math.exp(log_low + (log_high - log_low) * by_aspect)
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(by_left * (width - w + 1)), int(by_top * (height - h + 1)), w, h
    w, h = width, height
    if width < aspect[0] * height:
        h = round(width / aspect[0])
    elif width > aspect[1] * height:
        w = round(height * aspect[1])
    return (width - w) // 2, (height - h) // 2, w, h


def crop_resized(
    image: Image.Image,
    box: tuple[int, int, int, int],
    size: int,
    degrees: float = 0.0,
    resample: Image.Resampling = BICUBIC,
) -> Image.Image:
    """The box of the image, resized with one of Pillow's antialiased filters to `size` x `size`.

    Args:
        image: Mode `L` or `RGB`.
        box: Left, top, width, height in whole pixels.
        size: Side of the result.
        degrees: The image is first turned counter-clockwise about its centre by this (bicubic; what comes from
            outside is 0). Only the box is computed.
        resample: The filter.
    """
    left, top, width, height = box
    if degrees:
        part = image.transform(
            (width, height), Image.Transform.AFFINE, turn_coefficients(*image.size, left, top, degrees), BICUBIC
        )
    elif (width, height) == image.size:
        part = image
    else:
        part = image.crop((left, top, left + width, top + height))
    return part if part.size == (size, size) else part.resize((size, size), resample)


def turn_coefficients(
    width: int, height: int, left: int, top: int, degrees: float
) -> tuple[float, float, float, float, float, float]:
    """The affine map from a pixel of a box to one of the image, which is turned about its centre.

    Args:
        width: Of the image, in pixels.
        height: Of the image.
        left: Of the box.
        top: Of the box.
        degrees: Counter-clockwise.
    """
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = width / 2, height / 2
    dx, dy = left - x, top - y
    return cos, -sin, cos * dx - sin * dy + x, sin, cos, sin * dx + cos * dy + y


def resize_shorter(image: Image.Image, size: int) -> Image.Image:
    """The image with its shorter side resized to `size`, bicubic; see `shorter_resized`."""
    wanted = shorter_resized(image.width, image.height, size)
    return image if wanted == image.size else image.resize(wanted, BICUBIC)


def shorter_resized(width: int, height: int, size: int) -> tuple[int, int]:
    """Width and height once the shorter side is `size`; the longer one is rounded down."""
    if width <= height:
        return size, max(int(size * height / width), size)
    return max(int(size * width / height), size), size


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """The central `size` x `size` of an image that is at least as large."""
    left, top = center_corner(image.width, image.height, size)
    return image.crop((left, top, left + size, top + size))


def center_corner(width: int, height: int, size: int) -> tuple[int, int]:
    """Left and top of the central `size` x `size`."""
    return round((width - size) / 2), round((height - size) / 2)
