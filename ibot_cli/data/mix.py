"""Mixup and cutmix of a batch, with label smoothing.

Neighbours of the global batch, images 2i and 2i + 1, are mixed with each other; their order is random already. One
strength is drawn for every 128 images of the global batch, as in the authors' code, where each of 8 processes drew
one for its 128. What is computed therefore does not depend on the number of processes nor on the micro-batch, as long
as both leave neighbours together (even numbers of images); an image without a neighbour is not mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ibot_cli.config.finetune import AugmentConfig
from ibot_cli.data.rng import stream

GROUP = 128


class Mix(NamedTuple):
    """How two images become one.

    Attributes:
        share: Weight of an image's own label; the other image has the rest.
        box: Top, bottom, left and right of what cutmix takes from the other image, or None to blend all of it.
    """

    share: float
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class MixRecipe:
    """How batches are mixed; the fields are those of `AugmentConfig`.

    Attributes:
        num_classes: K.
    """

    num_classes: int
    mixup: float
    cutmix: float
    mix_prob: float
    mix_switch_prob: float
    smoothing: float

    @classmethod
    def from_config(cls, augment: AugmentConfig, num_classes: int) -> MixRecipe:
        """The recipe of a configuration for so many classes."""
        return cls(
            num_classes=num_classes,
            mixup=augment.mixup,
            cutmix=augment.cutmix,
            mix_prob=augment.mix_prob,
            mix_switch_prob=augment.mix_switch_prob,
            smoothing=augment.smoothing,
        )

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Mix | None:
        """What happens to a group of images of this size, or None for nothing.

        Source:
            mixup (arXiv 1710.09412), cutmix (arXiv 1905.04899); switching between them as timm does.
        """
        whether, switch, *place = rng.random(4).tolist()
        if whether >= self.mix_prob or not (self.mixup or self.cutmix):
            return None
        if self.cutmix and (not self.mixup or switch < self.mix_switch_prob):
            return _cut(float(rng.beta(self.cutmix, self.cutmix)), place[0], place[1], height, width)
        return Mix(float(rng.beta(self.mixup, self.mixup)), None)


def _cut(share: float, by_y: float, by_x: float, height: int, width: int) -> Mix:
    """A box of (1 - share) of the area around a random pixel; what lies outside the image does not count."""
    edges, area = [], 1
    for by, side in ((by_y, height), (by_x, width)):
        length, middle = int(side * math.sqrt(1 - share)), int(by * side)
        start, end = max(middle - length // 2, 0), min(middle + (length + 1) // 2, side)
        edges += [start, end]
        area *= end - start
    return Mix(1 - area / (height * width), (edges[0], edges[1], edges[2], edges[3]))


def soft_targets(labels: Tensor, num_classes: int, smoothing: float) -> Tensor:
    """Smoothed one-hot targets.

    Args:
        labels: int64 `[b]`.
        num_classes: K.
        smoothing: Share that is spread evenly over all classes.

    Returns:
        float32 `[b, K]` on the device of `labels`; rows sum to 1.
    """
    targets = torch.full((len(labels), num_classes), smoothing / num_classes, device=labels.device)
    return targets.scatter_(1, labels[:, None], 1 - smoothing + smoothing / num_classes)


def mix_batch(
    images: Tensor, labels: Tensor, recipe: MixRecipe, *, seed: int, step: int, first: int
) -> tuple[Tensor, Tensor]:
    """The mixed images and their targets.

    Args:
        images: float32 `[b, C, H, W]`; may be changed in place.
        labels: int64 `[b]` on the same device.
        recipe: How.
        seed: Of the run.
        step: Number of the step in the run.
        first: Place of the first image in the global batch of the step.

    Returns:
        float32 `[b, C, H, W]` and float32 `[b, K]`, whose rows sum to 1.
    """
    targets = soft_targets(labels, recipe.num_classes, recipe.smoothing)
    start = 0
    while start < len(images):
        group = (first + start) // GROUP
        stop = min((group + 1) * GROUP - first, len(images))
        mix = recipe.draw(stream(seed, group, step, "mix"), images.shape[2], images.shape[3])
        if mix is not None:
            _mix(images[start:stop], targets[start:stop], mix)
        start = stop
    return images, targets


def _mix(images: Tensor, targets: Tensor, mix: Mix) -> None:
    """Mixes neighbours in place."""
    if mix.box is None:
        images.lerp_(_neighbours(images), 1 - mix.share)
    else:
        top, bottom, left, right = mix.box
        part = images[:, :, top:bottom, left:right]
        part.copy_(_neighbours(part))
    targets.lerp_(_neighbours(targets), 1 - mix.share)


def _neighbours(values: Tensor) -> Tensor:
    """`[b, ...]` with the places of 2i and 2i + 1 exchanged; a last one without a neighbour stays."""
    paired = len(values) // 2 * 2
    exchanged = values[:paired].unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    return torch.cat([exchanged, values[paired:]])
