"""The Gaussian blur of many views, each with its own width, as two matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 64
TRUNCATE = 5.0


def blurred(values: Tensor, sigmas: Tensor, reach: int) -> Tensor:
    """Gaussian blur, with the outermost pixels repeated beyond the edges as Pillow has it.

    Rows and columns are multiplied with band matrices, in tiles so that the work grows with the number of pixels. On
    one core that is as fast as adding shifted copies at 224 pixels, and faster for smaller views; on a GPU it is the
    form that the hardware is made for.

    Args:
        values: float32 `[n, C, H, W]`.
        sigmas: Standard deviations in pixels, above 0, `[n]`.
        reach: At least `TRUNCATE` times the largest of `sigmas`; an argument, because the device is not asked.

    Returns:
        Of the shape of `values`: the sampled Gaussian, cut at `TRUNCATE` sigmas, which is within 0.01 of 255 levels of
        the complete one.
    """
    height, width = values.shape[-2:]
    rows = _bands(sigmas, height, reach)
    columns = rows if height == width else _bands(sigmas, width, reach)
    return _down(rows, _across(values, columns, reach), reach)


def _bands(sigmas: Tensor, size: int, reach: int) -> Tensor:
    """Matrices that blur a line of pixels, `[n, size, size]`; weights beyond an end belong to the pixel there."""
    far = size + reach
    steps = torch.arange(-far, far + 1, dtype=torch.float32, device=sigmas.device) / sigmas[:, None]
    # what underflows to subnormal numbers would make the products many times slower
    weights = steps.square().mul_(-0.5).exp_().mul_(steps.abs_() <= TRUNCATE)
    weights /= weights.sum(1, keepdim=True)
    bands = weights[:, reach + 1 : -reach - 1].unfold(1, size, 1).flip(1)
    beyond = weights.cumsum(1)[:, reach : reach + size]
    bands[:, :, -1].add_(beyond)
    bands[:, :, 0].add_(beyond.flip(1))
    return bands


def _tiles(size: int, reach: int) -> list[tuple[slice, slice]]:
    """Parts of a line and what each is made from; the same for a view whatever its neighbours are."""
    step = TILE if size > 2 * TILE else size
    firsts = range(0, size, step)
    return [(slice(a, a + step), slice(max(a - reach, 0), min(a + step + reach, size))) for a in firsts]


def _across(values: Tensor, bands: Tensor, reach: int) -> Tensor:
    lines, out = values.flatten(1, 2), torch.empty_like(values)
    for into, source in _tiles(values.shape[-1], reach):
        torch.bmm(lines[:, :, source], bands[:, into, source].mT, out=out.flatten(1, 2)[:, :, into])
    return out


def _down(bands: Tensor, values: Tensor, reach: int) -> Tensor:
    out = torch.empty_like(values)
    for into, source in _tiles(values.shape[-2], reach):
        torch.matmul(bands[:, None, into, source], values[:, :, source], out=out[:, :, into])
    return out
