"""Flip, colour jitter, grey, blur and solarisation of one Pillow image: the oracle of the batched changes.

Pixel-identical to torchvision's transforms on Pillow images, which published code uses.
"""

from __future__ import annotations

from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional as F

from ibot_cli.data.changes import Changes

JITTER = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)


def apply_changes(image: Image.Image, changes: Changes, threshold: int) -> Image.Image:
    """The changed image, of the same mode."""
    if changes.flip:
        image = ImageOps.mirror(image)
    for op, factor in changes.jitter:
        image = JITTER[op](image, factor)
    if changes.gray:
        image = F.rgb_to_grayscale(image, len(image.getbands()))
    if changes.blur_radius:
        image = image.filter(ImageFilter.GaussianBlur(changes.blur_radius))
    return ImageOps.solarize(image, threshold) if changes.solarize else image
