"""How a Hugging Face folder says its images are prepared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibot_cli.errors import WeightsError
from ibot_cli.weights.layouts.folder import read_json
from ibot_cli.weights.layouts.found import Preparation

FILE = "preprocessor_config.json"
# `resample` is a number of PIL.
_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
_LEVELS = 1 / 255


def read_preparation(folder: Path, channels: int, image_size: int) -> tuple[Preparation | None, tuple[str, ...]]:
    """The preparation that `preprocessor_config.json` asks for, and what the user should be told.

    Args:
        folder: Of the model.
        channels: C.
        image_size: Side in pixels where the file does not say one.

    Returns:
        None for the preparation without that file.

    Raises:
        WeightsError: Its values are of another kind, or for another number of channels.
    """
    content = read_json(folder / FILE)
    if not content:
        return None, (f"There is no {FILE}; the mean and deviation of its images are a guess.",)
    try:
        return _preparation(content, channels, image_size)
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise WeightsError(
            f"{folder / FILE} cannot be understood ({error}).", "Repair it, or move it away for ImageNet's statistics."
        ) from error


def _preparation(content: Mapping[str, Any], channels: int, image_size: int) -> tuple[Preparation, tuple[str, ...]]:
    notes = []
    size = content.get("size")
    resized = _side(size, image_size)
    side = _side(content.get("crop_size"), image_size) if content.get("do_center_crop") else resized
    squeezed = "height" in size if isinstance(size, Mapping) else not content.get("do_center_crop")
    if content.get("do_resize", True) and squeezed:
        notes.append("Its own preparation squeezes images to a square; ibot keeps their shape and crops the centre.")
    mean, std = _statistics(content, channels)
    return Preparation(
        mean=mean,
        std=std,
        image_size=side,
        crop_ratio=_ratio(side, resized),
        interpolation=_RESAMPLE[int(content.get("resample", 3))],
    ), tuple(notes)


def _ratio(side: int, resized: int) -> float:
    """The fraction that resizes to exactly that number of pixels, whatever division rounds."""
    ratio = min(1.0, side / resized)
    return ratio if math.floor(side / ratio) >= resized else side / (resized + 1e-6)


def _side(size: object, otherwise: int) -> int:
    """Pixels; of a rectangle the height, as only squares are images for ibot."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    if size is None:
        return otherwise
    if not isinstance(size, int | float) or size <= 0:
        raise ValueError(f"size {size!r}")
    return int(size)


def _statistics(content: Mapping[str, Any], channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of images in 0..1, whatever levels the file has in mind."""
    factor = float(content.get("rescale_factor", _LEVELS)) if content.get("do_rescale", True) else 1.0
    normalises = content.get("do_normalize", True)
    given = [content.get(name) if normalises else None for name in ("image_mean", "image_std")]
    mean, std = ([value] * channels if isinstance(value, int | float) else value for value in given)
    mean, std = mean or [0.0] * channels, std or [1.0] * channels
    if not len(mean) == len(std) == channels:
        raise ValueError(f"{len(mean)} means and {len(std)} deviations for {channels} channels")
    scale = _LEVELS / factor
    return tuple(float(value) * scale for value in mean), tuple(float(value) * scale for value in std)
