"""Which samples every step of a run takes, for any number of processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ibot_cli.data.rng import epoch_order
from ibot_cli.data.workers import Key


@dataclass(frozen=True, kw_only=True)
class KeyPlan:
    """The (sample, visit) keys of each step.

    Epoch e goes through `epoch_order(seed, e, n)` as far as whole batches reach. The global batch is the same for any
    number of processes; each takes its slice of it.

    Attributes:
        seed: Of the run.
        num_images: n.
        batch_size: Images per step over all processes.
        micro_batch_size: Images per forward pass in one process; the last one of a step may be smaller.
        rank: Number of this process.
        world: Number of processes.
        repeats: Visits of an image in one epoch. They lie in the same global batch as far apart as possible, and the
            epoch has as many steps as without: it shows the first `1 / repeats` of its order (repeated augmentation,
            Hoffer et al. 2020, as in the authors' code for transfer).
    """

    seed: int
    num_images: int
    batch_size: int
    micro_batch_size: int
    rank: int = 0
    world: int = 1
    repeats: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; what is left over is not shown."""
        return self.num_images // self.batch_size

    @property
    def position(self) -> slice:
        """Where this process's slice lies in the global batch."""
        return slice(self.rank * self.batch_size // self.world, (self.rank + 1) * self.batch_size // self.world)

    def steps(self, start: int, stop: int) -> Iterator[tuple[int, list[Key]]]:
        """(step, keys of this process) of the steps `start` to `stop` (exclusive)."""
        current, order = -1, np.empty(0, dtype=np.int64)
        for step in range(start, stop):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != current:
                current, order = epoch, epoch_order(self.seed, epoch, self.num_images)
            yield step, self._keys(order, epoch, place)

    def micro_batches(self, start: int, stop: int) -> Iterator[list[Key]]:
        """The keys of each micro-batch of these steps."""
        for _, keys in self.steps(start, stop):
            for first in range(0, len(keys), self.micro_batch_size):
                yield keys[first : first + self.micro_batch_size]

    def _keys(self, order: np.ndarray, epoch: int, place: int) -> list[Key]:
        entries = np.arange(place * self.batch_size, (place + 1) * self.batch_size)
        images, visits = entries // self.repeats, entries % self.repeats
        apart = np.argsort(visits, kind="stable")[self.position]
        samples = order[images[apart]]
        return list(zip(samples.tolist(), (epoch * self.repeats + visits[apart]).tolist(), strict=True))
