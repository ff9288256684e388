"""Features of augmented images, computed once per batch for all heads and poolings; the published linear protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
import yaml
from torch import Tensor

from ibot_cli import distributed
from ibot_cli.data.augment import AugmentRecipe
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.finetune_loader import ImageAssembler, PreparedImages
from ibot_cli.data.keys import KeyPlan
from ibot_cli.data.transform import normalise
from ibot_cli.data.workers import in_order
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.evaluate.linear.feed import Batches
from ibot_cli.evaluate.linear.window import STEPS
from ibot_cli.evaluate.pooling import compute_parts, parts_of, pooled_parts
from ibot_cli.evaluate.precision import arithmetic
from ibot_cli.runs.evaluations import run_of
from ibot_cli.weights.load import LoadedBackbone

MAX_BAD_RATIO, MAX_BAD_FILES = 0.01, 10
_FORWARD = 128  # images at a time


def flips(weights: str) -> bool:
    """Whether flipped images look natural: what the run was trained with says so; else yes, as published."""
    run = run_of(weights)
    config = None if run is None else yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    sections = [config.get(name) for name in ("views", "augment")] if isinstance(config, dict) else []
    return all(section.get("flip_prob", 1) > 0 for section in sections if isinstance(section, dict))


class AugmentedFeed:
    """Batches of features of random crops, by the frozen network in evaluation mode.

    The crop and flip of an image depend on (seed, image, epoch) only. Under `torchrun` every process computes the
    features of its slice of the batch, and all get all of them.

    Args:
        loaded: The network and how its images are prepared.
        images: The images that are learnt from.
        poolings: What the features are.
        flip: Whether half of the crops are flipped.
        batch: Images per step over all processes, a multiple of their number.
        epochs: How many epochs will be asked for.
        seed: Of order and crops.
        precision: Of the network, `fp32` or `bf16`.
        device: Where to compute.
        workers: Loader processes.

    Source:
        The linear evaluation of the authors' iBOT code: random resized crop (bilinear, area 8 % to 100 %) and flip.
    """

    def __init__(
        self,
        loaded: LoadedBackbone,
        images: Labelled,
        poolings: Sequence[str],
        *,
        flip: bool,
        batch: int,
        epochs: int,
        seed: int,
        precision: str = "fp32",
        device: torch.device,
        workers: int = 0,
    ) -> None:
        self._loaded, self._precision, self._device = loaded, precision, device
        self._recipe = crop_recipe(loaded, flip)
        limits = BadLimits(len(images.source), MAX_BAD_RATIO, MAX_BAD_FILES)
        world = distributed.world()
        self._plan = KeyPlan(
            seed=seed,
            num_images=len(images.source),
            batch_size=batch,
            micro_batch_size=min(_FORWARD, batch // world),
            rank=distributed.rank(),
            world=world,
        )
        self.steps_per_epoch = self._plan.steps_per_epoch
        self.bad: dict[str, str] = {}
        self._labels = torch.from_numpy(images.labels)
        self._wanted = parts_of(poolings, loaded.backbone)
        self._parts = {text: pooled_parts(text, loaded.backbone) for text in poolings}
        keys = self._plan.micro_batches(0, epochs * self.steps_per_epoch)
        assembler = ImageAssembler(images.source, self._recipe, seed, limits)
        # one loader for all epochs: its workers live as long as it does
        self._prepared = in_order(assembler, keys, workers=workers, pin_memory=device.type == "cuda")
        loaded.backbone.to(device).eval()

    def epoch(self, epoch: int) -> Batches:
        """See `ibot_cli.evaluate.linear.feed.Feed.epoch`; epochs must be asked for in their order."""
        for start in range(0, self.steps_per_epoch, STEPS):
            steps = [self._step() for _ in range(start, min(start + STEPS, self.steps_per_epoch))]
            features = {text: torch.cat([step[0][text] for step in steps]) for text in self._parts}
            yield features, torch.cat([step[1] for step in steps])

    def close(self) -> None:
        """See `ibot_cli.evaluate.linear.feed.Feed.close`; ends the loader processes."""
        self._prepared.close()

    def _step(self) -> tuple[Mapping[str, Tensor], Tensor]:
        """Features and labels of one global batch."""
        size = self._plan.position.stop - self._plan.position.start
        count = -(-size // self._plan.micro_batch_size)
        found = [self._features(part) for part in self._next(count)]
        features = {
            text: _gathered(torch.cat([torch.cat([part[name] for name in names], dim=1) for part, _ in found]))
            for text, names in self._parts.items()
        }
        return features, _gathered(torch.cat([labels for _, labels in found]).unsqueeze(1)).squeeze(1)

    def _next(self, count: int) -> Iterator[PreparedImages]:
        for _ in range(count):
            prepared = next(self._prepared)
            self.bad |= dict(prepared.bad)
            yield prepared

    def _features(self, prepared: PreparedImages) -> tuple[dict[str, Tensor], Tensor]:
        levels = prepared.levels.to(self._device, non_blocking=True)
        images = normalise(levels, self._recipe.mean, self._recipe.std)
        with arithmetic(self._device, self._precision):
            parts = compute_parts(self._loaded.backbone, images, self._wanted)
        labels = self._labels[torch.from_numpy(np.asarray(prepared.used))]
        return {name: part.float() for name, part in parts.items()}, labels.to(self._device)


def crop_recipe(loaded: LoadedBackbone, flip: bool) -> AugmentRecipe:
    """The published augmentation for a network of this input."""
    return AugmentRecipe(
        image_size=loaded.image_size,
        channels=loaded.channels,
        mean=tuple(loaded.mean),
        std=tuple(loaded.std),
        crop_scale=(0.08, 1.0),
        crop_aspect=(3 / 4, 4 / 3),
        interpolation="bilinear",
        flip_prob=0.5 if flip else 0.0,
        auto_augment="none",
        color_jitter=0.0,
        erase_prob=0.0,
        bits=loaded.bits,
    )


def _gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, in their order."""
    return distributed.gather_columns(rows.T.contiguous()).T
