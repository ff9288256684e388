"""How a linear probe is done: features, heads, schedule, hold-out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ibot_cli.core.swin import Swin
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.linear.grid import PUBLISHED_RATES, HeadSpec, head_grid
from ibot_cli.evaluate.pooling import parse_pooling
from ibot_cli.evaluate.precision import check_precision

SOLVERS = ("sgd", "lbfgs")
NARROW = 384
StageProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class ProbeSettings:
    """What decides the figures.

    Attributes:
        poolings: Features to try; see `ibot_cli.evaluate.pooling.parse_pooling`.
        solver: `sgd` (the sweep; LARS too with `all_optimizers`) or `lbfgs` (logistic regression).
        rates: Learning rates of the sweep, at a batch of 256.
        all_optimizers: Whether {SGD, LARS} x {no decay, 1e-6} are tried, four heads per rate.
        epochs: Of the sweep.
        batch_size: Images per step over all processes.
        holdout: Share of the training images that chooses among the heads.
        seed: Of hold-out, initial weights, order and crops.
        augment: Whether images are cropped (and flipped) anew in every epoch.
        flip: Whether half of those crops are flipped.
        precision: Arithmetic of the network and of the heads' products, `fp32` or `bf16`.

    Raises:
        UsageError: A value is out of range, or there are several heads and no hold-out.
    """

    poolings: tuple[str, ...]
    solver: str = "sgd"
    rates: tuple[float, ...] = PUBLISHED_RATES
    all_optimizers: bool = False
    epochs: int = 100
    batch_size: int = 128
    holdout: float = 0.1
    seed: int = 0
    augment: bool = False
    flip: bool = True
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check_precision(self.precision)
        if self.solver not in SOLVERS:
            raise UsageError(f"There is no solver {self.solver!r}.", f"Solvers: {', '.join(SOLVERS)}.")
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError("--epochs and --batch-size must be at least 1.")
        if not 0 <= self.holdout <= 0.5:
            raise UsageError(f"--holdout {self.holdout:g} is not between 0 and 0.5.", "The default is 0.1.")
        if self.augment and self.solver == "lbfgs":
            raise UsageError("--solver lbfgs needs the same features in every pass.", "Leave out --augment.")
        if not self.holdout and (self.solver == "lbfgs" or self.num_heads > 1):
            raise UsageError(
                "With --holdout 0 nothing can choose among the heads.",
                "Give one rate and one pooling, such as --lrs 0.1 --pooling cls, or hold out a part.",
            )

    @property
    def specs(self) -> tuple[HeadSpec, ...]:
        """The heads of the sweep for one pooling."""
        return head_grid(self.rates, all_optimizers=self.all_optimizers)

    @property
    def num_heads(self) -> int:
        """Heads of the sweep."""
        return len(self.specs) * len(self.poolings)

    def plain(self) -> dict[str, Any]:
        """What the solver that was chosen reads, as plain data."""
        both = {
            "solver": self.solver,
            "poolings": self.poolings,
            "holdout": self.holdout,
            "seed": self.seed,
            "precision": self.precision,
        }
        if self.solver == "lbfgs":
            return both
        sweep = {"lrs": self.rates, "all_optimizers": self.all_optimizers, "epochs": self.epochs}
        crops = {"augment": self.augment, "flip": self.flip if self.augment else None}
        return {**both, **sweep, "batch_size": self.batch_size, **crops}


@dataclass(frozen=True, kw_only=True)
class Means:
    """What a probe may use; none of it changes a figure.

    Attributes:
        device: Where to compute.
        workers: Loader processes.
        cache: Whether features may be kept on the disk and taken from there.
        progress: Called with the stage, what is done and the total.
    """

    device: torch.device
    workers: int = 0
    cache: bool = True
    progress: StageProgress | None = None

    def report(self, prefix: str, stage: str) -> Callable[[int, int], None] | None:
        """The progress of one stage."""
        progress = self.progress
        return None if progress is None else lambda done, total: progress(prefix + stage, done, total)


def parse_poolings(text: str) -> tuple[str, ...]:
    """Poolings from `cls,cls4,cls+mean`, each once.

    Raises:
        UsageError: One of them is none.
    """
    return tuple(dict.fromkeys(parse_pooling(part.strip()).text for part in text.split(",")))


def published_pooling(backbone: nn.Module) -> str:
    """The pooling of the published linear figures for this kind of network.

    Four class tokens for ViT up to width 384 and for Swin; class token and mean for wider ones. A network of fewer
    than twelve blocks gives a third of them. A network that gives no blocks has one feature only.

    Source:
        The evaluation of iBOT (arXiv 2111.07832).
    """
    blocks = int(getattr(backbone, "num_blocks", 0)) if hasattr(backbone, "last_blocks") else 0
    if blocks == 0:
        return "cls"
    if int(getattr(backbone, "dim", 0)) > NARROW and not isinstance(backbone, Swin):
        return "cls+mean"
    last = min(4, max(1, blocks // 3))
    return "cls" if last == 1 else f"cls{last}"
