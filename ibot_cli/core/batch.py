"""The views and masks of one forward pass.

Shapes: V global views, L local views, B images, N patches, M masked patches in the batch, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional


def masked_entries(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Where a mask is True and what each such patch counts; made where the mask is, usually on the CPU.

    Args:
        mask: bool `[V, B, N]`.

    Returns:
        `mask_index` and `mask_weights` of `Batch`.
    """
    count = mask.sum(-1, keepdim=True).clamp(min=1)
    views = mask.shape[0] * mask.shape[1]
    weights = (1.0 / (count * views)).expand(mask.shape)
    return mask.flatten().nonzero().flatten(), weights[mask].to(torch.float32)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch.

    Attributes:
        global_views: `[V, B, C, H, W]`, normalised float32, or the type that the networks compute in.
        local_views: `[L, B, C, h, w]`; L may be 0.
        mask: bool `[V, B, N]`, True where the student sees the mask token.
        mask_index: int64 `[M]`, positions of the masked patches in the flattened `[V * B * N]`, ascending; 0 for
            padding.
        mask_weights: float32 `[M]`, `1 / (masked patches of that view * V * B)`, and 0 for padding only; V * B counts
            all image views, so a view without masked patches counts 0 (the per-image average of the authors' code).
        drop_path: float32 `[depth, 2, V + L, B]`, factors of the student's residual branches, or None for no drop.
    """

    global_views: Tensor
    local_views: Tensor
    mask: Tensor
    mask_index: Tensor
    mask_weights: Tensor
    drop_path: Tensor | None = None

    @classmethod
    def make(cls, global_views: Tensor, local_views: Tensor, mask: Tensor, drop_path: Tensor | None = None) -> Batch:
        """A batch with index and weights computed from `mask`; done where the mask is, usually on the CPU."""
        index, weights = masked_entries(mask)
        return cls(
            global_views=global_views,
            local_views=local_views,
            mask=mask,
            mask_index=index,
            mask_weights=weights,
            drop_path=drop_path,
        )

    @property
    def num_images(self) -> int:
        """B."""
        return self.global_views.shape[1]

    def with_drop_path(self, drop_path: Tensor | None) -> Batch:
        """The same batch with the factors of this step."""
        return replace(self, drop_path=drop_path)

    def padded(self, size: int) -> Batch:
        """The same batch with `size` entries of masked patches; those that are added count nothing.

        Raises:
            ValueError: There are more already.
        """
        missing = size - len(self.mask_index)
        if missing < 0:
            raise ValueError(f"{len(self.mask_index)} masked patches are more than {size}")
        if not missing:
            return self
        index, weights = (functional.pad(x, (0, missing)) for x in (self.mask_index, self.mask_weights))
        return replace(self, mask_index=index, mask_weights=weights)

    def to(self, device: torch.device) -> Batch:
        """The batch on `device`; copies from pinned memory do not block."""
        moved = {
            name: value.to(device, non_blocking=True) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Batch(**moved)
