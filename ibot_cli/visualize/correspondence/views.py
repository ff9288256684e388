"""Matching between two views of an image, for one image or many, beside random weights and chance."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe
from ibot_cli.evaluate.baselines import SEEDS, random_weights
from ibot_cli.evaluate.faults import require_finite_features
from ibot_cli.evaluate.feature_cache.table import nothing_readable
from ibot_cli.visualize.correspondence.accuracy import chance, count_right, count_same_place, match_accuracy
from ibot_cli.visualize.correspondence.geometry import steps_apart
from ibot_cli.visualize.correspondence.matching import Nearest, nearest_patches, patch_features
from ibot_cli.visualize.correspondence.pairs import (
    Changes,
    NoOverlap,
    ViewPair,
    changes_in_words,
    draw_pair,
    pair_recipe,
)
from ibot_cli.visualize.correspondence.result import Correspondence, Match, PairMatches, mutual_matches
from ibot_cli.visualize.correspondence.subject import spread_index
from ibot_cli.visualize.whole_image import checked_size, patch_stride
from ibot_cli.weights.load import LoadedBackbone

Progress = Callable[[str, int, int], None]
_STAGE = "matching views"
_BATCH = 16  # pairs per forward pass


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """How views are drawn and compared.

    Attributes:
        pairs: Pairs of views per image.
        size: Side of a view in pixels; default the network's own.
        scale: Range of a crop's area, as a share of the largest crop that fits.
        changes: What may happen to views beside the crop; see `pair_recipe`.
        seed: Of everything random.
        baselines: Whether to measure random weights too.
        shown: Images, spread over all, whose first pair is drawn and listed with its matches.
        device: Where to compute.
        precision: `fp32` or `bf16`.
    """

    pairs: int = 1
    size: int | None = None
    scale: tuple[float, float] = (0.4, 1.0)
    changes: Changes = "run"
    seed: int = 0
    baselines: bool = True
    shown: int = 1
    device: torch.device | str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """One pair of views: its image's place, its number among those of the image, and whether it is to be shown."""

    index: int
    number: int
    pair: ViewPair
    shown: bool


@dataclass(frozen=True, kw_only=True)
class _Scored:
    """What is kept of a pair: what every network got right, what chance would, and the pixels only if shown."""

    index: int
    number: int
    counts: Sequence[NDArray[np.int64]]
    by_chance: NDArray[np.float64]
    listed: PairMatches
    pair: ViewPair | None


def match_views(
    loaded: LoadedBackbone,
    source: Source,
    options: ViewOptions,
    *,
    data: str | None = None,
    index: NDArray[np.int64] | None = None,
    progress: Progress | None = None,
) -> tuple[Correspondence, list[ViewPair]]:
    """How often a network finds the patches of one view again in another one of the same image.

    Every patch of the first view whose centre lies in the second is looked up among all patches of the second. The
    right answer is the patch that shows this centre. Random weights see the same views.

    Args:
        loaded: The network.
        source: The images.
        options: See there.
        data: DATA as given, which is recorded; the name of the source when None.
        index: Places of the images that are used; all when None. Those that cannot be read, or of several those whose
            views do not overlap, are left out.
        progress: Called with the stage, the pairs done and their total.

    Returns:
        The figures, and the pairs that are drawn: those whose `matches` are listed, in their order.

    Raises:
        DataError: No image can be read, or the views of the only one never overlap.
        UsageError: The size does not suit the network.
        WeightsError: The network has no grid of patches, or its features are not finite.
    """
    stride = patch_stride(loaded)
    grid = checked_size(options.size, loaded, stride) // stride
    networks = [loaded, *(random_weights(loaded, options.seed + seed) for seed in SEEDS if options.baselines)]
    chosen = np.arange(len(source)) if index is None else index
    bad: dict[str, str] = {}
    scored: list[_Scored] = []
    recipe = pair_recipe(loaded, grid * stride, options.scale, options.changes)
    for batch in _batches(_pairs(source, chosen, recipe, grid, options, bad)):
        scored += _score(batch, networks, recipe, source, options)
        if progress is not None:
            progress(_STAGE, min(len(scored), options.pairs * len(chosen)), options.pairs * len(chosen))
    if not scored:
        raise nothing_readable(source.name, bad)
    return _summary(loaded, source, data or source.name, scored, options, recipe, bad)


def _pairs(
    source: Source,
    chosen: NDArray[np.int64],
    recipe: ViewRecipe,
    grid: int,
    options: ViewOptions,
    bad: dict[str, str],
) -> Iterator[_Drawn]:
    """The pairs of all images that do; the others are added to `bad`, and the next one is shown in their place."""
    rows, due = set(spread_index(len(chosen), options.shown).tolist()), 0
    for rank, place in enumerate(chosen.tolist()):
        due += rank in rows
        try:
            levels = source.levels(place)
            pairs = [
                draw_pair(levels, recipe, grid, seed=options.seed, place=place, number=number)
                for number in range(options.pairs)
            ]
        except UnreadableImage as error:
            bad[error.path] = error.reason
            continue
        except NoOverlap as error:
            if len(chosen) == 1:
                raise
            bad[source.path(place)] = error.reason
            continue
        shown, due = due > 0, max(0, due - 1)
        for number, pair in enumerate(pairs):
            yield _Drawn(index=place, number=number, pair=pair, shown=shown and number == 0)


def _batches(pairs: Iterator[_Drawn]) -> Iterator[list[_Drawn]]:
    while batch := list(itertools.islice(pairs, _BATCH)):
        yield batch


def _score(
    batch: Sequence[_Drawn],
    networks: Sequence[LoadedBackbone],
    recipe: ViewRecipe,
    source: Source,
    options: ViewOptions,
) -> list[_Scored]:
    pixels = torch.cat([drawn.pair.pixels(recipe) for drawn in batch])
    found: list[list[Nearest]] = []
    for network in networks:
        features = patch_features(network, pixels, device=torch.device(options.device), precision=options.precision)
        require_finite_features(features.flatten(0, 1), network.description)
        found.append([nearest_patches(*views) for views in features.unflatten(0, (-1, 2))])
    return [
        _Scored(
            index=drawn.index,
            number=drawn.number,
            counts=[count_right(drawn.pair, each[row]) for each in found],
            by_chance=count_same_place(drawn.pair),
            listed=_listed(drawn, source, found[0][row]),
            pair=drawn.pair if drawn.shown else None,
        )
        for row, drawn in enumerate(batch)
    ]


def _listed(drawn: _Drawn, source: Source, found: Nearest) -> PairMatches:
    pair = drawn.pair
    queries, right, near, *_ = (int(number) for number in count_right(pair, found))
    return PairMatches(
        path=source.path(drawn.index),
        index=drawn.index,
        boxes=pair.boxes,
        num_queries=queries,
        num_right=right,
        num_within_1=near,
        matches=_matches(pair, found) if drawn.shown else None,
    )


def _matches(pair: ViewPair, found: Nearest) -> tuple[Match, ...]:
    apart = steps_apart(found.forward, pair.truth, pair.grid)
    steps = [int(step) if known else None for step, known in zip(apart, pair.truth >= 0, strict=True)]
    cells = pair.grid, pair.grid
    points = pair.boxes[0].centers(pair.grid), pair.boxes[1].centers(pair.grid)
    return mutual_matches(found, (cells, cells), points, steps)


def _summary(
    loaded: LoadedBackbone,
    source: Source,
    data: str,
    scored: Sequence[_Scored],
    options: ViewOptions,
    recipe: ViewRecipe,
    bad: dict[str, str],
) -> tuple[Correspondence, list[ViewPair]]:
    num_images = len({entry.index for entry in scored})
    groups = [entry.number if num_images == 1 else entry.index for entry in scored]
    accuracies = [
        match_accuracy([entry.counts[row] for entry in scored], groups, options.seed)
        for row in range(len(scored[0].counts))
    ]
    result = Correspondence(
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        source=source.name,
        fingerprint=source.fingerprint,
        num_images=num_images,
        num_pairs=options.pairs,
        num_queries=sum(entry.listed.num_queries for entry in scored),
        size=recipe.global_size,
        grid=recipe.global_size // patch_stride(loaded),
        scale=options.scale,
        changes=changes_in_words(recipe),
        seed=options.seed,
        trained=accuracies[0],
        random=tuple(accuracies[1:]),
        chance=chance([entry.by_chance for entry in scored]),
        pairs=tuple(entry.listed for entry in scored),
        unreadable=bad,
    )
    return result, [entry.pair for entry in scored if entry.pair is not None]
