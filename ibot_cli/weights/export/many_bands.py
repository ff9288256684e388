"""Exports whose images Pillow has no mode for: other channels than grey and RGB, or 16 bits."""

from __future__ import annotations

import math

from ibot_cli.weights.export.subject import Subject

FILE = "image.tif"


def is_plain(subject: Subject) -> bool:
    """Whether images are grey or RGB with 8 bits."""
    return subject.channels in (1, 3) and subject.bits == 8


def notes(subject: Subject) -> tuple[str, ...]:
    """How images are prepared where the other library's own transforms do not read them; nothing for plain images."""
    if is_plain(subject):
        return ()
    return (
        f"The library's own transforms do not read {kind_of_images(subject)} images; the lines that open the export "
        "prepare one with tifffile and torchvision, by the same filter as ibot.",
    )


def kind_of_images(subject: Subject) -> str:
    """For people: `grey`, `RGB`, or `5-channel 16-bit`."""
    names = {1: "grey", 3: "RGB"}
    depth = "" if subject.bits == 8 else f" {subject.bits}-bit"
    return names.get(subject.channels, f"{subject.channels}-channel") + depth


def opening_lines(subject: Subject) -> list[str]:
    """Python lines from a TIFF file to `images`, a normalised tensor `[1, C, S, S]`."""
    size, resized = subject.image_size, math.floor(subject.image_size / subject.crop_ratio)
    return [
        "import numpy as np",
        "import tifffile",
        "import torch",
        "from torchvision.transforms import InterpolationMode",
        "from torchvision.transforms.v2 import functional",
        "",
        f"levels = tifffile.imread({FILE!r})  # [H, W, {subject.channels}]",
        "levels = torch.from_numpy(levels / np.iinfo(levels.dtype).max).float().permute(2, 0, 1)",
        f"levels = functional.resize(levels, {resized}, InterpolationMode.BICUBIC)",
        f"levels = functional.center_crop(levels, {size}).clamp(0, 1)",
        f"images = functional.normalize(levels, {list(subject.mean)}, {list(subject.std)}).unsqueeze(0)",
    ]
