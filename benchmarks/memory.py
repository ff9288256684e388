"""Memory of one side of a benchmark, in a process that does nothing else."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def added_by(work: Callable[[], None], device: torch.device) -> int:
    """Bytes by which `work` raises the peak above what is held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if _reset_peak():
        before = _kilobytes("VmRSS")
        work()
        return 1024 * (_kilobytes("VmHWM") - before)
    before = _largest()
    work()
    return 1024 * (_largest() - before)


def _reset_peak() -> bool:
    """Sets the peak to the present value where the system can; without it, an earlier peak hides what follows."""
    try:
        CLEAR.write_text("5")
    except OSError:
        return False
    return STATUS.exists()


def _kilobytes(field: str) -> int:
    line = next(x for x in STATUS.read_text().splitlines() if x.startswith(field))
    return int(line.split()[1])


def _largest() -> int:
    """Largest resident size so far, in KiB (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
