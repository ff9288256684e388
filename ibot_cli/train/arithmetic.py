"""Device and number format of a run's products, and whether its blocks are compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from ibot_cli.config.schema import RuntimeConfig
from ibot_cli.errors import UsageError
from ibot_cli.train.choices import Choice
from ibot_cli.train.machine import has_native_bf16

# Floating-point operations per second of one CPU core, for choosing how many cores load images.
CORE_FLOPS = {"fp32": 5e10, "tf32": 5e10, "bf16": 1.5e11, "fp16": 1.5e11}


def decide_arithmetic(
    runtime: RuntimeConfig, device: torch.device, made: dict[str, Choice], *, steep: bool = False
) -> RuntimeConfig:
    """Device, precision and compiling where they are open.

    Args:
        runtime: As far as it is decided.
        device: Where the networks run.
        made: The choices are added.
        steep: Whether gradients leave the range of float16 whatever the loss scale, so that fp16 is not chosen.

    Raises:
        UsageError: TF32 was asked for where there is none.
    """
    if runtime.device is None:
        runtime = replace(runtime, device=device.type)
        made["runtime.device"] = (device.type, "a GPU was found" if device.type == "cuda" else "there is no GPU")
    if runtime.precision is None:
        precision, reason = _usual_precision(device, steep)
        runtime = replace(runtime, precision=precision)
        made["runtime.precision"] = (precision, reason)
    if runtime.precision == "tf32" and not (device.type == "cuda" and has_native_bf16(device)):
        raise UsageError(
            f"runtime.precision: {device} has no TF32 products; they need a GPU of CUDA capability 8.0 or higher.",
            "Use runtime.precision=fp32, which is exact, or auto.",
        )
    if runtime.compile is None:
        gains = device.type == "cuda"
        runtime = replace(runtime, compile=gains)
        made["runtime.compile"] = (
            gains,
            "fused operations save time on a GPU" if gains else "on a CPU it gains less than the compiling takes",
        )
    return runtime


def _usual_precision(device: torch.device, steep: bool) -> tuple[Literal["fp32", "bf16", "fp16"], str]:
    """What `auto` means on a device, and why."""
    name = device.type.upper()
    if has_native_bf16(device):
        return "bf16", f"the {name} has fast bf16 products"
    if device.type == "cuda" and steep:
        return "fp32", f"the {name} has no fast bf16 products, and first gradients of a masked Swin exceed float16"
    if device.type == "cuda":
        return "fp16", "the GPU is older than CUDA capability 8.0: no fast bf16 products, but float16 ones"
    return "fp32", f"the {name} has no fast bf16 products"
