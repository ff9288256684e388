"""The samples of a run, step by step: any start, any number of workers and processes, always the same views."""

from __future__ import annotations

import signal
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ibot_cli.core.batch import Batch
from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.assemble import Assembler, Key, Prepared
from ibot_cli.data.bad_files import BadFiles, BadLimits
from ibot_cli.data.rng import epoch_order
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe, normalise
from ibot_cli.errors import DataError


@dataclass(frozen=True, kw_only=True)
class StepData:
    """What one process needs for one step.

    Attributes:
        step: Number of the step in the run.
        epoch: Number of the epoch, which is also the visit of its samples.
        micro: The micro-batches of this process, in order.
        samples: int64 `[b]`, the samples of this process; b is the global batch over the number of processes.
        used: int64 `[b]`, the images really seen: unreadable ones are replaced.
        labels: int64 `[b]`, of the images really seen, or None.
        position: Where this process's slice lies in the global batch.
        wait_seconds: Time that the training loop waited for this step's data.
        new_bad: Paths of the unreadable files that this step met first.
    """

    step: int
    epoch: int
    micro: list[Batch]
    samples: np.ndarray
    used: np.ndarray
    labels: np.ndarray | None
    position: slice
    wait_seconds: float
    new_bad: list[str]


class ViewLoader:
    """Augmented views and masks of a source.

    Epoch e goes through the first `steps_per_epoch * batch_size` entries of `epoch_order(seed, e, n)`. Views and masks
    of a sample depend on (seed, sample, epoch) only.

    Args:
        source: The images.
        recipe: The views.
        masks: Draws masks; None masks nothing.
        grid: Patches per side of a global view; needed only when `masks` is None.
        seed: Of the run.
        batch_size: Images per step over all processes; a multiple of `world`.
        micro_batch_size: Images per forward pass; divides `batch_size / world`.
        mask_start_epoch: Epochs before this one are not masked.
        workers: Loader processes; 0 loads in this process.
        rank: Number of this process.
        world: Number of processes.
        max_bad_ratio: Share of unreadable files, see `BadLimits`.
        max_bad_files: Number of unreadable files, see `BadLimits`.
        device: Where the views are normalised and the batches lie; levels go there as bytes.

    Raises:
        DataError: Fewer images than one batch.
        ValueError: The sizes do not divide.
    """

    def __init__(
        self,
        source: Source,
        recipe: ViewRecipe,
        masks: MaskSampler | None,
        *,
        seed: int,
        batch_size: int,
        micro_batch_size: int,
        grid: int = 0,
        mask_start_epoch: int = 0,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        max_bad_ratio: float = 0.01,
        max_bad_files: int = 10,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size % world or (batch_size // world) % micro_batch_size:
            raise ValueError(f"a batch of {batch_size} does not divide into {world} x n x {micro_batch_size}")
        require_batch(len(source), batch_size)
        limits = BadLimits(len(source), max_bad_ratio, max_bad_files)
        self.steps_per_epoch = len(source) // batch_size
        self.bad = BadFiles(limits)
        self._assembler = Assembler(source, recipe, masks, grid, seed, mask_start_epoch, limits)
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._workers = workers
        self._position = slice(rank * batch_size // world, (rank + 1) * batch_size // world)
        self._device = torch.device(device)

    def steps(self, start: int, stop: int) -> Iterator[StepData]:
        """The steps `start` (inclusive) to `stop` (exclusive), over epoch boundaries.

        Call it once for the rest of a run: the workers live as long as the iterator, and closing it ends them.

        Raises:
            DataError: Too many unreadable files, or a loader process failed.
        """
        prepared = self._prepared(start, stop)
        try:
            for step, keys in self._plan(start, stop):
                began = time.perf_counter()
                parts = [next(prepared) for _ in range(0, len(keys), self._micro_batch_size)]
                micro = [self._batch(part) for part in parts]
                waited = time.perf_counter() - began
                yield self._step_data(step, keys, parts, micro, waited)
        finally:
            prepared.close()

    def _plan(self, start: int, stop: int) -> Iterator[tuple[int, list[Key]]]:
        """(step, keys of this process) of each step."""
        current, order = -1, np.empty(0, dtype=np.int64)
        for step in range(start, stop):
            epoch, place = divmod(step, self.steps_per_epoch)
            if epoch != current:
                current, order = epoch, epoch_order(self._assembler.seed, epoch, len(self._assembler.source))
            batch = order[place * self._batch_size : (place + 1) * self._batch_size]
            yield step, [(sample, epoch) for sample in batch[self._position].tolist()]

    def _micro_keys(self, start: int, stop: int) -> Iterator[list[Key]]:
        for _, keys in self._plan(start, stop):
            for first in range(0, len(keys), self._micro_batch_size):
                yield keys[first : first + self._micro_batch_size]

    def _prepared(self, start: int, stop: int) -> Generator[Prepared, None, None]:
        """Micro-batches in order."""
        micro_keys = self._micro_keys(start, stop)
        if self._workers == 0:
            yield from map(self._assembler, micro_keys)
            return
        loader = DataLoader(
            _KeyedDataset(self._assembler),
            batch_sampler=micro_keys,
            num_workers=self._workers,
            collate_fn=_as_is,
            worker_init_fn=_start_worker,
            pin_memory=self._device.type == "cuda",
            generator=torch.Generator(),  # or the loader would advance the global generator
        )
        results = iter(loader)
        try:
            for result in results:
                yield _unpack(result)
        except RuntimeError as error:
            raise _worker_died(error) from error
        finally:
            del results, loader

    def _batch(self, part: Prepared) -> Batch:
        """The micro-batch as numbers on the device."""
        recipe = self._assembler.recipe
        views = [
            normalise(levels.to(self._device, non_blocking=True).transpose(0, 1), recipe.mean, recipe.std)
            for levels in (part.global_levels, part.local_levels)
        ]
        batch = Batch.make(views[0], views[1], part.mask.transpose(0, 1).contiguous())
        # index and weights are made where the mask is: looking for its ones on an accelerator would wait for it
        masks = (batch.mask, batch.mask_index, batch.mask_weights)
        mask, index, weights = (value.to(self._device, non_blocking=True) for value in masks)
        return replace(batch, mask=mask, mask_index=index, mask_weights=weights)

    def _step_data(
        self, step: int, keys: list[Key], parts: Sequence[Prepared], micro: list[Batch], waited: float
    ) -> StepData:
        labels = self._assembler.source.labels
        used = np.concatenate([part.used for part in parts])
        return StepData(
            step=step,
            epoch=step // self.steps_per_epoch,
            micro=micro,
            samples=np.array([sample for sample, _ in keys], dtype=np.int64),
            used=used,
            labels=None if labels is None else labels[used],
            position=self._position,
            wait_seconds=waited,
            new_bad=self.bad.add(entry for part in parts for entry in part.bad),
        )


def require_batch(num_images: int, batch_size: int) -> None:
    """Check that one batch can be filled.

    Raises:
        DataError: There are fewer images.
    """
    if num_images < batch_size:
        raise DataError(
            f"{num_images:,} images do not fill a batch of {batch_size:,}.",
            hint=f"Set train.batch_size to at most {num_images}, or add images.",
        )


@dataclass(frozen=True)
class _Failure:
    """An error in a worker, as data: exceptions lose their attributes on the way to the main process."""

    message: str
    hint: str | None
    trace: str


class _KeyedDataset(Dataset[Any]):
    """Whole micro-batches by key list, for torch's loader."""

    def __init__(self, assembler: Assembler) -> None:
        self._assembler = assembler

    def __getitems__(self, keys: list[Key]) -> Prepared | _Failure:
        try:
            return self._assembler(keys)
        except DataError as error:
            return _Failure(error.message, error.hint, traceback.format_exc())
        except Exception as error:
            text = f"A loader process failed: {type(error).__name__}: {error}."
            return _Failure(
                text, "With runtime.workers=0 the failure shows in the main process.", traceback.format_exc()
            )


def _as_is(result: Any) -> Any:
    return result


def _unpack(result: Prepared | _Failure) -> Prepared:
    if isinstance(result, _Failure):
        raise DataError(result.message, hint=result.hint) from RuntimeError(result.trace)
    return result


def _start_worker(worker: int) -> None:
    """One thread per worker; signals to the process group are for the main process, which ends the workers itself."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _worker_died(error: RuntimeError) -> DataError:
    return DataError(
        f"A loader process ended without a result: {str(error).splitlines()[0]}",
        hint="Usually memory or /dev/shm ran out: lower runtime.workers or train.micro_batch_size.",
    )
