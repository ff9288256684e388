"""Devices by name, and what the machine offers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibot_cli.errors import UsageError
from ibot_cli.train import machine


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system for the module under test."""
    monkeypatch.setattr(machine, "Path", lambda name: tmp_path / str(name).lstrip("/"))
    return tmp_path


def write(root: Path, name: str, text: str) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_no_name_takes_what_is_there(no_gpu: None) -> None:
    assert machine.choose_device(None) == torch.device("cpu")
    assert machine.choose_device("cpu") == torch.device("cpu")


def test_no_name_takes_the_gpu_of_this_process(two_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.choose_device(None) == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert machine.choose_device(None) == machine.choose_device("cuda") == torch.device("cuda", 1)
    assert machine.choose_device("cuda:0") == torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("cuda", "runtime.device: 'cuda' was asked for, but PyTorch sees no GPU.", "--device cpu"),
        ("cuda:1", "runtime.device: 'cuda:1' was asked for, but PyTorch sees no GPU.", "--device cpu"),
        ("tpu", "runtime.device: 'tpu' is not a device.", "cpu, cuda, cuda:N or auto"),
        ("mps", "runtime.device: 'mps' is not supported.", "cpu, cuda, cuda:N or auto"),
        ("cuda:x", "runtime.device: 'cuda:x' is not a device.", "cpu, cuda, cuda:N or auto"),
    ],
)
def test_devices_that_cannot_be(no_gpu: None, name: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        machine.choose_device(name)
    assert caught.value.message == message and caught.value.hint is not None and hint in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_gpu_beyond_the_last(two_gpus: None) -> None:
    with pytest.raises(UsageError, match=r"there is no cuda:2; PyTorch sees 2 GPU\(s\)"):
        machine.choose_device("cuda:2")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512f avx512_bf16", True),
        ("fpu amx_tile amx_bf16", True),
        ("fpu avx2 avx512f avx512bw", False),
        ("", False),
    ],
)
def test_bf16_of_a_cpu(root: Path, flags: str, expected: bool) -> None:
    write(root, "/proc/cpuinfo", f"processor : 0\nmodel name : amx_bf16 look-alike\nflags\t\t: {flags}\nbugs : none\n")
    assert machine.has_native_bf16(torch.device("cpu")) is expected


def test_bf16_where_the_system_does_not_say(root: Path) -> None:
    assert machine.has_native_bf16(torch.device("cpu")) is False


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bf16_of_a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: bool) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert machine.has_native_bf16(torch.device("cuda", 0)) is expected


MEMINFO = "MemTotal:       16000 kB\nMemFree:  100 kB\nMemAvailable:    8000 kB\nHugePages_Total: 0\n"


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        (None, None, 8000 * 1024),
        ("max", "5000", 8000 * 1024),
        (str(10**12), "5000", 8000 * 1024),
        ("3000000", "1000000", 2_000_000),
        ("3000000", "3500000", 0),
    ],
)
@pytest.mark.parametrize(
    "names", [("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")]
)
def test_available_memory_respects_the_group_limit(
    root: Path, names: tuple[str, str], limit: str | None, used: str | None, expected: int
) -> None:
    write(root, "/proc/meminfo", MEMINFO)
    for name, text in zip(names, (limit, used), strict=True):
        if text is not None:
            write(root, f"/sys/fs/cgroup/{name}", text + "\n")
    assert machine.available_memory(torch.device("cpu")) == expected


def test_processes_share_the_memory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(root, "/proc/meminfo", MEMINFO)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert machine.available_memory(torch.device("cpu")) == 2000 * 1024


def test_memory_of_this_process() -> None:
    """With PyTorch loaded it is somewhere between 50 MB and 100 GB, and never above its peak."""
    now, peak = machine.resident_memory(), machine.peak_memory(torch.device("cpu"))
    assert 50e6 < now <= 1.01 * peak < 100e9
