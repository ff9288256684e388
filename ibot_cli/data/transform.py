"""From an image to the views of one training sample, or to the input of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.changes import NUM_DRAWS, Changes, Strengths, draw_changes
from ibot_cli.data.crops import center_corner, crop_box, shorter_resized
from ibot_cli.data.formats.bands import resized_levels
from ibot_cli.data.picture import Picture
from ibot_cli.data.tensor_crops import cut_levels
from ibot_cli.errors import DataError

CROP_DRAWS = 5
UNCHANGED = Changes(flip=False, jitter=(), gray=False, blur_radius=0.0, solarize=False)
MARGIN = 2
SHRINKS = (8, 4, 2, 1)
IMAGENET = {1: ((0.449,), (0.226,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}


@dataclass(frozen=True, kw_only=True)
class ViewRecipe:
    """The views of a sample; the fields are those of `ViewsConfig`, and how levels become numbers.

    Attributes:
        channels: C; saturation, hue and grey are for 3 only.
        mean: Per channel, after scaling to 0..1.
        std: Per channel.
    """

    num_global: int
    num_local: int
    global_size: int
    local_size: int
    global_scale: tuple[float, float]
    local_scale: tuple[float, float]
    aspect: tuple[float, float]
    rotation: float
    flip_prob: float
    jitter_prob: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray_prob: float
    blur_prob_first: float
    blur_prob_other: float
    blur_prob_local: float
    blur_radius: tuple[float, float]
    solarize_prob: float
    solarize_threshold: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def from_config(cls, views: ViewsConfig, data: DataConfig) -> ViewRecipe:
        """The recipe of a configuration; automatic statistics are ImageNet's, or their grey averages."""
        mean, std = normalisation(data.channels, data.mean, data.std)
        return cls(**vars(views), channels=data.channels, mean=mean, std=std)

    @cached_property
    def strengths(self) -> list[Strengths]:
        """What may happen to each view, globals first."""
        first = self._strengths(self.blur_prob_first, 0.0)
        other = self._strengths(self.blur_prob_other, self.solarize_prob)
        local = self._strengths(self.blur_prob_local, 0.0)
        return [first, *[other] * (self.num_global - 1), *[local] * self.num_local]

    @cached_property
    def kept(self) -> list[bool]:
        """Whether nothing can happen to each view; then nothing needs to be drawn for it."""
        return [
            not any((each.flip_prob, each.jitter_prob, each.gray_prob, each.blur_prob, each.solarize_prob))
            for each in self.strengths
        ]

    def _strengths(self, blur_prob: float, solarize_prob: float) -> Strengths:
        colour = self.channels == 3  # saturation, hue and grey are of the three colours
        return Strengths(
            flip_prob=self.flip_prob,
            jitter_prob=self.jitter_prob,
            brightness=self.brightness,
            contrast=self.contrast,
            saturation=self.saturation if colour else 0.0,
            hue=self.hue if colour else 0.0,
            gray_prob=self.gray_prob if colour else 0.0,
            blur_prob=blur_prob,
            blur_radius=self.blur_radius,
            solarize_prob=solarize_prob,
        )


