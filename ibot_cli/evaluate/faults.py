"""What was wrong with the images or the features that an evaluation read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ibot_cli.errors import WeightsError
from ibot_cli.quantities import counted

_SHOWN = 5
_CHECKED = 65_536  # rows at a time


def left_out(bad: Mapping[str, str]) -> list[str]:
    """One sentence about unreadable images (path -> reason) with the first of them; none when there are none."""
    if not bad:
        return []
    first = next(f"{path}: {reason}" for path, reason in bad.items())
    if len(bad) == 1:
        return [f"1 image could not be read and was left out ({first})."]
    return [f"{len(bad)} images could not be read and were left out ({first}, ...)."]


def each_left_out(bad: Mapping[str, str]) -> list[str]:
    """A sentence for each of the first five unreadable images (path -> reason), and one for the rest."""
    notes = [f"{path} could not be read and was left out: {reason}." for path, reason in list(bad.items())[:_SHOWN]]
    more = len(bad) - _SHOWN
    return notes + ([f"{counted(more, 'more image')} could not be read."] if more > 0 else [])


def require_finite_features(features: Tensor, description: str) -> Tensor:
    """The same features.

    Args:
        features: float `[n, D]`, possibly a memory map.
        description: Of the weights that made them, for the message.

    Raises:
        WeightsError: One of them is not finite.
    """
    if not all(bool(torch.isfinite(some).all()) for some in features.split(_CHECKED)):
        raise WeightsError(
            f"The features of {description} are not finite.", "Check the weights: the training may have diverged."
        )
    return features
