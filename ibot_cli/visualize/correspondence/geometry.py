"""Where the patches of a view lie in its image, and which patch of another view shows the same spot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class ViewBox:
    """A view without rotation: a box of the source image, resized to a square, and perhaps mirrored.

    Attributes:
        left: Of the box, in source pixels; also the next three.
        top: Of the box.
        width: Of the box.
        height: Of the box.
        flip: Whether the view is mirrored from left to right.
    """

    left: float
    top: float
    width: float
    height: float
    flip: bool

    def centers(self, grid: int) -> NDArray[np.float64]:
        """The centres of the patches in source pixels, row by row.

        Args:
            grid: Patches per side.

        Returns:
            float64 `[grid * grid, 2]`: x, y.
        """
        middle = (np.arange(grid) + 0.5) / grid
        down, across = (part.ravel() for part in np.meshgrid(middle, middle, indexing="ij"))
        if self.flip:
            across = 1 - across
        return np.stack([self.left + across * self.width, self.top + down * self.height], axis=1)

    def patches_at(self, points: NDArray[np.float64], grid: int) -> NDArray[np.int64]:
        """The patch that shows each point of the source.

        Args:
            points: float64 `[n, 2]`: x, y in source pixels.
            grid: Patches per side.

        Returns:
            int64 `[n]`, places row by row; -1 where the point lies outside of the view.
        """
        across, down = (points[:, 0] - self.left) / self.width, (points[:, 1] - self.top) / self.height
        inside = (across >= 0) & (across < 1) & (down >= 0) & (down < 1)
        columns = np.floor(np.where(inside, across, 0) * grid).astype(np.int64)
        rows = np.floor(np.where(inside, down, 0) * grid).astype(np.int64)
        columns = grid - 1 - columns if self.flip else columns
        return np.where(inside, rows * grid + columns, -1)


def steps_apart(a: NDArray[np.int64], b: NDArray[np.int64], grid: int) -> NDArray[np.int64]:
    """Rows or columns between patches, whichever are more; 1 for the eight neighbours.

    Args:
        a: int64 `[n]`, places row by row.
        b: int64 `[n]`, as `a`.
        grid: Patches per side.

    Returns:
        int64 `[n]`.
    """
    apart: NDArray[np.int64] = np.maximum(np.abs(a // grid - b // grid), np.abs(a % grid - b % grid))
    return apart


def near_chance(patches: NDArray[np.int64], grid: int) -> NDArray[np.float64]:
    """How often a patch drawn at random is one of these or its neighbour.

    Args:
        patches: int64 `[n]`, places row by row.
        grid: Patches per side.

    Returns:
        float64 `[n]`; less at the edges, where there are fewer neighbours.
    """
    reach = np.minimum(np.arange(grid) + 1, grid - 1) - np.maximum(np.arange(grid) - 1, 0) + 1
    share: NDArray[np.float64] = reach[patches // grid] * reach[patches % grid] / grid**2
    return share
