"""The samples of a run, step by step: any start, any number of workers and processes, always the same views."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ibot_cli.core.batch import Batch
from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.assemble import Assembler, Prepared
from ibot_cli.data.bad_files import BadFiles, BadLimits
from ibot_cli.data.keys import KeyPlan
from ibot_cli.data.photometric import finish_views
from ibot_cli.data.prefetch import Wait
from ibot_cli.data.sources import Source
from ibot_cli.data.steps import in_steps
from ibot_cli.data.transform import ViewRecipe
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
        wait: How long the training waited for this step's data.
        new_bad: Paths of the unreadable files that this step met first.
    """

    step: int
    epoch: int
    micro: list[Batch]
    samples: np.ndarray
    used: np.ndarray
    labels: np.ndarray | None
    position: slice
    wait: Wait
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
        device: Where the views are changed and normalised and the batches lie; levels go there as bytes.
        dtype: Of the views.

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
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if batch_size % world or (batch_size // world) % micro_batch_size:
            raise ValueError(f"a batch of {batch_size} does not divide into {world} x n x {micro_batch_size}")
        require_batch(len(source), batch_size)
        limits = BadLimits(len(source), max_bad_ratio, max_bad_files)
        self.bad = BadFiles(limits)
        self._assembler = Assembler(source, recipe, masks, grid, seed, mask_start_epoch, limits)
        self._plan = KeyPlan(
            seed=seed,
            num_images=len(source),
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world=world,
        )
        self.steps_per_epoch = self._plan.steps_per_epoch
        self._workers = workers
        self._device, self._dtype = torch.device(device), dtype

    def steps(self, start: int, stop: int) -> Generator[StepData, None, None]:
        """The steps `start` (inclusive) to `stop` (exclusive), over epoch boundaries.

        Call it once for the rest of a run: the workers live as long as the iterator, and closing it ends them.

        Raises:
            DataError: Too many unreadable files, or a loader process failed.
        """
        labels = self._assembler.source.labels
        taken = in_steps(
            self._plan,
            self._assembler,
            self._batch,
            start=start,
            stop=stop,
            workers=self._workers,
            device=self._device,
        )
        with closing(taken):
            for part in taken:
                used = part.used
                yield StepData(
                    step=part.step,
                    epoch=part.step // self.steps_per_epoch,
                    micro=part.micro,
                    samples=part.samples,
                    used=used,
                    labels=None if labels is None else labels[used],
                    position=self._plan.position,
                    wait=part.wait,
                    new_bad=self.bad.add(part.bad),
                )

    def _batch(self, part: Prepared, step: int, first: int) -> Batch:
        """The micro-batch as numbers on the device."""
        # index and weights come from the assembler: looking for the ones of a mask on an accelerator would wait for it
        masks = (part.mask, part.mask_index, part.mask_weights)
        mask, index, weights = (value.to(self._device, non_blocking=True) for value in masks)
        return Batch(
            global_views=self._finished(part.global_levels, part.global_changes),
            local_views=self._finished(part.local_levels, part.local_changes),
            mask=mask,
            mask_index=index,
            mask_weights=weights,
        )

    def _finished(self, levels: Tensor, changes: Tensor) -> Tensor:
        """Changed and normalised views on the device, `[V, B, C, H, W]`."""
        recipe = self._assembler.recipe
        views = finish_views(
            levels.to(self._device, non_blocking=True).flatten(0, 1),
            changes,
            threshold=recipe.solarize_threshold,
            mean=recipe.mean,
            std=recipe.std,
            dtype=self._dtype,
        )
        return views.view(*levels.shape[:2], *views.shape[1:])


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
