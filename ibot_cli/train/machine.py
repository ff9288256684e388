"""What the machine offers: device, arithmetic, memory."""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path

import torch

from ibot_cli.distributed import local_rank, world
from ibot_cli.errors import UsageError


def choose_device(name: str | None) -> torch.device:
    """The device to train on; `None` takes a GPU if there is one.

    Raises:
        UsageError: The name is unknown or the device is not there.
    """
    if name is None:
        return torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"runtime.device: {name!r} is not a device.", "Use cpu, cuda, cuda:N or auto.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"runtime.device: {name!r} is not supported.", "Use cpu, cuda, cuda:N or auto.")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"runtime.device: {name!r} was asked for, but PyTorch sees no GPU.", "Use --device cpu.")
        if device.index is None:
            device = torch.device("cuda", local_rank())
        if device.index >= torch.cuda.device_count():
            raise UsageError(
                f"runtime.device: there is no {device}; PyTorch sees {torch.cuda.device_count()} GPU(s).",
                "Count from 0, or use --device auto.",
            )
    return device


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 products are fast: CUDA >= 8.0, or a CPU with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


def available_memory(device: torch.device) -> int:
    """Bytes that this process may still take on `device`."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    values = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    free = int(values["MemAvailable"].split()[0]) * 1024
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if Path(limit).exists() and Path(used).exists() and (text := Path(limit).read_text().strip()) != "max":
            free = min(free, max(int(text) - int(Path(used).read_text()), 0))
    return free // world()


def peak_memory(device: torch.device) -> int:
    """Largest number of bytes that this process had on `device` so far; on the CPU its resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # the kernel's other count, ru_maxrss, begins with the memory of the process that started this one
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_memory(device: torch.device) -> None:
    """Lets `peak_memory` begin anew; on a CPU where the system can, else an earlier peak hides what follows."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def resident_memory() -> int:
    """Bytes of this process in memory now; 0 where the system does not say."""
    return _status("VmRSS")


def _status(field: str) -> int:
    """Bytes that `/proc/self/status` says; 0 where there is no such file."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    line = next((x for x in status.read_text().splitlines() if x.startswith(field)), f"{field}: 0 kB")
    return int(line.split()[1]) * 1024
