"""All heads of one pooling: grouped by how they are trained, stepped on the same batches, scored together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ibot_cli.evaluate.linear.grid import HeadSpec
from ibot_cli.evaluate.linear.heads import HeadGroup, SteppedGroup
from ibot_cli.evaluate.linear.window import WindowedGroup, Workspace, open_window
from ibot_cli.evaluate.precision import exact_float32

TOP = 5
LR_BATCH = 256
GROUP_COLUMNS = {"cpu": 10_000, "cuda": 100_000}
_SCORED_ELEMENTS = 2**23


@dataclass(frozen=True)
class Scores:
    """How each of H heads does on m images.

    Attributes:
        top1: Whether the class is right, bool `[m, H]`.
        top5: Whether it is among the five best (or all, with fewer classes), bool `[m, H]`.
        loss: Mean cross-entropy, float64 `[H]`; not finite for a head that diverged.
    """

    top1: Tensor
    top5: Tensor
    loss: Tensor


class HeadBank:
    """Linear classifiers that start from the same weights and are trained side by side.

    Args:
        specs: The heads.
        initial: Weights `[C, D]` that all start from.
        batch: Rows per step; learning rates are scaled by `batch / 256`.
        momentum: Of all heads.
        device: Where to compute.
        dtype: Of the weights.
        products: Type of the matrix products; in another one than `dtype`, SGD without decay works window by window.
        windowed: Whether it does; None is as just said.
    """

    def __init__(
        self,
        specs: Sequence[HeadSpec],
        initial: Tensor,
        *,
        batch: int,
        momentum: float = 0.9,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        products: torch.dtype | None = None,
        windowed: bool | None = None,
    ) -> None:
        self.specs, self.batch, self.momentum = tuple(specs), batch, momentum
        self.device, self.dtype, self.products = torch.device(device), dtype, products or dtype
        self._windowed = self.products != dtype if windowed is None else windowed
        self._workspace = Workspace()
        self.groups = [self._group(part, initial) for part in _parts(specs, self._group_size(len(initial)))]

    def train(self, features: Tensor, labels: Tensor, factor: float) -> None:
        """One step per batch.

        Args:
            features: `[T * B, D]` in `dtype` on the device.
            labels: int64 `[T * B]` there.
            factor: Of all learning rates, > 0.
        """
        with exact_float32(self.device):
            window = None
            for group in self.groups:
                group.set_factor(factor)
                if isinstance(group, WindowedGroup):
                    window = window or open_window(features, self.batch, self.momentum, self.products)
                    group.train_window(window, labels)
                else:
                    group.train(features, labels, self.batch)

    def score(self, features: Tensor, labels: Tensor) -> Scores:
        """Every head on features `[m, D]` anywhere, in the type of the weights; the answer is on the CPU."""
        widest = max(group.size * group.classes for group in self.groups)
        rows = max(1, _SCORED_ELEMENTS // widest)
        with exact_float32(self.device):
            parts = [
                self._scored(chunk.to(self.device, self.dtype), answers.to(self.device))
                for chunk, answers in zip(features.split(rows), labels.split(rows), strict=True)
            ]
        top1, top5, losses = (torch.cat(column) for column in zip(*parts, strict=True))
        finite = self.finite()
        mean = torch.where(finite, losses.double().mean(dim=0), torch.nan)
        return Scores((top1 & finite).cpu(), (top5 & finite).cpu(), mean.cpu())

    def finite(self) -> Tensor:
        """Whether the weights of each head are finite, bool `[H]`."""
        return torch.cat([group.finite() for group in self.groups])

    def weights(self) -> tuple[Tensor, Tensor]:
        """Weights `[H, C, D]` and biases `[H, C]` of all heads, copied."""
        weight = torch.cat([group.by_head(group.weight).permute(1, 2, 0) for group in self.groups])
        return weight, torch.cat([group.bias.view(group.size, -1) for group in self.groups])

    def _scored(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Right at once, right among five, and cross-entropy, `[b, H]` each."""
        return _beside([_judged(group.logits(features), labels) for group in self.groups])

    def _group_size(self, classes: int) -> int:
        return max(1, GROUP_COLUMNS.get(self.device.type, GROUP_COLUMNS["cpu"]) // classes)

    def _group(self, specs: Sequence[HeadSpec], initial: Tensor) -> HeadGroup:
        rates = [spec.lr * self.batch / LR_BATCH for spec in specs]
        first = specs[0]
        if self._windowed and first.optimizer == "sgd" and first.weight_decay == 0:
            return WindowedGroup(
                specs, rates, initial, momentum=self.momentum, device=self.device, dtype=self.dtype,
                products=self.products, workspace=self._workspace,
            )  # fmt: skip
        return SteppedGroup(
            specs, rates, initial, momentum=self.momentum, device=self.device, dtype=self.dtype, products=self.products
        )


def head_bytes(dim: int, classes: int) -> int:
    """Memory of one head while it is trained: float32 weights, velocity, and what a step needs beside them."""
    return 12 * (dim + 1) * classes


def _parts(specs: Sequence[HeadSpec], most: int) -> Iterator[list[HeadSpec]]:
    """Runs of at most `most` heads of one optimiser and decay."""
    for _, run in groupby(specs, key=lambda spec: (spec.optimizer, spec.weight_decay)):
        same = list(run)
        yield from (same[start : start + most] for start in range(0, len(same), most))


def _judged(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, classes = logits.shape
    places = labels.view(-1, 1, 1).expand(batch, heads, 1)
    own = logits.gather(2, places)
    # ties are errors, so that a head that gives every class the same score has learnt nothing
    better = (logits >= own).sum(dim=2) - 1
    known = own.squeeze(2).isfinite()
    loss = logits.logsumexp(dim=2) - own.squeeze(2)
    return (better == 0) & known, (better < min(TOP, classes)) & known, loss


def _beside(parts: Sequence[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    first, second, third = (torch.cat(column, dim=1) for column in zip(*parts, strict=True))
    return first, second, third
