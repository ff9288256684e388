"""The published augmentation as the authors' code has it: every operation on Pillow images, float32 crops out."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms

from ibot_cli.config.schema import ViewsConfig
from ibot_cli.data.transform import IMAGENET


class Blur:
    """A Gaussian blur with a chance and a range of radii."""

    def __init__(self, chance: float, radius: tuple[float, float]) -> None:
        self.chance, self.radius = chance, radius

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, blurred or not."""
        if random.random() > self.chance:
            return image
        return image.filter(ImageFilter.GaussianBlur(random.uniform(*self.radius)))


class Solarise:
    """Inverts bright levels with a chance."""

    def __init__(self, chance: float, threshold: int) -> None:
        self.chance, self.threshold = chance, threshold

    def __call__(self, image: Image.Image) -> Image.Image:
        """The image, solarised or not."""
        return ImageOps.solarize(image, self.threshold) if random.random() < self.chance else image


class PilViews:
    """The views of an image file, one after the other.

    Draws come from torch's and Python's global generators, as in the authors' code.

    Args:
        views: Sizes, ranges and chances.

    Source:
        `DataAugmentationiBOT` in the authors' code (arXiv 2111.07832), in our own words.
    """

    def __init__(self, views: ViewsConfig) -> None:
        mean, std = IMAGENET[3]
        jitter = transforms.ColorJitter(views.brightness, views.contrast, views.saturation, views.hue)
        colours = [
            transforms.RandomHorizontalFlip(views.flip_prob),
            transforms.RandomApply([jitter], views.jitter_prob),
            transforms.RandomGrayscale(views.gray_prob),
        ]
        numbers = [transforms.ToTensor(), transforms.Normalize(mean, std)]

        def view(size: int, scale: tuple[float, float], blur: float, solarise: float) -> transforms.Compose:
            crop = transforms.RandomResizedCrop(
                size, scale, views.aspect, interpolation=transforms.InterpolationMode.BICUBIC
            )
            last = [Solarise(solarise, views.solarize_threshold)] if solarise else []
            return transforms.Compose([crop, *colours, Blur(blur, views.blur_radius), *last, *numbers])

        first = view(views.global_size, views.global_scale, views.blur_prob_first, 0.0)
        other = view(views.global_size, views.global_scale, views.blur_prob_other, views.solarize_prob)
        local = view(views.local_size, views.local_scale, views.blur_prob_local, 0.0)
        self.views = [first, *[other] * (views.num_global - 1), *[local] * views.num_local]

    def __call__(self, path: Path) -> list[Tensor]:
        """float32 `[3, size, size]` per view, globals first."""
        with path.open("rb") as file:
            image = Image.open(file).convert("RGB")
        return [view(image) for view in self.views]


def seed(value: int) -> None:
    """Makes the draws repeatable."""
    random.seed(value)
    torch.manual_seed(value)
