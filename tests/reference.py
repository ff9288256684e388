"""The method written a second time: slow, loop by loop, from the papers' formulas, as an oracle for the tests.

Nothing here imports `ibot_cli`. Tensors are float64 unless the caller passes something else. Shapes: V global views,
L local views, B images, N patches, K prototypes, R rows.
"""

from __future__ import annotations

import math
import random

import numpy as np
import torch
from torch import Tensor


def softmax(row: Tensor) -> Tensor:
    """Of one row `[K]`."""
    powers = torch.exp(row - row.max())
    return powers / powers.sum()


def cross_entropy(target: Tensor, row: Tensor, temp: float) -> Tensor:
    """Between one distribution `[K]` and one row of scores `[K]`."""
    return -(target * torch.log(softmax(row / temp))).sum()


def centered(logits: Tensor, center: Tensor, temp: float) -> Tensor:
    """Teacher distributions, row by row; `[..., K]`."""
    flat = logits.reshape(-1, logits.shape[-1])
    rows = [softmax((row - center.reshape(-1)) / temp) for row in flat]
    return torch.stack(rows).reshape(logits.shape)


def cls_loss(target: Tensor, logits: Tensor, temp: float) -> Tensor:
    """L_CLS over all ordered pairs of a teacher view and another student view; `[V, B, K]` and `[V + L, B, K]`."""
    total, pairs = torch.zeros((), dtype=logits.dtype), 0
    for q in range(target.shape[0]):
        for v in range(logits.shape[0]):
            if v == q:
                continue
            images = [cross_entropy(target[q, b], logits[v, b], temp) for b in range(target.shape[1])]
            total = total + sum(images) / len(images)
            pairs += 1
    return total / pairs


def mim_loss(target: Tensor, logits: Tensor, mask: Tensor, temp: float) -> Tensor:
    """L_MIM: per image view the mean over its masked patches, then the mean over images and views; `[V, B, N, K]`."""
    total = torch.zeros((), dtype=logits.dtype)
    views, images, patches = mask.shape
    for q in range(views):
        for b in range(images):
            terms = [cross_entropy(target[q, b, n], logits[q, b, n], temp) for n in range(patches) if mask[q, b, n]]
            if terms:
                total = total + sum(terms) / len(terms)
    return total / (views * images)


def moved_center(center: Tensor, rows: Tensor, momentum: float) -> Tensor:
    """The centre after one update from the raw scores `[R, K]`."""
    mean = torch.zeros_like(rows[0])
    for row in rows:
        mean = mean + row / len(rows)
    return momentum * center + (1 - momentum) * mean


def sinkhorn(logits: Tensor, temp: float, iterations: int) -> Tensor:
    """Alternate scaling of columns to equal sums and rows to sums of one, entry by entry; `[R, K]`."""
    rows, columns = logits.shape
    table = [[math.exp((float(x) - float(row.max())) / temp) for x in row] for row in logits]
    for _ in range(iterations):
        for k in range(columns):
            total = sum(table[r][k] for r in range(rows))
            for r in range(rows):
                table[r][k] = table[r][k] / total / columns if total else 0.0
        for r in range(rows):
            total = sum(table[r])
            table[r] = [x / total for x in table[r]]
    return torch.tensor(table, dtype=torch.float64)


def cosine_table(base: float, final: float, epochs: int, steps: int, warmup_epochs: int = 0) -> np.ndarray:
    """One value per step: a line from 0 to `base`, then half a cosine to `final`."""
    warmup = np.linspace(0, base, warmup_epochs * steps)
    count = epochs * steps - len(warmup)
    rest = [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / count)) for i in range(count)]
    return np.concatenate([warmup, rest])


def temp_table(start: float, final: float, warmup_epochs: int, epochs: int, start_epoch: int = 0) -> np.ndarray:
    """One temperature per epoch: held until `start_epoch`, a line, then constant."""
    held, line = np.full(start_epoch, start), np.linspace(start, final, warmup_epochs)
    return np.concatenate([held, line, np.full(epochs - start_epoch - warmup_epochs, final)])


def mask_ratio(rng: random.Random, ratio: list[float], var: list[float]) -> float:
    """The masked share of one view: a candidate per entry, then one of them."""
    drawn = [rng.uniform(r - v, r + v) if v > 0 else r for r, v in zip(ratio, var, strict=True)]
    return rng.choice(drawn)


def block_mask(rng: random.Random, grid: int, high: float) -> np.ndarray:
    """Rectangles as section 1.5 describes them; bool `[grid, grid]`."""
    mask = np.zeros((grid, grid), dtype=bool)
    low = (grid // 3) ** 2
    while mask.sum() < high:
        rest = high - mask.sum()
        for _ in range(10):
            area = rng.uniform(low, rest)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if width >= grid or height >= grid:
                continue
            top, left = rng.randint(0, grid - height), rng.randint(0, grid - width)
            trial = mask.copy()
            for y in range(top, top + height):
                for x in range(left, left + width):
                    trial[y, x] = True
            if 0 < trial.sum() - mask.sum() <= rest:
                mask = trial
                break
        else:
            return mask
    return mask


def _cubic(distance: float) -> float:
    """Weight of a sample at `distance`, the bicubic kernel with a = -0.75."""
    x, a = abs(distance), -0.75
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    if x < 2:
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return 0.0


def _resample_matrix(native: int, size: int) -> Tensor:
    """`[size, native]` weights for a scale of `(size + 0.1) / native`; samples outside repeat the border."""
    scale = (size + 0.1) / native
    weights = torch.zeros(size, native, dtype=torch.float64)
    for target in range(size):
        source = (target + 0.5) / scale - 0.5
        first = math.floor(source) - 1
        for index in range(first, first + 4):
            weights[target, min(max(index, 0), native - 1)] += _cubic(source - index)
    return weights


def positions(pos_embed: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings `[1, 1 + N, D]` resampled bicubically, 0.1 added to the wanted size before scaling."""
    native = math.isqrt(pos_embed.shape[1] - 1)
    if (rows, columns) == (native, native):
        return pos_embed
    grid = pos_embed[0, 1:].double().reshape(native, native, -1)
    resized = torch.einsum("yi,xj,ijd->yxd", _resample_matrix(native, rows), _resample_matrix(native, columns), grid)
    return torch.cat([pos_embed[0, :1].double(), resized.flatten(0, 1)])[None]


def koleo(features: Tensor) -> Tensor:
    """DINOv2's term of `[V, B, D]`, pair by pair: minus the mean log distance to the nearest image, over views."""
    total = torch.zeros((), dtype=features.dtype)
    for view in features:
        points = [row / row.norm() for row in view]
        for i, point in enumerate(points):
            distances = torch.stack([(point - other).norm() for j, other in enumerate(points) if j != i])
            total = total - torch.log(distances.min()) / len(points)
    return total
