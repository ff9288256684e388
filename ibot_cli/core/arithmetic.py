"""The number formats of a network's products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

AUTOCAST: dict[str, torch.dtype | None] = {
    "fp32": None,
    "tf32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""`runtime.precision` to the type that autocast computes in, None for no autocast."""


@contextmanager
def float32_products(*, tf32: bool = False) -> Iterator[None]:
    """How products and convolutions of float32 tensors are computed inside; restored afterwards.

    Args:
        tf32: Whether a GPU may round their inputs to TF32 (10 bits of mantissa); else they are IEEE float32, whatever
            the environment or torch's defaults (TF32 for convolutions) say.
    """
    matmul, convolution = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolution
