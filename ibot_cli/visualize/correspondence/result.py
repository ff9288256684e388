"""Matches of patches, as they are listed and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ibot_cli.quantities import counted
from ibot_cli.visualize.correspondence.accuracy import Chance, MatchAccuracy
from ibot_cli.visualize.correspondence.geometry import ViewBox
from ibot_cli.visualize.correspondence.matching import Nearest

Spot = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Match:
    """Two patches that are each other's nearest.

    Attributes:
        cosine: Of their features.
        first: Row and column in the first image's grid.
        second: Row and column in the second one's.
        first_point: Centre of the first patch: x, y in pixels of its source image.
        second_point: Of the second patch.
        steps: Rows or columns, whichever are more, between the second patch and the right one; None where the right
            one is not known.
    """

    cosine: float
    first: tuple[int, int]
    second: tuple[int, int]
    first_point: Spot
    second_point: Spot
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class ImageMatches:
    """Two images.

    Attributes:
        weights: What matched them.
        weights_hash: sha256 of its tensors.
        images: Their paths.
        sizes: Width and height of each in pixels.
        grids: Rows and columns of patches of each.
        seen: What the network saw of each: left, top, right, bottom in source pixels.
        matches: All patches that are each other's nearest, highest cosine first.
    """

    weights: str
    weights_hash: str
    images: tuple[str, str]
    sizes: tuple[tuple[int, int], tuple[int, int]]
    grids: tuple[tuple[int, int], tuple[int, int]]
    seen: tuple[tuple[float, float, float, float], tuple[float, float, float, float]]
    matches: tuple[Match, ...]


@dataclass(frozen=True, kw_only=True)
class PairMatches:
    """Two views of one image.

    Attributes:
        path: The image.
        index: Its place in DATA.
        boxes: The views.
        num_queries: Patches of the first view whose centre lies in the second.
        num_right: Those whose nearest patch is the right one.
        num_within_1: Those whose nearest patch is the right one or its neighbour.
        matches: All mutual matches, highest cosine first; only of the pairs that are drawn.
    """

    path: str
    index: int
    boxes: tuple[ViewBox, ViewBox]
    num_queries: int
    num_right: int
    num_within_1: int
    matches: tuple[Match, ...] | None


@dataclass(frozen=True, kw_only=True)
class Correspondence:
    """Matching between two views of the same image, scored by the known geometry.

    Attributes:
        weights: What matched.
        weights_hash: sha256 of its tensors.
        data: DATA as given, or the image.
        source: The same with the part that was used.
        fingerprint: sha256 of the images.
        num_images: Images that were used.
        num_pairs: Pairs of views of each.
        num_queries: Patches that were looked up, over all pairs.
        size: Side of a view in pixels.
        grid: Patches per side.
        scale: Range of a crop's area, as a share of the largest crop that fits.
        changes: What may happen to a view beside the crop, in words.
        seed: Of views, random weights and intervals.
        trained: The network.
        random: The same with random weights, one per seed; empty when not asked for.
        chance: What needs no network.
        pairs: Every pair.
        unreadable: Reason by path.
    """

    weights: str
    weights_hash: str
    data: str
    source: str
    fingerprint: str
    num_images: int
    num_pairs: int
    num_queries: int
    size: int
    grid: int
    scale: tuple[float, float]
    changes: str
    seed: int
    trained: MatchAccuracy
    random: tuple[MatchAccuracy, ...]
    chance: Chance
    pairs: tuple[PairMatches, ...]
    unreadable: Mapping[str, str]

    def views_in_words(self) -> str:
        """How many pairs of views there are, of how many images."""
        images = "1 image" if self.num_images == 1 else f"each of {self.num_images:,} images"
        return f"{counted(self.num_pairs, 'pair')} of views of {images}"

    def figures(self) -> Correspondence:
        """The same without its pairs, which nobody reads in the records of a run."""
        return replace(self, pairs=())


def mutual_matches(
    found: Nearest,
    grids: tuple[tuple[int, int], tuple[int, int]],
    points: tuple[NDArray[np.float64], NDArray[np.float64]],
    steps: Sequence[int | None] | None = None,
) -> tuple[Match, ...]:
    """The mutual matches, highest cosine first.

    Args:
        found: Of the two images.
        grids: Rows and columns of each.
        points: Centres of all patches of each, float64 `[N, 2]` and `[M, 2]`.
        steps: Per patch of the first image, see `Match`.
    """
    order = np.argsort(-found.cosine, kind="stable")
    return tuple(
        Match(
            cosine=float(found.cosine[place]),
            first=_cell(place, grids[0]),
            second=_cell(found.forward[place], grids[1]),
            first_point=_spot(points[0][place]),
            second_point=_spot(points[1][found.forward[place]]),
            steps=None if steps is None else steps[place],
        )
        for place in order[found.mutual[order]]
    )


def _cell(place: int, grid: tuple[int, int]) -> tuple[int, int]:
    row, column = divmod(int(place), grid[1])
    return row, column


def _spot(point: NDArray[np.float64]) -> Spot:
    return float(point[0]), float(point[1])
