"""What `ibot pretrain DIR` decides by itself, with its reasons, and durations that are cut to the run.

Pure functions of the number of images and the settings; nothing here knows the machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ibot_cli.config.schema import Config

IMAGENET_IMAGES = 1_281_167
SMALL_SET = 50_000
HEAD_STEPS = 200

Choice = tuple[Any, str]
"""A value and the reason for it."""


def automatic_choices(num_images: int, config: Config) -> dict[str, Choice]:
    """Settings for a set of this size: dotted path to value and reason.

    Args:
        num_images: Images that training sees.
        config: What is resolved so far; a number of epochs that the user gave decides the warm-ups.
    """
    epochs, why_epochs = _epochs(num_images)
    choices: dict[str, Choice] = {"train.epochs": (epochs, why_epochs)}
    if config.train.epochs is not None:
        epochs = config.train.epochs
    batch, why_batch = _batch_size(num_images)
    choices["train.batch_size"] = (batch, why_batch)
    choices["head.prototypes"] = _prototypes(num_images)
    choices["optim.warmup_epochs"] = (_share(epochs, 0.1, 10), f"a tenth of {epochs} epochs, 10 at most as published")
    choices["objective.teacher_temp_warmup_epochs"] = (
        _share(epochs, 0.3, 30),
        f"three tenths of {epochs} epochs, 30 at most as published",
    )
    if num_images < SMALL_SET:
        choices["objective.balance"] = (
            "sinkhorn",
            f"with fewer than {SMALL_SET:,} images centring alone tends to collapse to uniform targets",
        )
    return choices


def continued_choices(num_images: int, config: Config) -> dict[str, Choice]:
    """As `automatic_choices`, for networks that are trained already.

    A quarter of the passes; temperatures without a warm-up and targets are those of the recipe.
    """
    epochs, _ = _epochs(num_images)
    why = f"a quarter of the {epochs} that {num_images:,} images would get from random weights"
    choices: dict[str, Choice] = {"train.epochs": (epochs // 4, why)}
    epochs = config.train.epochs or epochs // 4
    batch, why_batch = _batch_size(num_images)
    choices["train.batch_size"] = (batch, why_batch)
    choices["head.prototypes"] = _prototypes(num_images)
    choices["optim.warmup_epochs"] = (_share(epochs, 0.1, 10), f"a tenth of {epochs} epochs, 10 at most as published")
    return choices


def frozen_epochs(epochs: int, steps_per_epoch: int, head_kept: bool) -> Choice:
    """How long a trained backbone waits for its head, `init.freeze_backbone_epochs`.

    Source:
        The documentation of LightlyTrain 0.8.1 recommends one epoch for its DINOv2; a small set needs more of them.
    """
    if head_kept:
        return 0, "the head comes with the weights"
    wanted = max(1, math.ceil(HEAD_STEPS / max(steps_per_epoch, 1)))
    frozen = min(wanted, max(epochs // 5, 1), epochs - 1)
    return frozen, f"the head is new: about {HEAD_STEPS} updates for it alone, at least an epoch, at most a fifth"


def _epochs(num_images: int) -> Choice:
    """100 on a set of ImageNet's size; more passes on smaller sets, growing with the root so that cost still falls."""
    wanted = 100 * math.sqrt(IMAGENET_IMAGES / max(num_images, 1))
    epochs = int(min(max(wanted, 100), 800))
    return (
        epochs,
        f"{num_images:,} images: 100 passes at ImageNet's size, more on smaller sets, 800 at most",
    )


def _batch_size(num_images: int) -> Choice:
    if num_images >= 8 * 1024:
        return 1024, "as published"
    batch = 2 ** max(int(math.log2(max(num_images / 8, 1))), 1)
    return batch, f"{num_images:,} images: at least 8 updates per epoch (published: 1024)"


def _prototypes(num_images: int) -> Choice:
    if num_images >= 16 * 8192:
        return 8192, "as published"
    count = min(max(2 ** round(math.log2(max(num_images / 16, 1))), 256), 8192)
    return count, f"{num_images:,} images: about 16 images per prototype, between 256 and the published 8192"


def _share(epochs: int, share: float, most: int) -> int:
    return max(1, min(most, round(share * epochs)))


@dataclass(frozen=True)
class Cut:
    """A duration that was longer than the run.

    Attributes:
        path: Its setting.
        was: Epochs asked for.
        now: Epochs it has.
    """

    path: str
    was: int
    now: int

    def __str__(self) -> str:
        return f"{self.path} = {self.was} epochs is longer than this run allows; scaled to {self.now}."


def fit_durations(config: Config, epochs: int, reference_epochs: int) -> tuple[Config, list[Cut]]:
    """Scales every warm-up and start epoch that does not fit into the run.

    Such a duration keeps the share that it had of `reference_epochs`; the authors' code crashes instead.

    Args:
        config: Settings; only durations change.
        epochs: Length of the run.
        reference_epochs: Length that the recipe was written for.

    Returns:
        The settings and what was cut.
    """
    cuts: list[Cut] = []

    def fitted(path: str, value: int, most: int) -> int:
        if value <= most:
            return value
        scaled = min(most, max(1, round(value * epochs / max(reference_epochs, value))))
        cuts.append(Cut(path, value, scaled))
        return scaled

    last = max(epochs - 1, 0)
    frozen = fitted("init.freeze_backbone_epochs", config.init.freeze_backbone_epochs or 0, last)
    warmup = fitted("optim.warmup_epochs", config.optim.warmup_epochs, epochs - frozen)
    freeze = fitted("optim.freeze_prototypes_epochs", config.optim.freeze_prototypes_epochs, last)
    start = fitted("mask.start_epoch", config.mask.start_epoch, last)
    temps = config.objective.teacher_temp_warmup_epochs
    temps = fitted("objective.teacher_temp_warmup_epochs", temps, epochs - start)
    changed = replace(
        config,
        init=replace(config.init, freeze_backbone_epochs=frozen),
        optim=replace(config.optim, warmup_epochs=warmup, freeze_prototypes_epochs=freeze),
        mask=replace(config.mask, start_epoch=start),
        objective=replace(config.objective, teacher_temp_warmup_epochs=temps),
    )
    return changed, cuts


def changed_paths(choices: Mapping[str, Choice], origin: Mapping[str, str]) -> dict[str, Choice]:
    """The choices that really decided a value, that is, that nothing the user said has overruled."""
    return {path: choice for path, choice in choices.items() if origin.get(path, "").startswith("chosen")}
