"""Linear classifiers trained one by one with nn.Linear, autograd and an optimiser: what the sweep must agree with."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ibot_cli.evaluate.linear.grid import HeadSpec


class PlainLars(torch.optim.Optimizer):
    """LARS written down parameter by parameter: trust ratio and decay for matrices only."""

    def __init__(self, params: Any, lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if parameter.ndim > 1:
                    gradient = gradient + group["weight_decay"] * parameter
                    size, length = parameter.norm(), gradient.norm()
                    if size > 0 and length > 0:
                        gradient = gradient * (0.001 * size / length)
                state = self.state[parameter]
                buffer = group["momentum"] * state.get("buffer", torch.zeros_like(parameter)) + gradient
                state["buffer"] = buffer
                parameter -= group["lr"] * buffer


def train_alone(
    spec: HeadSpec, initial: Tensor, batches: Iterator[tuple[Tensor, Tensor, float]], batch: int
) -> nn.Linear:
    """One head on (features, labels, factor of the rate) per step."""
    head = nn.Linear(initial.shape[1], initial.shape[0], dtype=initial.dtype)
    with torch.no_grad():
        head.weight.copy_(initial)
        head.bias.zero_()
    rate = spec.lr * batch / 256
    kind: Any = torch.optim.SGD if spec.optimizer == "sgd" else PlainLars
    optimizer = kind(head.parameters(), lr=rate, momentum=0.9, weight_decay=spec.weight_decay)
    for features, labels, factor in batches:
        optimizer.param_groups[0]["lr"] = rate * factor
        optimizer.zero_grad()
        functional.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return head
