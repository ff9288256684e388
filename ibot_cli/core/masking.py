"""Masks of global views: which patches the student does not see."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MIN_ASPECT = 0.3
ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class MaskSampler:
    """Draws one mask at a time, with the distribution of the authors' loader.

    Args:
        grid: Patches per side of a global view.
        kind: `block` (rectangles, from BEiT) or `random` (single patches).
        ratio: Share of patches to mask; with several entries one of them is chosen per view.
        ratio_var: Half width of the uniform range around each entry; one value serves all entries.

    Source:
        iBOT (arXiv 2111.07832), section 3.1 and the loader of the authors' code; blocks as in BEiT (2106.08254).
    """

    grid: int
    kind: str
    ratio: tuple[float, ...]
    ratio_var: tuple[float, ...]

    @property
    def largest(self) -> int:
        """The most patches that a mask may hide."""
        spread = self.ratio_var if len(self.ratio_var) == len(self.ratio) else self.ratio_var * len(self.ratio)
        ratio = max(r + max(v, 0) for r, v in zip(self.ratio, spread, strict=True))
        return min(math.floor(ratio * self.grid * self.grid + 1e-6), self.grid**2)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """One mask, bool `[grid, grid]`, True where the patch is hidden."""
        uniform = _uniforms(rng)
        # In the authors' order: 0.29 * 100 is just below 29, 0.29 * 10 * 10 is not.
        target = self._ratio(uniform) * self.grid * self.grid
        if self.kind == "random":
            mask = np.zeros(self.grid**2, dtype=bool)
            mask[: int(target)] = True
            return rng.permutation(mask).reshape(self.grid, self.grid)
        return _blocks(self.grid, target, uniform)

    def _ratio(self, uniform: Iterator[float]) -> float:
        """The masked share of this view; every entry draws, so that the entry's choice does not shift the others."""
        spread = self.ratio_var if len(self.ratio_var) == len(self.ratio) else self.ratio_var * len(self.ratio)
        drawn = [r - v + 2 * v * next(uniform) if v > 0 else r for r, v in zip(self.ratio, spread, strict=True)]
        return drawn[int(next(uniform) * len(drawn))] if len(drawn) > 1 else drawn[0]


def _uniforms(rng: np.random.Generator) -> Iterator[float]:
    """Endless uniform draws; taken in chunks because a call per number costs more than the mask itself."""
    while True:
        yield from rng.random(64).tolist()


def _blocks(grid: int, target: float, uniform: Iterator[float]) -> np.ndarray:
    """Rectangles until `target` patches are hidden or ten attempts in a row add nothing; never more than `target`.

    The mask is one integer with a bit per patch while it grows: counting in an array costs more than the drawing.
    """
    mask = count = 0
    smallest = (grid // 3) ** 2
    log_aspect = math.log(1 / MIN_ASPECT)
    while count < target:
        added = 0
        for _ in range(ATTEMPTS):
            area = smallest + (target - count - smallest) * next(uniform)
            aspect = math.exp(log_aspect * (2 * next(uniform) - 1))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= grid or width >= grid:
                continue
            top = int(next(uniform) * (grid - height + 1))
            left = int(next(uniform) * (grid - width + 1))
            block = _rows(grid, height) * ((1 << width) - 1) << (top * grid + left)
            new = height * width - (mask & block).bit_count()
            if 0 < new <= target - count:
                mask |= block
                added = new
                break
        if not added:
            break
        count += added
    return _as_array(mask, grid)


@lru_cache(maxsize=256)
def _rows(grid: int, height: int) -> int:
    """The first patch of each of `height` rows."""
    return sum(1 << (row * grid) for row in range(height))


def _as_array(mask: int, grid: int) -> np.ndarray:
    """bool `[grid, grid]` of an integer whose lowest bit is the first patch."""
    content = np.frombuffer(mask.to_bytes(-(-(grid**2) // 8), "little"), dtype=np.uint8)
    return np.unpackbits(content, count=grid**2, bitorder="little").view(bool).reshape(grid, grid)
