"""The labelled images of a fine-tuning run, step by step: any start, any number of workers and processes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ibot_cli.data.augment import AugmentRecipe, Box
from ibot_cli.data.bad_files import BadFiles, BadLimits
from ibot_cli.data.keys import KeyPlan
from ibot_cli.data.loader import require_batch
from ibot_cli.data.mix import MixRecipe, mix_batch
from ibot_cli.data.picture import Picture
from ibot_cli.data.prefetch import Wait
from ibot_cli.data.replacement import use_or_replace
from ibot_cli.data.sources import Source
from ibot_cli.data.steps import in_steps
from ibot_cli.data.transform import normalise, stack_images
from ibot_cli.data.workers import Key
from ibot_cli.errors import DataError


@dataclass(frozen=True)
class PreparedImages:
    """One micro-batch as it leaves a worker.

    Attributes:
        levels: uint8 or uint16 `[b, H, W, C]`.
        boxes: What is erased of each image, or None.
        noise: float32, what the erased rectangles become, one after the other.
        used: int64 `[b]`, the images really seen: those asked for, or their replacements.
        bad: (path, reason) of the unreadable files met.
    """

    levels: Tensor
    boxes: list[Box | None]
    noise: Tensor
    used: np.ndarray
    bad: list[tuple[str, str]] = field(default_factory=list)

    def pin_memory(self) -> PreparedImages:
        """The same in page-locked memory, from which a CUDA device copies without making the host wait."""
        return replace(self, levels=self.levels.pin_memory(), noise=self.noise.pin_memory())


@dataclass(frozen=True)
class ImageAssembler:
    """Makes micro-batches of augmented images from keys.

    Attributes:
        source: The images.
        recipe: The augmentation.
        seed: Of the run.
        limits: How many unreadable files one micro-batch may meet before giving up.
    """

    source: Source
    recipe: AugmentRecipe
    seed: int
    limits: BadLimits

    def __call__(self, keys: Sequence[Key]) -> PreparedImages:
        """The micro-batch of (sample, visit) keys.

        Raises:
            DataError: Too many files are unreadable, or an image could not be processed.
        """
        bad: dict[str, str] = {}
        used, views, boxes, noise = [], [], [], [np.empty(0, dtype=np.float32)]
        for sample, visit in keys:
            view, index = use_or_replace(
                self.source,
                self.seed,
                sample,
                visit,
                partial(self._view, sample, visit),
                failure="{} cannot be augmented",
                limits=self.limits,
                bad=bad,
            )
            views.append(view)
            used.append(index)
            erased = self.recipe.erased(self.seed, sample, visit)
            boxes.append(erased[0] if erased else None)
            noise += [erased[1].ravel()] if erased else []
        levels = torch.from_numpy(np.stack(views))
        flat = torch.from_numpy(np.concatenate(noise))
        return PreparedImages(levels, boxes, flat, np.array(used, dtype=np.int64), list(bad.items()))

    def _view(self, sample: int, visit: int, picture: Picture) -> np.ndarray:
        if not self.recipe.plain:
            return self.recipe.view_levels(picture.levels(), self.seed, sample, visit)
        view: np.ndarray = stack_images([self.recipe.view(picture.image(), self.seed, sample, visit)])[0]
        return view


@dataclass(frozen=True)
class LabelledBatch:
    """One micro-batch on the device.

    Attributes:
        images: float32 `[b, C, H, W]`, normalised, erased and mixed.
        targets: float32 `[b, K]`, smoothed and mixed; rows sum to 1.
    """

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class FinetuneStep:
    """What one process needs for one step.

    Attributes:
        step: Number of the step in the run.
        epoch: Number of the epoch.
        micro: The micro-batches of this process, in order; the last one may be smaller, so that a loss of the step is
            the sum of theirs, each weighed with its share of the images.
        samples: int64 `[b]`, the samples of this process.
        used: int64 `[b]`, the images really seen: unreadable ones are replaced.
        labels: int64 `[b]`, of the images really seen, before mixing.
        position: Where this process's slice lies in the global batch.
        wait: How long the training waited for this step's data.
        new_bad: Paths of the unreadable files that this step met first.
    """

    step: int
    epoch: int
    micro: list[LabelledBatch]
    samples: np.ndarray
    used: np.ndarray
    labels: np.ndarray
    position: slice
    wait: Wait
    new_bad: list[str]


class FinetuneLoader:
    """Augmented and mixed images of a labelled source.

    The augmentation of an image depends on (seed, sample, visit) only, the mixing on (seed, step) and the place in the
    global batch; see `ibot_cli.data.mix` for what that means for the choice of the micro-batch.

    Args:
        source: The images, with labels.
        recipe: The augmentation.
        mix: The mixing.
        seed: Of the run.
        batch_size: Images per step over all processes; a multiple of `world`. `fitting_batch` finds one.
        micro_batch_size: Images per forward pass; the last one of a step is smaller where it does not divide.
        repeats: Versions of an image in one epoch, see `KeyPlan`.
        workers: Loader processes; 0 loads in this process.
        rank: Number of this process.
        world: Number of processes.
        max_bad_ratio: Share of unreadable files, see `BadLimits`.
        max_bad_files: Number of unreadable files, see `BadLimits`.
        device: Where the images are normalised, erased and mixed; levels go there as bytes.

    Raises:
        DataError: No labels, or fewer images than one batch.
        ValueError: The batch does not divide into `world` parts.
    """

    def __init__(
        self,
        source: Source,
        recipe: AugmentRecipe,
        mix: MixRecipe,
        *,
        seed: int,
        batch_size: int,
        micro_batch_size: int,
        repeats: int = 1,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        max_bad_ratio: float = 0.01,
        max_bad_files: int = 10,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size % world:
            raise ValueError(f"a batch of {batch_size} does not divide into {world} parts")
        require_batch(len(source), batch_size)
        self._labels = _labels_of(source)
        limits = BadLimits(len(source), max_bad_ratio, max_bad_files)
        self.bad = BadFiles(limits)
        self._assembler = ImageAssembler(source, recipe, seed, limits)
        self._mix = mix
        self._plan = KeyPlan(
            seed=seed,
            num_images=len(source),
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world=world,
            repeats=repeats,
        )
        self.steps_per_epoch = self._plan.steps_per_epoch
        self._workers = workers
        self._device = torch.device(device)

    def steps(self, start: int, stop: int) -> Generator[FinetuneStep, None, None]:
        """The steps `start` (inclusive) to `stop` (exclusive), over epoch boundaries.

        Call it once for the rest of a run: the workers live as long as the iterator, and closing it ends them.

        Raises:
            DataError: Too many unreadable files, or a loader process failed.
        """
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
                yield FinetuneStep(
                    step=part.step,
                    epoch=part.step // self.steps_per_epoch,
                    micro=part.micro,
                    samples=part.samples,
                    used=used,
                    labels=self._labels[used],
                    position=self._plan.position,
                    wait=part.wait,
                    new_bad=self.bad.add(part.bad),
                )

    def _batch(self, part: PreparedImages, step: int, first: int) -> LabelledBatch:
        """The micro-batch that begins at `first` in the global batch, as numbers on the device."""
        recipe = self._assembler.recipe
        images = normalise(part.levels.to(self._device, non_blocking=True), recipe.mean, recipe.std)
        _erase(images, part.boxes, part.noise.to(self._device, non_blocking=True))
        labels = torch.from_numpy(self._labels[part.used]).to(self._device, non_blocking=True)
        return LabelledBatch(*mix_batch(images, labels, self._mix, seed=self._assembler.seed, step=step, first=first))


def fitting_batch(num_images: int, batch_size: int, world: int = 1) -> int:
    """The batch to use where there may be fewer images than asked for.

    Args:
        num_images: n.
        batch_size: What was asked for.
        world: Number of processes.

    Returns:
        `batch_size` where n reaches; else the largest smaller batch that gives every process an even number of images,
        so that neighbours stay together for mixing, or one image each.

    Raises:
        DataError: Fewer images than processes.
    """
    if num_images >= batch_size:
        return batch_size
    even = num_images // (2 * world) * 2 * world
    if not even and num_images < world:
        raise DataError(
            f"{num_images:,} training images are fewer than the {world} processes.", hint="Use fewer processes."
        )
    return even or world


def _labels_of(source: Source) -> np.ndarray:
    if source.labels is None:
        raise DataError(
            f"{source.name} has no labels to learn from.", hint="Put the images of each class into a folder of its own."
        )
    return source.labels


def _erase(images: Tensor, boxes: Sequence[Box | None], noise: Tensor) -> None:
    """Replaces the boxes, in place."""
    begin = 0
    for image, box in zip(images, boxes, strict=True):
        if box is not None:
            end = begin + images.shape[1] * box.height * box.width
            area = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
            area.copy_(noise[begin:end].view_as(area))
            begin = end
