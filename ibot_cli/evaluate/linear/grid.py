"""Which linear classifiers a sweep trains: learning rates, optimisers, weight decays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ibot_cli.errors import UsageError

Optimizer = Literal["sgd", "lars"]

PUBLISHED_RATES = tuple(float(f"{digit}e{power}") for power in range(-4, 1) for digit in range(1, 10))
DECAYS = (0.0, 1e-6)
OPTIMIZERS: tuple[Optimizer, ...] = ("sgd", "lars")
PUBLISHED = "published"


@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """How one linear classifier is trained.

    Attributes:
        lr: Learning rate at a batch of 256; it is scaled with the batch and follows a cosine to 0.
        optimizer: `sgd` or `lars`, both with momentum.
        weight_decay: Of the weights; with SGD of the bias too, as `torch.optim.SGD` has it.
    """

    lr: float
    optimizer: Optimizer = "sgd"
    weight_decay: float = 0.0


def head_grid(rates: Sequence[float] = PUBLISHED_RATES, *, all_optimizers: bool = False) -> tuple[HeadSpec, ...]:
    """One head per rate (SGD without decay), or per rate, optimiser and weight decay: 45 or 180 as published.

    Args:
        rates: Learning rates, > 0.
        all_optimizers: Whether LARS and a weight decay of 1e-6 are tried too.

    Source:
        The linear evaluation of the authors' iBOT code.
    """
    if not all_optimizers:
        return tuple(HeadSpec(lr=rate) for rate in rates)
    return tuple(
        HeadSpec(lr=rate, optimizer=optimizer, weight_decay=decay)
        for optimizer in OPTIMIZERS
        for decay in DECAYS
        for rate in rates
    )


def parse_rates(text: str) -> tuple[float, ...]:
    """Learning rates from `0.01,0.1`, ascending and distinct; `published` stands for all 45.

    Raises:
        UsageError: An entry is not a positive number.
    """
    if text.strip() == PUBLISHED:
        return PUBLISHED_RATES
    return tuple(sorted({_positive(part.strip(), text) for part in text.split(",")}))


def _positive(part: str, text: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise UsageError(f"--lrs {text}: {part!r} is not a positive number.", "Write for example --lrs 0.01,0.1,1.")
    return value
