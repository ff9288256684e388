"""Augmentation for fine-tuning: crop, flip, RandAugment or colour jitter, random erasing.

The operations and their order are timm's, as the authors' code uses them; all randomness is a function of (seed,
sample, visit). In grey images the saturation changes nothing: jitter leaves it out, and RandAugment's `Color` is the
identity there, so that other operations are as frequent as in colour images.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from timm.data.auto_augment import rand_augment_transform

from ibot_cli.config.finetune import AugmentConfig
from ibot_cli.data.changes import NUM_DRAWS, Changes, Strengths, draw_changes, pack_changes
from ibot_cli.data.crops import crop_box, crop_resized
from ibot_cli.data.formats.bands import resized_levels
from ibot_cli.data.photometric import change_levels
from ibot_cli.data.rng import stream

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
ATTEMPTS = 10
CropBox = tuple[int, int, int, int]
ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


class Box(NamedTuple):
    """A rectangle of pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class AugmentRecipe:
    """How a training image is made; the fields are those of `AugmentConfig`, and what the network expects.

    Attributes:
        image_size: Side of the result in pixels.
        channels: C.
        mean: Per channel, after scaling to 0..1.
        std: Per channel.
        bits: Of a level.
    """

    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: tuple[float, float]
    crop_aspect: tuple[float, float]
    interpolation: str
    flip_prob: float
    auto_augment: str
    color_jitter: float
    erase_prob: float
    bits: int = 8

    @property
    def plain(self) -> bool:
        """Whether images are grey or RGB with 8 bits, for which `view` is; others take `view_levels`."""
        return self.channels in (1, 3) and self.bits == 8

    @classmethod
    def from_config(
        cls,
        augment: AugmentConfig,
        *,
        image_size: int,
        channels: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        bits: int = 8,
    ) -> AugmentRecipe:
        """The recipe of a configuration for a network of this input."""
        return cls(
            image_size=image_size,
            channels=channels,
            mean=mean,
            std=std,
            bits=bits,
            crop_scale=augment.crop_scale,
            crop_aspect=augment.crop_aspect,
            interpolation=augment.interpolation,
            flip_prob=augment.flip_prob,
            auto_augment=augment.auto_augment,
            color_jitter=augment.color_jitter,
            erase_prob=augment.erase_prob,
        )

    def view(self, image: Image.Image, seed: int, sample: int, visit: int) -> Image.Image:
        """The augmented image, before erasing.

        Args:
            image: Mode `L` or `RGB`, any size.
            seed: Of the run.
            sample: Which image.
            visit: How often it was seen before.

        Returns:
            `image_size` x `image_size` pixels of the same mode.
        """
        box, changes = self._drawn(*image.size, seed, sample, visit)
        view = crop_resized(image, box, self.image_size, resample=RESAMPLING[self.interpolation])
        view = _flipped_and_jittered(view, changes)
        if self._rand_augment is not None:
            with global_draws(stream(seed, sample, visit, "rand_augment")):
                view = self._rand_augment(view)
        return view

    def view_levels(self, levels: np.ndarray, seed: int, sample: int, visit: int) -> np.ndarray:
        """As `view`, for any number of channels and 16 bits, where RandAugment has no meaning.

        Args:
            levels: uint8 or uint16 `[H, W, C]`.
            seed: Of the run.
            sample: Which image.
            visit: How often it was seen before.

        Returns:
            `[image_size, image_size, C]` of the same type.
        """
        (left, top, width, height), changes = self._drawn(levels.shape[1], levels.shape[0], seed, sample, visit)
        part = levels[top : top + height, left : left + width]
        part = resized_levels(part, self.image_size, self.image_size, self.interpolation)
        if not changes.jitter:
            return part[:, ::-1] if changes.flip else part
        crop = torch.from_numpy(np.array(part))[None]
        changed: np.ndarray = change_levels(crop, pack_changes([changes]), threshold=256)[0].numpy()
        return changed

    def _drawn(self, width: int, height: int, seed: int, sample: int, visit: int) -> tuple[CropBox, Changes]:
        rng = stream(seed, sample, visit, "finetune")
        draws = rng.random(4 + NUM_DRAWS).tolist()
        box = crop_box(width, height, self.crop_scale, self.crop_aspect, draws[:4], rng)
        return box, draw_changes(self._strengths, draws[4:])

    def erased(self, seed: int, sample: int, visit: int) -> tuple[Box, np.ndarray] | None:
        """The rectangle of the normalised image that becomes noise, and the noise; or None.

        Returns:
            The rectangle and float32 `[C, height, width]`, standard normal.

        Source:
            Zhong et al., Random erasing data augmentation (arXiv 1708.04896), in timm's form with noise per pixel.
        """
        if not self.erase_prob:
            return None
        rng = stream(seed, sample, visit, "erase")
        if rng.random() >= self.erase_prob or (box := _erased_box(self.image_size, rng)) is None:
            return None
        return box, rng.standard_normal((self.channels, box.height, box.width), dtype=np.float32)

    @cached_property
    def _strengths(self) -> Strengths:
        jitter = self.color_jitter if self.auto_augment == "none" else 0.0
        return Strengths(
            flip_prob=self.flip_prob,
            jitter_prob=float(jitter > 0),
            brightness=jitter,
            contrast=jitter,
            saturation=jitter if self.channels == 3 else 0.0,
            hue=0.0,
            gray_prob=0.0,
            blur_prob=0.0,
            blur_radius=(0.0, 0.0),
            solarize_prob=0.0,
        )

    @cached_property
    def _rand_augment(self) -> Callable[[Image.Image], Image.Image] | None:
        """timm's RandAugment; what moves in from outside has the mean colour."""
        if self.auto_augment == "none":
            return None
        fill = tuple(min(255, round(255 * value)) for value in self.mean)
        options = {
            "translate_const": int(0.45 * self.image_size),
            "img_mean": fill if self.channels > 1 else fill[0],
            "interpolation": RESAMPLING[self.interpolation],
        }
        transform = rand_augment_transform(self.auto_augment, options)
        for operation in transform.ops:
            if operation.name.startswith("Posterize"):
                operation.aug_fn = posterize
        return cast(Callable[[Image.Image], Image.Image], transform)


def _flipped_and_jittered(image: Image.Image, changes: Changes) -> Image.Image:
    if changes.flip:
        image = ImageOps.mirror(image)
    for operation, factor in changes.jitter:
        image = ENHANCERS[operation](image).enhance(factor)
    return image


def posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """The image with so many bits per channel, at least one.

    At full strength timm asks for none: old versions of Pillow then give a black image, new ones an error.
    """
    return image if bits >= 8 else ImageOps.posterize(image, max(bits, 1))


def _erased_box(size: int, rng: np.random.Generator) -> Box | None:
    """A rectangle of random area, aspect ratio and place, or None after ten that are too long."""
    low, high = (math.log(end) for end in ERASED_ASPECT)
    for _ in range(ATTEMPTS):
        by_area, by_aspect, by_top, by_left = rng.random(4).tolist()
        area = (ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * by_area) * size * size
        aspect = math.exp(low + (high - low) * by_aspect)
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < height < size and 0 < width < size:
            return Box(int(by_top * (size - height + 1)), int(by_left * (size - width + 1)), height, width)
    return None


@contextmanager
def global_draws(rng: np.random.Generator) -> Iterator[None]:
    """Inside, the global generators of Python and NumPy, which timm draws from, are seeded from `rng`.

    Afterwards they are as they were.
    """
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002
    first, second = rng.integers(2**32, size=2).tolist()
    random.seed(first)
    np.random.seed(second)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002
