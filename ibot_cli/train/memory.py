"""How much memory a training step needs, found by running it on tensors that have shapes but no data."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ibot_cli.config.schema import Config
from ibot_cli.core.batch import Batch
from ibot_cli.core.objective import Now
from ibot_cli.train.build import masks_of, objective_of, optimizer_of
from ibot_cli.train.step import StepSettings, train_step


class AllocationMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, and their largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs the operation and takes note of the storages in its result."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes of tensors in one process.

    Attributes:
        peak: Largest sum during a step.
        resident: What stays between steps: weights of both networks, moments, batches.
    """

    peak: int
    resident: int


def estimate_step(
    config: Config, micro_batch_size: int, dtype: torch.dtype | None, micro_batches: int = 1
) -> MemoryEstimate:
    """Memory of a training step, without computing anything.

    Args:
        config: Resolved, at least in everything that decides a shape.
        micro_batch_size: Images per forward pass.
        dtype: What the networks' products are computed in under autocast, None for no autocast.
        micro_batches: Forward passes per update, at most 2 matter.

    Returns:
        Two steps are followed, so that the optimiser's moments are there.
    """
    with torch.device("meta"):
        objective = objective_of(config)
    with FakeTensorMode(allow_non_fake_inputs=True), AllocationMeter() as meter:
        objective.to_empty(device="cpu")
        optimizer = optimizer_of(objective, config)
        settings = StepSettings(
            clip_grad=config.optim.clip_grad,
            clip_mode=config.optim.clip_mode,
            dtype=dtype,
            average_over_ranks=lambda tensors: None,
        )
        now = Now(
            lr=1e-4,
            weight_decay=0.1,
            teacher_temp=0.04,
            teacher_patch_temp=0.04,
            teacher_momentum=0.99,
            freeze_prototypes=False,
        )
        batches = [_batch(config, micro_batch_size, objective.student.backbone.num_blocks)] * min(micro_batches, 2)
        for _ in range(2):
            train_step(objective, optimizer, batches, now, settings)
        return MemoryEstimate(peak=meter.peak, resident=meter.live)


def _batch(config: Config, images: int, num_blocks: int) -> Batch:
    """A batch of the right shapes, masked as much as the configuration masks on average."""
    views, channels = config.views, config.data.channels
    sampler = masks_of(config)
    patches = 1 if sampler is None else sampler.grid**2
    share = 0.0 if sampler is None else sum(config.mask.ratio) / len(config.mask.ratio)
    masked = round(share * patches * views.num_global * images)
    return Batch(
        global_views=torch.empty(views.num_global, images, channels, views.global_size, views.global_size),
        local_views=torch.empty(views.num_local, images, channels, views.local_size, views.local_size),
        mask=torch.empty(views.num_global, images, patches, dtype=torch.bool),
        mask_index=torch.empty(masked, dtype=torch.int64),
        mask_weights=torch.empty(masked),
        drop_path=torch.empty(num_blocks, 2, views.num_global + views.num_local, images)
        if config.model.drop_path > 0
        else None,
    )
