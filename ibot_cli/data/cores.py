"""How many CPU cores are free for this process, and how loading and computing share them."""

from __future__ import annotations

import contextlib
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

    The smallest of CPU affinity (which Slurm, Docker's `--cpuset-cpus` and taskset set), cgroup quota (v1 or v2, as
    Docker's `--cpus` and Kubernetes set it) and `SLURM_CPUS_PER_TASK`, divided by the processes that torchrun started
    on this machine (`LOCAL_WORLD_SIZE`).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cgroup_cores(CGROUP, OWN_CGROUP)
    if quota is not None:
        cores = min(cores, max(int(quota), 1))
    with contextlib.suppress(KeyError, ValueError):  # clusters that count cores without enforcing it
        cores = min(cores, max(int(os.environ["SLURM_CPUS_PER_TASK"]), 1))
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
    workers, threads, _ = best_share(load_seconds, compute_seconds, cores)
    if workers == 0:
        return LoadPlan(
            0,
            cores,
            f"{spent}, the network on the CPU about {compute_seconds * 1e3:.3g} ms of one core: "
            f"all {cores} cores compute, the main process loads in between.",
        )
    return LoadPlan(
        workers,
        threads,
        f"{spent}, the network on the CPU about {compute_seconds * 1e3:.3g} ms of one core: "
        f"{workers} of {cores} cores load.",
    )


def best_share(load: float, compute: float, cores: int) -> tuple[int, int, float]:
    """Loader processes and threads with the least time per sample on a CPU, and that time.

    Args:
        load: Time to load a sample on one core.
        compute: Time that the network needs for it on one core.
        cores: Free cores.
    """
    times = [_sample_seconds(workers, load, compute, cores) for workers in range(min(cores, MAX_WORKERS + 1))]
    workers = times.index(min(times))
    return workers, cores - workers, times[workers]


def crowded(workers: int, threads: int, cores: int, *, on_device: bool) -> str | None:
    """A warning where loader processes and threads would share cores, or None.

    Args:
        workers: Loader processes.
        threads: CPU threads of the main process, which are idle most of the time beside an accelerator.
        cores: Free cores.
        on_device: Whether the network runs on an accelerator.
    """
    busy = workers + (1 if on_device else threads)
    if workers == 0 or busy <= cores:
        return None
    main = "the main process" if on_device else f"runtime.threads = {threads}"
    return (
        f"runtime.workers = {workers} and {main} need {busy} cores, but {cores} {'is' if cores == 1 else 'are'} free "
        "(CPU affinity, quota of the control group, processes of torchrun): they will slow each other down."
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
