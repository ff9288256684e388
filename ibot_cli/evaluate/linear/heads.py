"""Many linear classifiers, trained at once on the same batches of features.

Shapes: B rows of a batch, D features, C classes, h heads of a group. The weights of a group are one matrix
`[D, h * C]`, so that a step is two matrix products for all its heads. Heads never see each other: a head whose numbers
overflow stays alone with that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from ibot_cli.evaluate.linear.grid import HeadSpec

TRUST = 0.001
_NOTHING = 1e-30  # shares below it are 0: products of denormal numbers take many times as long on a CPU


def initial_weight(num_classes: int, dim: int, generator: torch.Generator) -> Tensor:
    """Weights `[C, D]` from N(0, 0.01), as published; biases start at 0."""
    return torch.empty(num_classes, dim).normal_(0.0, 0.01, generator=generator)


def push(logits: Tensor, labels: Tensor, scale: Tensor, out: Tensor | None = None) -> Tensor:
    """How cross-entropy pushes the logits: `scale * (onehot - softmax)`, all heads at once and without autograd.

    Args:
        logits: `[B, h, C]`.
        labels: int64 `[B]`.
        scale: `[h, 1]`; the learning rate over B makes it a step of gradient descent.
        out: `[B, h, C]`, takes the result.
    """
    step = torch.softmax(logits, dim=2, out=out) if out is not None else torch.softmax(logits, dim=2)
    functional.threshold(step, _NOTHING, 0.0, inplace=True)
    step *= -scale
    batch, heads, _ = logits.shape
    places = labels.view(-1, 1, 1).expand(batch, heads, 1)
    return step.scatter_add_(2, places, scale.expand(batch, heads, 1))


class HeadGroup(ABC):
    """Heads that are stepped together.

    The velocity is the momentum buffer times minus the learning rate, so that the weights simply add it; where the
    rate changes, between epochs, it is rescaled.

    Args:
        specs: The heads.
        rates: Their learning rates for this batch size.
        initial: Weights that all start from, `[C, D]`.
        momentum: Of SGD or LARS.
        device: Where everything lies.
        dtype: Of the weights.
        products: Type of the matrix products; None is `dtype`.
    """

    def __init__(
        self,
        specs: Sequence[HeadSpec],
        rates: Sequence[float],
        initial: Tensor,
        *,
        momentum: float,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        products: torch.dtype | None = None,
    ) -> None:
        classes, dim = initial.shape
        self.size, self.classes, self.dim, self.momentum = len(specs), classes, dim, momentum
        self.specs, self.products = tuple(specs), products or dtype
        self.weight = initial.to(device, dtype).T.repeat(1, self.size)
        self.velocity = torch.zeros_like(self.weight)
        self.bias = torch.zeros(self.size * classes, device=device, dtype=dtype)
        self.bias_velocity = torch.zeros_like(self.bias)
        self._base = torch.tensor(rates, device=device, dtype=dtype).unsqueeze(1)
        self.rate = self._base.clone()
        self._factor = 1.0

    def set_factor(self, factor: float) -> None:
        """From now on every head learns at `factor` > 0 times its rate."""
        if factor != self._factor:
            self.velocity *= factor / self._factor
            self.bias_velocity *= factor / self._factor
            self.rate = self._base * factor
            self._factor = factor

    def logits(self, features: Tensor) -> Tensor:
        """`[B, h, C]` of features `[B, D]`."""
        return torch.addmm(self.bias, features, self.weight).view(-1, self.size, self.classes)

    def finite(self) -> Tensor:
        """Whether all numbers of each head are finite, bool `[h]`."""
        sums = self.by_head(self.weight).sum(dim=(0, 2)) + self.bias.view(self.size, -1).sum(dim=1)
        return sums.isfinite()

    def by_head(self, matrix: Tensor) -> Tensor:
        """A view `[D, h, C]` of `[D, h * C]`."""
        return matrix.view(self.dim, self.size, self.classes)

    @abstractmethod
    def train(self, features: Tensor, labels: Tensor, batch: int) -> None:
        """One step per `batch` rows of `features` `[T * B, D]`, in their order."""


class SteppedGroup(HeadGroup):
    """A group that changes its weights at every step: SGD or LARS, with or without decay; one kind per group.

    Source:
        LARS: You et al. (arXiv 1708.03888), as the authors use it: no decay and no trust ratio for the bias.
    """

    def train(self, features: Tensor, labels: Tensor, batch: int) -> None:
        """See `HeadGroup.train`."""
        for rows, answers in zip(features.split(batch), labels.split(batch), strict=True):
            self._step(rows, answers)

    def _step(self, features: Tensor, labels: Tensor) -> None:
        optimizer, decay = self.specs[0].optimizer, self.specs[0].weight_decay
        logits = self._product(features, self.weight).add_(self.bias).view(-1, self.size, self.classes)
        scale = self.rate / len(features)
        pushed = push(logits, labels, scale).flatten(1)
        bias_step = pushed.sum(dim=0)
        if optimizer == "lars":
            self.velocity *= self.momentum
            self.by_head(self.velocity).add_(self._adapted(self._product(features.T, pushed), decay))
        else:
            if self.products == self.weight.dtype:
                self.velocity.addmm_(features.T, pushed, beta=self.momentum)
            else:
                self.velocity.mul_(self.momentum).add_(self._product(features.T, pushed))
            if decay:
                self.by_head(self.velocity).addcmul_(self.by_head(self.weight), -decay * self.rate)
                bias_step -= (decay * self.rate * self.bias.view(self.size, -1)).flatten()
        self.bias_velocity.mul_(self.momentum).add_(bias_step)
        self.weight += self.velocity
        self.bias += self.bias_velocity

    def _adapted(self, step: Tensor, decay: float) -> Tensor:
        """A step `[D, h, C]`, decayed and with its length as LARS wants it relative to the weights'."""
        weight, moved = self.by_head(self.weight), self.by_head(step)
        moved.addcmul_(weight, -decay * self.rate)
        size = weight.square().sum(dim=(0, 2)).sqrt()
        # the step holds the learning rate already, its length for the ratio must not
        length = moved.square().sum(dim=(0, 2)).sqrt() / self.rate.squeeze(1)
        ratio = torch.where((size > 0) & (length > 0), TRUST * size / length, torch.ones_like(size))
        return moved.mul_(ratio.unsqueeze(1))

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        """A matrix product in the precision that was asked for."""
        return (left.to(self.products) @ right.to(self.products)).to(self.weight.dtype)
