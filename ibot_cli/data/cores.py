"""How many CPU cores are free for this process, and how loading and computing share them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

MAX_WORKERS = 16
HANDOVER_SECONDS = 0.001
CGROUP = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


class LoadPlan(NamedTuple):
    """How the cores are used.

    Attributes:
        workers: Loader processes; 0 loads in the main process.
        threads: CPU threads of the main process.
        reason: Why, as a sentence.
    """

    workers: int
    threads: int
    reason: str


def free_cores() -> int:
    """Cores that this process may keep busy, at least 1.

    The smallest of CPU affinity and cgroup quota (v1 or v2), divided by the processes that torchrun started on this
    machine (`LOCAL_WORLD_SIZE`).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(CGROUP, OWN_CGROUP)
    if quota is not None:
        cores = min(cores, max(int(quota), 1))
    return max(cores // max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1), 1)


def cgroup_cores(root: Path, own: Path) -> float | None:
    """The CPU quota of the control group in cores, or None.

    Args:
        root: Where the control groups are mounted.
        own: The file that names this process's groups, one `id:controllers:path` per line.
    """
    quotas = []
    for line in _read(own).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if not controllers:
            quotas += [_quota_v2(folder) for folder in _upwards(root, group)]
        elif "cpu" in controllers.split(","):
            quotas += [_quota_v1(folder) for base in ("cpu", controllers) for folder in _upwards(root / base, group)]
    return min((quota for quota in quotas if quota is not None), default=None)


def choose_workers(
    *, num_images: int, load_seconds: float, compute_seconds: float | None, cores: int, in_memory: bool = False
) -> LoadPlan:
    """Share the cores between loading and computing so that no thread waits for a core.

    Args:
        num_images: Images of the source.
        load_seconds: Time to load one sample on one core.
        compute_seconds: Time that the network needs for one sample on one core, or None on an accelerator.
        cores: Free cores of this process.
        in_memory: Whether the images are already decoded.
    """
    spent = f"loading a sample takes about {load_seconds * 1e3:.3g} ms"
    if cores == 1:
        return LoadPlan(0, 1, f"one free core: images are loaded in the main process ({spent}).")
    if load_seconds < HANDOVER_SECONDS and (in_memory or num_images * load_seconds < 60):
        return LoadPlan(0, cores, f"{spent}, hardly more than handing it over: loaded in the main process.")
    if compute_seconds is None:
        workers = min(cores - 1, MAX_WORKERS)
        return LoadPlan(
            workers,
            max(cores - workers, 1),
            f"{spent} and the network runs on an accelerator: {workers} of {cores} cores load.",
        )
    times = [_sample_seconds(w, load_seconds, compute_seconds, cores) for w in range(min(cores, MAX_WORKERS + 1))]
    workers = times.index(min(times))
    if workers == 0:
        return LoadPlan(
            0,
            cores,
            f"{spent}, the network on the CPU about {compute_seconds * 1e3:.3g} ms of one core: "
            f"all {cores} cores compute, the main process loads in between.",
        )
    return LoadPlan(
        workers,
        cores - workers,
        f"{spent}, the network on the CPU about {compute_seconds * 1e3:.3g} ms of one core: "
        f"{workers} of {cores} cores load.",
    )


def _sample_seconds(workers: int, load: float, compute: float, cores: int) -> float:
    """Time per sample if threads scale perfectly; without workers loading and computing take turns."""
    if workers == 0:
        return load + compute / cores
    return max(load / workers, compute / (cores - workers))


def _upwards(root: Path, group: str) -> list[Path]:
    """The group's folder and those above it; a container often sees its own group as the root."""
    folder = root / group.strip().lstrip("/")
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(root))]


def _quota_v2(folder: Path) -> float | None:
    parts = _read(folder / "cpu.max").split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and parts[0] != "max" else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota and period and int(quota) > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
