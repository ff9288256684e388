"""Batches that are made beside the training, on a device whose time is counted instead of spent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from ibot_cli.data.prefetch import ahead

COPY = 1.0


@dataclass
class Point:
    """A mark: when the device reaches it."""

    machine: Machine
    time: float
    name: str

    def synchronize(self) -> None:
        self.machine.log.append(f"host waits for {self.name}")
        self.machine.now = max(self.machine.now, self.time)

    def elapsed_time(self, end_event: Point) -> float:
        return 1e3 * (end_event.time - self.time)


@dataclass
class Machine:
    """A host and the two queues of a device; work begins when it is started and the queue is free."""

    now: float = 0.0
    ends: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "beside": 0.0})
    queue: str = "training"
    log: list[str] = field(default_factory=list)
    marks: int = 0
    used: list[Tensor] = field(default_factory=list)

    def work(self, seconds: float) -> None:
        self.ends[self.queue] = max(self.ends[self.queue], self.now) + seconds

    @contextmanager
    def beside(self) -> Iterator[None]:
        self.queue = "beside"
        try:
            yield
        finally:
            self.queue = "training"

    def mark(self) -> Point:
        self.work(0.0)
        self.marks += 1
        return Point(self, self.ends[self.queue], f"mark {self.marks} of {self.queue}")

    def join(self, ready: Point, tensors: Iterable[Tensor]) -> None:
        self.ends["training"] = max(self.ends["training"], ready.time)
        self.used += tensors


def batches(machine: Machine, count: int, seconds: float, fails: int = -1) -> Iterator[Tensor]:
    """Images that come every so many seconds, whatever the host does, and are copied in one."""
    try:
        for number in range(count):
            if number == fails:
                raise ValueError("no image")
            machine.now = max(machine.now, seconds * (number + 1))
            assert machine.queue == "beside"
            machine.work(COPY)
            machine.log.append(f"made {number}")
            yield torch.tensor([number])
    finally:
        machine.log.append("closed")


def train(machine: Machine, seconds: float, steps: int, load: float) -> list[float]:
    """How long the device waited for each batch."""
    waits = []
    for batch, wait in ahead(batches(machine, steps, load), lambda batch: [batch], machine):
        machine.log.append(f"training on {int(batch)}")
        machine.work(seconds)
        waits.append(wait)
    return [wait.seconds() for wait in waits]


def test_the_next_batch_is_made_before_one_is_given() -> None:
    machine = Machine()
    train(machine, 5.0, 4, 0.0)
    order = [entry for entry in machine.log if "host" not in entry]
    assert order == [
        "made 0", "made 1", "training on 0", "made 2", "training on 1", "made 3", "training on 2", "closed",
        "training on 3",
    ]  # fmt: skip
    assert [int(tensor) for tensor in machine.used] == [0, 1, 2, 3]


def test_a_busy_device_does_not_wait_although_the_host_does() -> None:
    """Images come every 4 seconds, a step takes 5."""
    first, *others = train(Machine(), 5.0, 8, 4.0)
    assert first > 0 and others == [0.0] * 7


def test_a_device_waits_for_what_is_missing() -> None:
    """Images come every 8 seconds, a step takes 5: it waits 3, but not for the last, which was made before."""
    machine = Machine()
    assert train(machine, 5.0, 8, 8.0)[1:] == pytest.approx([3.0] * 6 + [0.0])


def test_training_never_begins_before_its_batch_is_there() -> None:
    machine = Machine()
    begins = []
    for _ in ahead(batches(machine, 3, 0.0), lambda batch: [batch], machine):
        begins.append(machine.ends["training"])
        machine.work(0.1)
    assert begins == pytest.approx([COPY, 2 * COPY, 3 * COPY])


def test_the_host_starts_at_most_two_batches_beyond_the_one_in_work() -> None:
    machine = Machine()
    for number, _ in enumerate(ahead(batches(machine, 20, 0.0), lambda batch: [batch], machine)):
        machine.work(10.0)
        done = max(0, int((machine.now - COPY) // 10))
        made = sum(entry.startswith("made") for entry in machine.log)
        assert made - done <= 3, number


def test_an_error_shows_when_its_batch_is_due() -> None:
    machine, seen = Machine(), []
    with pytest.raises(ValueError, match="no image"):
        for batch, _ in ahead(batches(machine, 5, 0.0, fails=2), lambda batch: [batch], machine):
            seen.append(int(batch))
    assert seen == [0, 1]


def test_stopping_early_leaves_nothing_half_done() -> None:
    machine = Machine()
    source = batches(machine, 5, 0.0)
    steps = ahead(source, lambda batch: [batch], machine)
    next(steps)
    steps.close()
    assert machine.queue == "training" and machine.log == ["made 0", "made 1"]
    source.close()
    assert machine.log[-1] == "closed"


def test_no_batches() -> None:
    assert list(ahead(iter(()), lambda batch: [batch], Machine())) == []
