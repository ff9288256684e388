"""Who waits for whom in a run: when training waits for its images, what would help most."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ibot_cli.config.schema import RuntimeConfig
from ibot_cli.data.cores import HANDOVER_SECONDS, best_share, crowded, free_cores
from ibot_cli.data.probe import DataSummary

LARGE_SHARE = 0.2
FIRST_READINGS = 2  # the start of loader processes and the first steps say nothing
SECONDS = 60.0
GAIN = 0.8
PACKED_SIDE, PACKED_FOR = 320, 224
MANY_LOCAL = 8


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How one process of a run loads its images.

    Attributes:
        workers: Loader processes.
        threads: CPU threads of this process.
        cores: Cores that this process and its loader processes may use.
        on_device: Whether the network runs on an accelerator.
        picture: Width and height of a typical image.
        view_size: Side of the largest view.
        num_local: Local crops per image.
    """

    workers: int
    threads: int
    cores: int
    on_device: bool
    picture: tuple[int, int]
    view_size: int
    num_local: int

    @classmethod
    def of(
        cls, runtime: RuntimeConfig, device: torch.device, data: DataSummary, *, view_size: int, num_local: int
    ) -> Loading:
        """That of a plan, whose settings are decided."""
        assert runtime.workers is not None and runtime.threads is not None, "the plan decides every open setting"
        return cls(
            workers=runtime.workers,
            threads=runtime.threads,
            cores=free_cores(),
            on_device=device.type == "cuda",
            picture=data.typical,
            view_size=view_size,
            num_local=num_local,
        )

    def hint(self, share: float, seconds: float) -> str | None:
        """The one change that helps most, as a sentence; None where nothing is known to help.

        Args:
            share: Of the time, spent waiting for images.
            seconds: Time per image of this process.
        """
        advice = self._more_workers(share, seconds) or self._smaller_images() or self._fewer_crops()
        return advice and f"Training waits for images {share:.0%} of the time. {advice}"

    def _more_workers(self, share: float, seconds: float) -> str | None:
        if self.on_device:
            wanted = math.ceil(max(self.workers, 1) / (1 - min(share, 0.99)))
            workers, threads = min(wanted, self.cores - 1), self.threads
        else:
            load = seconds * (self.workers or share)  # loader processes that keep training waiting are all busy
            compute = seconds * (1 - share) * self.threads
            workers, threads, expected = best_share(load, compute, self.cores)
            if expected > GAIN * seconds or (self.workers == 0 and load < HANDOVER_SECONDS):
                return None
        if workers <= self.workers:
            return None
        change = f"--workers {workers}"
        if threads != self.threads:
            change += f" --set runtime.threads={threads}"
        return (
            f"{_processes(self.workers)}, and there are {self.cores} cores: stop with Ctrl-C and go on with "
            f"--resume {change}."
        )

    def _smaller_images(self) -> str | None:
        """Decoding takes time with the pixels of a file, whatever becomes of them."""
        side = max(PACKED_SIDE, 32 * math.ceil(self.view_size * PACKED_SIDE / PACKED_FOR / 32))
        times = (min(self.picture) / side) ** 2
        if times < 2:
            return None
        return (
            f"Most of it is decoding: a typical image has {self.picture[0]} x {self.picture[1]} pixels. "
            f"ibot data pack DATA OUT --short-side {side} makes copies with {times:.0f} times fewer."
        )

    def _fewer_crops(self) -> str | None:
        if self.num_local < MANY_LOCAL:
            return None
        return (
            f"No core is free, and the images are small; a new run with views.num_local={self.num_local // 2} instead "
            f"of {self.num_local} cuts fewer crops."
        )


def _processes(workers: int) -> str:
    if workers == 0:
        return "The main process loads them itself"
    return f"{workers} loader process{'' if workers == 1 else 'es'} load{'s' if workers == 1 else ''} them"


@dataclass
class WaitWatch:
    """Gives at most one hint, from the records of readings.

    Waiting counts over a minute of training at a time, after the first readings of this process.

    Attributes:
        loading: How the images are loaded.
        images: Images of this process per step.
    """

    loading: Loading
    images: int
    _readings: int = 0
    _step: int = 0
    _seconds: float = 0.0
    _waited: float = 0.0
    _seen: int = 0
    _told: bool = False

    def look(self, record: Mapping[str, Any], steps: int, seconds: float) -> str | None:
        """The hint, when it is due.

        Args:
            record: Of the last step of a reading, with `speed/wait_share`.
            steps: Steps that were read.
            seconds: Time that they took.
        """
        self._readings += 1
        if self._told or self._readings <= FIRST_READINGS:
            return None
        self._seconds += seconds
        self._waited += seconds * record["speed/wait_share"]
        self._seen += steps * self.images
        if self._seconds < SECONDS:
            return None
        share, each = self._waited / self._seconds, self._seconds / self._seen
        self._seconds = self._waited = 0.0
        self._seen = 0
        hint = self.loading.hint(share, each) if share >= LARGE_SHARE else None
        self._told = hint is not None
        return hint


def crowding(asked: RuntimeConfig, decided: RuntimeConfig, device: torch.device) -> list[str]:
    """A warning where the loader processes that were asked for exceed the cores; none about what a plan decided."""
    if asked.workers is None or decided.threads is None:
        return []
    warning = crowded(asked.workers, decided.threads, free_cores(), on_device=device.type == "cuda")
    return [] if warning is None else [warning]
