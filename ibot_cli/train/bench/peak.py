"""The machine's best rate for matrix products, measured on those of the step itself."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ibot_cli.train.bench.operations import Product

SECONDS = 0.03
ROUNDS = 3  # a neighbour's moment of work should not hide the best rate


def gemm_rate(
    products: Sequence[Product],
    dtype: torch.dtype,
    device: torch.device,
    seconds: float = SECONDS,
    rounds: int = ROUNDS,
) -> float:
    """Operations per second of the fastest of some products, each laid out as a linear layer has it.

    Args:
        products: Their shapes; at least one.
        dtype: Of their entries.
        device: Where they are computed.
        seconds: Each runs at least so long without pause: a single call can catch a moment of higher clock.
        rounds: How often each is tried.
    """
    return max(_rate(product, dtype, device, seconds) for _ in range(rounds) for product in products)


def _rate(product: Product, dtype: torch.dtype, device: torch.device, seconds: float) -> float:
    # Numbers as a step has them: a GPU multiplies equal ones at a higher clock.
    generator = torch.Generator(device).manual_seed(0)
    left = torch.randn(product.rows, product.inner, dtype=dtype, device=device, generator=generator)
    right = torch.randn(product.columns, product.inner, dtype=dtype, device=device, generator=generator).t()
    _repeat(left, right, 1)
    calls = max(1, math.ceil(seconds / max(seconds_of(lambda: _repeat(left, right, 1), device), 1e-6)))
    return calls * product.flops / seconds_of(lambda: _repeat(left, right, calls), device)


def _repeat(left: Tensor, right: Tensor, calls: int) -> None:
    for _ in range(calls):
        left @ right


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of a call, all work of the device included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
