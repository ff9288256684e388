"""Views and masks of one micro-batch, the same wherever they are made: main process or worker, any rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.photometric import Changes
from ibot_cli.data.picture import Picture
from ibot_cli.data.replacement import use_or_replace
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe, draw_crops, finish_views
from ibot_cli.data.workers import Key


@dataclass(frozen=True)
class Prepared:
    """One micro-batch as it leaves a worker: levels, not numbers, because those are a quarter of the size.

    Attributes:
        global_levels: uint8 `[B, V, H, W, C]`.
        local_levels: uint8 `[B, L, h, w, C]`.
        mask: bool `[B, V, N]`.
        used: int64 `[B]`, the images really seen: those asked for, or their replacements.
        bad: (path, reason) of the unreadable files met.
    """

    global_levels: Tensor
    local_levels: Tensor
    mask: Tensor
    used: np.ndarray
    bad: list[tuple[str, str]] = field(default_factory=list)

    def pin_memory(self) -> Prepared:
        """The same in page-locked memory; torch's loader calls it for CUDA."""
        return replace(self, global_levels=self.global_levels.pin_memory(), local_levels=self.local_levels.pin_memory())


@dataclass(frozen=True)
class Assembler:
    """Makes micro-batches from keys.

    Attributes:
        source: The images.
        recipe: The views.
        masks: Draws the masks, or None for none.
        grid: Patches per side when `masks` is None.
        seed: Of the run.
        mask_start_epoch: Visits before this one are not masked.
        limits: How many unreadable files one sample may meet before giving up.
    """

    source: Source
    recipe: ViewRecipe
    masks: MaskSampler | None
    grid: int
    seed: int
    mask_start_epoch: int
    limits: BadLimits

    def __call__(self, keys: Sequence[Key]) -> Prepared:
        """The micro-batch of (sample, visit) keys.

        Raises:
            DataError: Too many files are unreadable, or an image could not be processed.
        """
        bad: dict[str, str] = {}
        used, crops, changes = [], [], []
        for sample, visit in keys:
            drawn, index = use_or_replace(
                self.source,
                self.seed,
                sample,
                visit,
                partial(self._crops, sample, visit),
                failure="The views of {} cannot be made",
                limits=self.limits,
                bad=bad,
            )
            used.append(index)
            crops.append(drawn[0])
            changes.append(drawn[1])
        levels = []
        for part in (slice(0, self.recipe.num_global), slice(self.recipe.num_global, None)):
            flat_crops = [crop for views in crops for crop in views[part]]
            flat_changes = [change for views in changes for change in views[part]]
            levels.append(self._levels(flat_crops, flat_changes, len(keys)))
        return Prepared(levels[0], levels[1], self._masks(keys), np.array(used, dtype=np.int64), list(bad.items()))

    def _crops(self, sample: int, visit: int, picture: Picture) -> tuple[list[Image.Image], list[Changes]]:
        return draw_crops(picture.image(), self.recipe, stream(self.seed, sample, visit, "crops"))

    def _levels(self, crops: list[Image.Image], changes: list[Changes], batch: int) -> Tensor:
        if not crops:
            size = self.recipe.local_size
            return torch.empty((batch, 0, size, size, self.recipe.channels), dtype=torch.uint8)
        levels = finish_views(crops, changes, self.recipe.solarize_threshold)
        return torch.from_numpy(levels.reshape(batch, -1, *levels.shape[1:]))

    def _masks(self, keys: Sequence[Key]) -> Tensor:
        """bool `[B, V, N]`."""
        grid = self.grid if self.masks is None else self.masks.grid
        masks = np.zeros((len(keys), self.recipe.num_global, grid, grid), dtype=bool)
        for row, (sample, visit) in enumerate(keys):
            if self.masks is not None and visit >= self.mask_start_epoch:
                rng = stream(self.seed, sample, visit, "mask")
                for view in range(self.recipe.num_global):
                    masks[row, view] = self.masks.draw(rng)
        return torch.from_numpy(masks.reshape(len(keys), self.recipe.num_global, grid * grid))
