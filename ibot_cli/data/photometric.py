"""Flip, colour jitter, grey, blur, solarisation and normalisation of whole batches, on the training device.

Every view has its own parameters, and the jitter its own order. What happens to which view is known on the host, so
that nothing is ever read back from the device: views of the same operation are picked by index lists, which go up
together with the parameters in one copy.

Arithmetic is float32 in levels of 0..255 without rounding between operations: on the same parameters within 0.1 levels
of torchvision's operations on float images and the exact Gaussian. Pillow, which published code uses, cuts to whole
levels after each operation, keeps hue and saturation in bytes and blurs with boxes. On photographs it is away by 0.4
levels on average and 13 at most after a change of hue, 0.5 and 27 after a blur, 1.2 and 28 after the whole recipe;
results in bfloat16 are by 0.1 and 0.5. `benchmarks/photometric.py` measures both, and the time against torchvision,
kornia and Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.data.blur import TRUNCATE, blurred
from ibot_cli.data.changes import (
    BLUR_RADIUS,
    BRIGHTNESS,
    COLUMNS,
    CONTRAST,
    FLIP,
    GRAY,
    HUE,
    JITTER,
    NONE,
    SATURATION,
    SOLARIZE,
)

LUMA = (0.299, 0.587, 0.114)
TO_GRAY, MIRROR, INVERT, BLUR = 4, 5, 6, 7
REACH = 10
TINY = 1e-6
STAGES = 8
KINDS = 32
SORT_KEYS = [7, 0, 6, 5, 4, 3, 2, 1]
CHUNK = {"cpu": 2**18, "other": 2**26}


class Group(NamedTuple):
    """The views of one chunk that one operation changes at one place in the order.

    Attributes:
        chunk: Number of the chunk.
        operation: One of the jitter's, `TO_GRAY`, `MIRROR`, `INVERT`, or `BLUR` + k for a reach of `REACH` * 2**k.
        rows: Which views of the chunk: a range, or indices on the device.
        amounts: Factor, turns or sigma of each, `[k, 1, 1, 1]` on the device.
    """

    chunk: int
    operation: int
    rows: slice | Tensor
    amounts: Tensor


class Plan(NamedTuple):
    """What happens to a batch.

    Attributes:
        groups: Chunk by chunk, in order.
        order: The views of all chunks, `[n]` on the device, or None where they are taken as they come.
        luma: Shares of the channels in the grey level, `[C, 1, 1]` on the device.
        mean: Of the normalisation, after scaling to 0..1, `[C, 1, 1]`.
        std: Likewise.
    """

    groups: list[Group]
    order: Tensor | None
    luma: Tensor
    mean: Tensor
    std: Tensor


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

    Saturation, hue and grey are identities unless there are three channels. Contrast turns about the mean grey level of
    the view; the grey level of other than three channels is their average.

    Args:
        levels: uint8 or uint16 `[n, H, W, C]`, on any device.
        changes: float32 `[n, COLUMNS]` on the CPU, of `pack_changes`.
        threshold: Of solarisation, in levels of 0..255 (also for uint16, whose 65535 is 255 here).
        mean: Per channel, after scaling to 0..1.
        std: Per channel.
        dtype: Of the result; the arithmetic is float32.

    Returns:
        `[n, C, H, W]` on the device of `levels`, contiguous. A view does not depend on the others.
    """
    num, height, width, channels = levels.shape
    if changes.shape != (num, COLUMNS):
        raise ValueError(f"{num} views need changes of {num} x {COLUMNS}, not {tuple(changes.shape)}")
    out = torch.empty((num, channels, height, width), dtype=dtype, device=levels.device)
    luma = LUMA if channels == 3 else (1 / channels,) * channels
    per_channel = [*luma, *mean, *std]
    step = max(CHUNK["cpu" if levels.device.type == "cpu" else "other"] // max(height * width * channels, 1), 1)
    plan = _plan(*_stages(changes.numpy(), channels == 3), step, per_channel, levels.device)
    waiting = iter(plan.groups)
    following = next(waiting, None)
    for chunk, first in enumerate(range(0, num, step)):
        part = slice(first, first + step)
        picked = levels[part] if plan.order is None else levels.index_select(0, plan.order[part])
        values = torch.empty_like(out[part], dtype=torch.float32).copy_(picked.movedim(-1, 1))
        if levels.dtype == torch.uint16:
            values.div_(257)
        while following is not None and following.chunk == chunk:
            _change(values, following, plan.luma, threshold)
            following = next(waiting, None)
        values.div_(255).sub_(plan.mean)  # in the order of `normalise`: unchanged views have its very bits
        if plan.order is None:
            torch.div(values, plan.std, out=out[part])
        else:
            out.index_copy_(0, plan.order[part], values.div_(plan.std).to(dtype))
    return out


def change_levels(levels: Tensor, changes: Tensor, *, threshold: int) -> Tensor:
    """The changed views as levels, not normalised.

    Args:
        levels: As for `finish_views`.
        changes: As for `finish_views`.
        threshold: Of solarisation.

    Returns:
        `[n, H, W, C]` of the type of `levels`.
    """
    channels, most = levels.shape[-1], torch.iinfo(levels.dtype).max
    changed = finish_views(levels, changes, threshold=threshold, mean=(0.0,) * channels, std=(1 / most,) * channels)
    return changed.round_().to(levels.dtype).movedim(1, -1).contiguous()


def _stages(changes: NDArray[np.float32], colour: bool) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The operation of each view at each place of the order, or `NONE`, and its amount; `[STAGES, n]` each."""
    stages = np.full((STAGES, len(changes)), NONE, dtype=np.float32)
    amounts = np.zeros_like(stages)
    jitter, radius = changes[:, JITTER].T, changes[:, BLUR_RADIUS]
    stages[0, changes[:, FLIP] > 0] = MIRROR
    stages[1:5], amounts[1:5] = jitter[::2], jitter[1::2]
    stages[5, changes[:, GRAY] > 0] = TO_GRAY
    if not colour:
        stages[(stages == SATURATION) | (stages == HUE) | (stages == TO_GRAY)] = NONE
    reach = np.ceil(np.log2(np.maximum(TRUNCATE * radius / REACH, 1)))
    stages[6], amounts[6] = np.where(radius > 0, BLUR + reach, NONE), radius
    stages[7, changes[:, SOLARIZE] > 0] = INVERT
    return stages, amounts


def _plan(
    stages: NDArray[np.float32],
    amounts: NDArray[np.float32],
    step: int,
    per_channel: Sequence[float],
    device: torch.device,
) -> Plan:
    """All that the device must know reaches it in one copy."""
    num = stages.shape[1]
    sort = 1 < step < num
    order = np.lexsort(stages[SORT_KEYS]) if sort else np.arange(num)
    stages, amounts = stages[:, order], amounts[:, order]
    places, views = np.nonzero(stages != NONE)
    keys = (views // step * STAGES + places) * KINDS + stages[places, views].astype(np.int64)
    by_key = np.argsort(keys, kind="stable")
    keys, places, views, total = keys[by_key], places[by_key], views[by_key], len(keys)
    rows = views % step
    numbers = (rows, amounts[places, views], order, per_channel)
    sent = _sent(torch.from_numpy(np.concatenate(numbers, dtype=np.float32)), device)
    indices, factors, ordered, constants = sent.split((total, total, num, len(per_channel)))
    indices, factors = indices.long(), factors.view(-1, 1, 1, 1)
    starts = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
    groups = []
    for start, stop in pairwise((*starts, total)):
        first, last = rows[start].item(), rows[stop - 1].item()
        picked = slice(first, last + 1) if last - first == stop - start - 1 else indices[start:stop]
        chunk, operation = divmod(keys[start].item(), STAGES * KINDS)
        groups.append(Group(chunk, operation % KINDS, picked, factors[start:stop]))
    return Plan(groups, ordered.long() if sort else None, *constants.view(3, -1, 1, 1))


def _sent(numbers: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)


def _change(values: Tensor, group: Group, luma: Tensor, threshold: int) -> None:
    """Apply one operation to the rows of a chunk, in place."""
    _, operation, rows, amounts = group
    part = values[rows] if isinstance(rows, slice) else values.index_select(0, rows)
    if operation >= BLUR:
        changed = blurred(part, amounts.flatten(), REACH << operation - BLUR)
    elif operation == INVERT:
        changed = _inverted(part, threshold)
    else:
        changed = OPERATIONS[operation](part, amounts, luma)
    if not isinstance(rows, slice):
        values.index_copy_(0, rows, changed)
    elif changed is not part:
        part.copy_(changed)


def _brightness(values: Tensor, factors: Tensor, luma: Tensor) -> Tensor:
    return values.mul_(factors).clamp_(max=255)


def _contrast(values: Tensor, factors: Tensor, luma: Tensor) -> Tensor:
    # line by line: a sum of all pixels of a single view would depend on the number of threads
    mean = (values.mean(3, keepdim=True).mean(2, keepdim=True) * luma).sum(1, keepdim=True)
    return values.mul_(factors).add_(mean * (1 - factors)).clamp_(0, 255)


def _saturation(values: Tensor, factors: Tensor, luma: Tensor) -> Tensor:
    return torch.lerp(_gray(values, luma), values, factors, out=values).clamp_(0, 255)


def _gray(values: Tensor, luma: Tensor) -> Tensor:
    gray = values[:, :1] * luma[0]
    return gray.add_(values[:, 1:2] * luma[1]).add_(values[:, 2:] * luma[2])


def _to_gray(values: Tensor, amounts: Tensor, luma: Tensor) -> Tensor:
    return values.copy_(_gray(values, luma))


def _mirror(values: Tensor, amounts: Tensor, luma: Tensor) -> Tensor:
    return values.flip(-1)


def _hue(values: Tensor, turns: Tensor, luma: Tensor) -> Tensor:
    """The hue in sixths, counted from cyan, is 2 + (R - G - B + min) / (max - min), with the sign of B - G.

    Each channel then is the maximum, less a part of the spread that grows with the way from that channel's own hue.
    """
    red, green, blue = values.split(1, dim=1)
    most = torch.maximum(red, green)
    torch.maximum(most, blue, out=most)
    least = torch.minimum(red, green)
    torch.minimum(least, blue, out=least)
    spread = most - least
    hue = (red - green).sub_(blue).add_(least).div_(spread.clamp_(min=TINY)).add_(2)
    hue.copysign_(torch.sub(blue, green, out=least)).div_(6).add_(turns + 1.5).frac_().sub_(0.5).mul_(6)
    away = torch.abs(hue, out=least).sub_(2).clamp_(-1, 0)
    torch.addcmul(most, away, spread, out=red)
    for channel, step in ((green, 1), (blue, -1)):
        torch.add(hue, step, out=away).abs_().sub_(1).clamp_(0, 1)
        torch.addcmul(most, away, spread, value=-1, out=channel)
    return values


def _inverted(values: Tensor, threshold: int) -> Tensor:
    """255 - v where v is at or above the threshold, without a branch."""
    sign = values.sub(threshold).sign_().add_(0.5).sign_()
    return values.sub_(127.5).mul_(sign).neg_().add_(127.5)


OPERATIONS: dict[int, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    BRIGHTNESS: _brightness,
    CONTRAST: _contrast,
    SATURATION: _saturation,
    HUE: _hue,
    TO_GRAY: _to_gray,
    MIRROR: _mirror,
}
