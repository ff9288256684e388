"""The next batch is copied to a CUDA device and finished there while the device works on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Wait(Protocol):
    """How long the training waited for a batch."""

    def seconds(self) -> float:
        """The time; of a device only once it has finished that batch."""


@dataclass(frozen=True)
class HostWait:
    """Time that passed in this process, which computes nothing meanwhile.

    Attributes:
        elapsed: Seconds.
    """

    elapsed: float

    def seconds(self) -> float:
        """The time."""
        return self.elapsed


class Mark(Protocol):
    """A point in the work of a device; a CUDA event with timing."""

    def synchronize(self) -> None:
        """Waits until the device has reached it."""

    def elapsed_time(self, end_event: Any) -> float:
        """Milliseconds from here to a later mark; both must have been reached."""


@dataclass(frozen=True)
class DeviceWait:
    """Time in which the device had nothing to do but wait for a batch, whatever the host waited meanwhile.

    Attributes:
        asked: End of the work before.
        given: Begin of the work on the batch.
    """

    asked: Mark
    given: Mark

    def seconds(self) -> float:
        """The time; the device must have reached both marks."""
        return self.asked.elapsed_time(self.given) / 1e3


class Lanes(Protocol):
    """The two queues of work of a device: one for training, one beside it."""

    def beside(self) -> AbstractContextManager[object]:
        """Work that is started in this context goes to the queue beside the training."""

    def mark(self) -> Mark:
        """The current end of the queue that work is started in."""

    def join(self, ready: Mark, tensors: Iterable[Tensor]) -> None:
        """Training goes on when `ready` is reached, and uses tensors that were made beside it."""


class CudaLanes:
    """The current stream and another one of a CUDA device.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)

    def beside(self) -> AbstractContextManager[object]:
        """See `Lanes`."""
        return torch.cuda.stream(self._stream)

    def mark(self) -> Mark:
        """See `Lanes`; whoever waits for it sleeps."""
        event = torch.cuda.Event(enable_timing=True, blocking=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    def join(self, ready: Mark, tensors: Iterable[Tensor]) -> None:
        """See `Lanes`; the memory of the tensors is kept until training has used them, also when they are dropped."""
        training = torch.cuda.current_stream(self._device)
        training.wait_event(ready)  # type: ignore[arg-type]  # marks of this class are events
        for tensor in tensors:
            tensor.record_stream(training)


@dataclass(frozen=True)
class _Started(Generic[T]):
    """A batch whose copying and finishing were started, and where that ends."""

    batch: T
    ready: Mark


def ahead(
    batches: Iterator[T], tensors: Callable[[T], Iterable[Tensor]], lanes: Lanes
) -> Generator[tuple[T, Wait], None, None]:
    """Batches, of which the next one is started before one is given.

    The host never waits for the device, except that it starts no more than two batches beyond the one that the device
    works on: their memory would grow. What goes wrong with a batch shows when that batch is due, not earlier.

    Args:
        batches: Makes a batch when it is asked for, by work on the device that it does not wait for.
        tensors: The tensors of a batch.
        lanes: The device.
    """
    started: deque[_Started[T] | Exception] = deque()
    asked: deque[Mark] = deque(maxlen=2)
    while True:
        asked.append(lanes.mark())
        if len(asked) == 2:
            asked[0].synchronize()
        while len(started) < 2 and not (started and isinstance(started[-1], Exception)):
            started.append(_start(batches, lanes))
        due = started.popleft()
        if isinstance(due, StopIteration):
            return
        if isinstance(due, Exception):
            raise due
        lanes.join(due.ready, tensors(due.batch))
        yield due.batch, DeviceWait(asked[-1], lanes.mark())


def _start(batches: Iterator[T], lanes: Lanes) -> _Started[T] | Exception:
    with lanes.beside():
        try:
            batch = next(batches)
        except Exception as error:
            return error
        return _Started(batch, lanes.mark())