def normalisation(
    channels: int, mean: tuple[float, ...] | None = None, std: tuple[float, ...] | None = None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel; None is ImageNet's, for one channel their grey averages.

    Raises:
        DataError: None for other channels, whose statistics are measured on the images when a run begins.
    """
    if mean is not None and std is not None:
        return mean, std
    if channels not in IMAGENET:
        raise DataError(
            f"Images of {channels} channels have no usual mean and deviation, and none are given.",
            hint="Set data.mean and data.std.",
        )
    auto_mean, auto_std = IMAGENET[channels]
    return mean or auto_mean, std or auto_std


class DrawnView(NamedTuple):
    """What one view will be, before any pixel is touched.

    Attributes:
        box: Left, top, width, height of the crop, in whole pixels of the (turned) image.
        size: Side of the view.
        degrees: Turn of the image before the crop, as in `crop_resized`.
        changes: What happens to the crop.
    """

    box: tuple[int, int, int, int]
    size: int
    degrees: float
    changes: Changes


def draw_views(width: int, height: int, recipe: ViewRecipe, rng: np.random.Generator) -> list[DrawnView]:
    """What the views of one sample will be; globals first.

    Args:
        width: Of the image, in pixels.
        height: Of the image, in pixels.
        recipe: What to draw.
        rng: All randomness; one row of numbers per view, so that a view does not depend on the others' settings.

    Source:
        iBOT (arXiv 2111.07832), the multi-crop augmentation of the authors' code.
    """
    views = []
    rows = rng.random((recipe.num_global + recipe.num_local, CROP_DRAWS + NUM_DRAWS)).tolist()
    for index, (row, strengths, kept) in enumerate(zip(rows, recipe.strengths, recipe.kept, strict=True)):
        if index < recipe.num_global:
            size, scale = recipe.global_size, recipe.global_scale
        else:
            size, scale = recipe.local_size, recipe.local_scale
        box = crop_box(width, height, scale, recipe.aspect, row[:4], rng)
        degrees = recipe.rotation * (2 * row[4] - 1)
        views.append(DrawnView(box, size, degrees, UNCHANGED if kept else draw_changes(strengths, row[CROP_DRAWS:])))
    return views


def cut_views(picture: Picture, recipe: ViewRecipe, rng: np.random.Generator) -> tuple[list[Tensor], list[Changes]]:
    """The crops of one sample, and what is to happen to each; globals first.

    Boxes are drawn from the size of the picture. Where its format can be decoded at a half, a quarter or an eighth of
    that, and every box still has `MARGIN` times the pixels of its view per side, it is. A view of a photograph then
    differs from that of the whole image by 1 level at most in the mean: of the two photographs that come with
    scikit-learn, tiled and enlarged to 4000 x 3000 pixels, by 0.2 to 0.4 over all views, by 0.96 in the worst view
    (tiled, twice the pixels, shrunk to a quarter), and by 28 in the worst pixel. Patterns of single pixels, which no
    lens draws, differ by more, because libjpeg averages where a bicubic filter weighs: in the mean of the worst view
    noise by 2, dots by 3 and lines with a period of 5 pixels by 9 levels; the worst pixel by 50.

    Args:
        picture: Any size.
        recipe: What to draw.
        rng: As for `draw_views`.

    Returns:
        Levels `[size, size, C]` each, not to be changed in place, and the changes.

    Raises:
        UnreadableImage: The pixels are damaged.
    """
    views = draw_views(*picture.size, recipe, rng)
    shrink = usable_shrink(picture, views)
    return cut_levels(picture.levels(shrink), views, shrink), [view.changes for view in views]


def usable_shrink(picture: Picture, views: Sequence[DrawnView]) -> int:
    """By how much the picture can be made smaller in decoding: 1, 2, 4 or 8."""
    if not picture.shrinks or any(view.degrees for view in views):
        return 1
    room = min(min(view.box[2:]) / view.size for view in views) / MARGIN
    return next(shrink for shrink in SHRINKS if shrink <= max(room, 1))


def stack_images(images: Sequence[Image.Image]) -> np.ndarray:
    """Levels of images of one size and mode, uint8 `[n, H, W, C]`."""
    content = bytearray().join([image.tobytes() for image in images])
    width, height = images[0].size
    return np.frombuffer(content, dtype=np.uint8).reshape(len(images), height, width, -1)


def normalise(levels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Numbers for the network, computed where `levels` are.

    Args:
        levels: uint8 or uint16 `[..., H, W, C]`.
        mean: Per channel, after scaling to 0..1.
        std: Per channel.

    Returns:
        float32 `[..., C, H, W]`, contiguous: (levels / 255 - mean) / std, as torchvision's ToTensor and Normalize;
        levels of 16 bits are divided by 65535.
    """
    *lead, height, width, channels = levels.shape
    values = torch.empty((*lead, channels, height, width), dtype=torch.float32, device=levels.device)
    values.copy_(levels.movedim(-1, -3)).div_(full_scale(levels.dtype))
    # made on the host: a tensor of Python numbers that is made on a device waits for it
    numbers = torch.tensor([mean, std], dtype=torch.float32).to(levels.device, non_blocking=True)
    center, spread = numbers.view(2, -1, 1, 1)
    return values.sub_(center).div_(spread)


def full_scale(dtype: torch.dtype) -> int:
    """The largest level of images of this type."""
    return 65535 if dtype == torch.uint16 else 255


def eval_transform(
    image_size: int, crop_ratio: float, channels: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Image.Image | np.ndarray], Tensor]:
    """The transform of evaluations.

    Args:
        image_size: Side of the result.
        crop_ratio: The shorter side is resized to `image_size / crop_ratio` (bicubic), then the centre is cropped.
        channels: C; `mean` and `std` have as many entries.
        mean: Per channel, after scaling to 0..1.
        std: Per channel.

    Returns:
        From levels `[H, W, C]`, or an image of mode `L` or `RGB`, to float32 `[C, image_size, image_size]`.
    """
    if not len(mean) == len(std) == channels:
        raise ValueError(f"{channels} channels need as many means and deviations, not {len(mean)} and {len(std)}")
    return EvalTransform(image_size, math.floor(image_size / crop_ratio), tuple(mean), tuple(std))


@dataclass(frozen=True)
class EvalTransform:
    """Resize, centre crop, normalise; an object so that it travels to loader processes.

    Attributes:
        image_size: Side of the result in pixels.
        resize_size: Of the shorter side before the crop.
        mean: Per channel, after scaling to 0..1.
        std: Per channel.
        bits: Of the levels that it is for, to undo it; the levels themselves say how they are scaled.
    """

    image_size: int
    resize_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    bits: int = field(default=8, repr=False)

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        """The tensor of one image, float32 `[C, H, W]`.

        Args:
            image: Of mode `L` or `RGB`, or its levels, uint8 or uint16 `[H, W, C]`.
        """
        levels = image if isinstance(image, np.ndarray) else stack_images([image])[0]
        width, height = shorter_resized(levels.shape[1], levels.shape[0], self.resize_size)
        levels = resized_levels(levels, width, height)
        left, top = center_corner(width, height, self.image_size)
        view = levels[top : top + self.image_size, left : left + self.image_size]
        return normalise(torch.from_numpy(np.array(view)), self.mean, self.std)
