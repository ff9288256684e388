"""What a run was computed with, and when, so that a number can be traced. No environment variables."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ibot_cli import __version__
from ibot_cli.data.formats.jpeg import decoder_in_use

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")


def describe(arguments: list[str] | None = None, *, decoder: str = "auto") -> dict[str, Any]:
    """Time, versions, decoder, platform, processor, threads, devices and command line as plain values for `env.json`.

    Args:
        arguments: The command line; `sys.argv` when None.
        decoder: `data.decoder` of the run.
    """
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "ibot": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "jpeg_decoder": decoder_in_use(decoder),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": _devices(),
        "cuda": torch.version.cuda,
        "command": list(sys.argv if arguments is None else arguments),
    }


def cpu_name() -> str:
    """The processor's marketing name, or its architecture where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _devices() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
