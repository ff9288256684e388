"""Views and masks of one micro-batch, the same wherever they are made: main process or worker, any rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ibot_cli.core.batch import masked_entries
from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.changes import Changes, pack_changes
from ibot_cli.data.lent_memory import handed_over
from ibot_cli.data.picture import Picture
from ibot_cli.data.replacement import use_or_replace
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe, cut_views
from ibot_cli.data.workers import Key

Cut = tuple[list[Tensor], list[Changes]]


@dataclass(frozen=True)
class Prepared:
    """One micro-batch as it leaves a worker: levels, not numbers, because those are a quarter of the size.

    V global views, L local views, B images, N patches, M masked patches.

    Attributes:
        global_levels: uint8 or uint16 `[V, B, H, W, C]`.
        local_levels: The same type, `[L, B, h, w, C]`.
        global_changes: float32 `[V * B, COLUMNS]`, see `pack_changes`.
        local_changes: float32 `[L * B, COLUMNS]`.
        mask: bool `[V, B, N]`.
        mask_index: int64 `[M]`, see `Batch`.
        mask_weights: float32 `[M]`, see `Batch`.
        used: int64 `[B]`, the images really seen: those asked for, or their replacements.
        bad: (path, reason) of the unreadable files met.
    """

    global_levels: Tensor
    local_levels: Tensor
    global_changes: Tensor
    local_changes: Tensor
    mask: Tensor
    mask_index: Tensor
    mask_weights: Tensor
    used: np.ndarray
    bad: list[tuple[str, str]] = field(default_factory=list)

    def pin_memory(self) -> Prepared:
        """The same in page-locked memory, from which a CUDA device copies without making the host wait."""
        pinned: dict[str, Any] = {
            name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **pinned)


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
        used = np.empty(len(keys), dtype=np.int64)
        changes: list[list[Changes]] = []
        levels: tuple[Tensor, Tensor] | None = None
        views: list[np.ndarray] = []
        for row, (sample, visit) in enumerate(keys):
            (crops, changed), used[row] = use_or_replace(
                self.source,
                self.seed,
                sample,
                visit,
                partial(self._cut, sample, visit),
                failure="The views of {} cannot be made",
                limits=self.limits,
                bad=bad,
            )
            if levels is None:
                levels = self._room(len(keys), crops[0].dtype)
                views = [view.numpy() for view in (*levels[0], *levels[1])]  # less overhead for tiny views
            for view, crop in zip(views, crops, strict=True):
                view[row] = crop.numpy()
            changes.append(changed)
        assert levels is not None, "a micro-batch has images"
        mask = self._masks(keys)
        mask_index, mask_weights = masked_entries(mask)
        return Prepared(
            global_levels=levels[0],
            local_levels=levels[1],
            global_changes=_packed(changes, slice(self.recipe.num_global)),
            local_changes=_packed(changes, slice(self.recipe.num_global, None)),
            mask=mask,
            mask_index=mask_index,
            mask_weights=mask_weights,
            used=used,
            bad=list(bad.items()),
        )

    def _cut(self, sample: int, visit: int, picture: Picture) -> Cut:
        return cut_views(picture, self.recipe, stream(self.seed, sample, visit, "crops"))

    def _room(self, batch: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Where the global and the local crops of `batch` images are put."""
        recipe = self.recipe
        whole = (recipe.num_global, batch, recipe.global_size, recipe.global_size, recipe.channels)
        part = (recipe.num_local, batch, recipe.local_size, recipe.local_size, recipe.channels)
        return handed_over(whole, dtype), handed_over(part, dtype)

    def _masks(self, keys: Sequence[Key]) -> Tensor:
        """bool `[V, B, N]`."""
        grid = self.grid if self.masks is None else self.masks.grid
        masks = np.zeros((self.recipe.num_global, len(keys), grid, grid), dtype=bool)
        for row, (sample, visit) in enumerate(keys):
            if self.masks is not None and visit >= self.mask_start_epoch:
                rng = stream(self.seed, sample, visit, "mask")
                for view in range(self.recipe.num_global):
                    masks[view, row] = self.masks.draw(rng)
        return torch.from_numpy(masks.reshape(self.recipe.num_global, len(keys), grid * grid))


def _packed(changes: Sequence[Sequence[Changes]], part: slice) -> Tensor:
    """Changes of a part of the views, in the order of their levels: view by view."""
    return pack_changes([change for view in zip(*(row[part] for row in changes), strict=True) for change in view])
