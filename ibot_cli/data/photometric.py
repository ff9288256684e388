"""Flip, colour jitter, grey, blur, solarisation and normalisation of whole batches, on the training device.

Every view has its own parameters. What happens to which view is known on the host, so that nothing is read back from
the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ibot_cli.data.changes import (  # noqa: F401
    BLUR_RADIUS,
    BRIGHTNESS,
    CONTRAST,
    FLIP,
    GRAY,
    HUE,
    JITTER,
    NUM_DRAWS,
    SATURATION,
    SOLARIZE,
    Changes,
    Strengths,
    draw_changes,
)
from ibot_cli.data.gray import apply_changes  # noqa: F401

LUMA = (0.299, 0.587, 0.114)


def finish_views(
    levels: Tensor,
    changes: Tensor,
    *,
    threshold: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Change and normalise views of one size.

    Args:
        levels: uint8 or uint16 `[n, H, W, C]`, on any device.
        changes: float32 `[n, COLUMNS]` on the CPU, of `pack_changes`.
        threshold: Of solarisation, in levels of 0..255.
        mean: Per channel, after scaling to 0..1.
        std: Per channel.
        dtype: Of the result; the arithmetic is float32.

    Returns:
        `[n, C, H, W]` on the device of `levels`, contiguous.
    """
    values = levels.to(torch.float32).movedim(-1, 1).contiguous()
    if levels.dtype == torch.uint16:
        values /= 257
    for index, row in enumerate(changes.tolist()):
        values[index] = _changed(values[index], row, threshold)
    center = torch.tensor(mean, device=values.device).view(-1, 1, 1)
    spread = torch.tensor(std, device=values.device).view(-1, 1, 1)
    return values.div_(255).sub_(center).div_(spread).to(dtype)


def _changed(values: Tensor, row: Sequence[float], threshold: int) -> Tensor:
    colour = len(values) == 3
    if row[FLIP]:
        values = values.flip(-1)
    jitter = row[JITTER]
    for op, factor in zip(jitter[::2], jitter[1::2], strict=True):
        if op == BRIGHTNESS:
            values = (values * factor).clamp(0, 255)
        elif op == CONTRAST:
            base = (_gray(values) if colour else values).mean()
            values = (values * factor + base * (1 - factor)).clamp(0, 255)
        elif op == SATURATION and colour:
            values = (values * factor + _gray(values) * (1 - factor)).clamp(0, 255)
        elif op == HUE and colour:
            values = _hue(values, factor)
    if row[GRAY] and colour:
        values = _gray(values).expand(3, -1, -1)
    if row[BLUR_RADIUS]:
        values = _blur(_blur(values, row[BLUR_RADIUS], -1), row[BLUR_RADIUS], -2)
    return torch.where(values >= threshold, 255 - values, values) if row[SOLARIZE] else values


def _gray(values: Tensor) -> Tensor:
    return (values * torch.tensor(LUMA, device=values.device).view(3, 1, 1)).sum(0, keepdim=True)


def _hue(values: Tensor, turns: float) -> Tensor:
    red, green, blue = values
    most, least = values.amax(0), values.amin(0)
    spread = (most - least).clamp(min=1e-6)
    other = torch.where(most == green, 2 + (blue - red) / spread, 4 + (red - green) / spread)
    hue = torch.where(most == red, (green - blue) / spread, other) + 6 * turns
    places = ((offset + hue) % 6 for offset in (5, 3, 1))
    return torch.stack([most - (most - least) * torch.minimum(k, 4 - k).clamp(0, 1) for k in places])


def _blur(values: Tensor, radius: float, dim: int) -> Tensor:
    size = values.shape[dim]
    places = torch.arange(size, device=values.device)
    blurred = torch.zeros_like(values)
    total = 0.0
    for step in range(-int(4 * radius + 1), int(4 * radius + 1) + 1):
        weight = float(torch.exp(torch.tensor(-0.5 * (step / radius) ** 2)))
        blurred += weight * values.index_select(dim, (places + step).clamp(0, size - 1))
        total += weight
    return blurred / total
