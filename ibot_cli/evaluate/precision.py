"""The arithmetic of evaluations; by default true float32, so that a CPU and a GPU give the same figure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from ibot_cli.core.arithmetic import float32_products
from ibot_cli.errors import UsageError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """No gradient, no autocast and no TF32 inside; the settings are restored afterwards."""
    # not inference_mode: what a network caches there could not be used for training afterwards
    with torch.no_grad(), torch.autocast(device.type, enabled=False), float32_products():
        yield


@contextmanager
def _bfloat16(device: torch.device) -> Iterator[None]:
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        yield


def arithmetic(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """What surrounds a forward pass: `exact_float32`, or bf16 autocast without gradients."""
    check_precision(precision)
    return exact_float32(device) if precision == "fp32" else _bfloat16(device)


def check_precision(precision: str) -> None:
    """Refuse an unknown name.

    Raises:
        UsageError: It is neither fp32 nor bf16.
    """
    if precision not in DTYPES:
        raise UsageError(
            f"There is no precision {precision!r}.",
            "fp32 is exact; bf16 is faster on a GPU, and rounds features to about three digits.",
        )
