"""The number formats of a network's products."""

from __future__ import annotations

import torch

AUTOCAST: dict[str, torch.dtype | None] = {
    "fp32": None,
    "tf32": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""`runtime.precision` to the type that autocast computes in, None for no autocast."""
