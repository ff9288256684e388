"""Whether patterns agree with labels better than those of random weights, of raw pixels, and of chance."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from ibot_cli.data.sources import Source
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.baselines import SEEDS, baseline_index
from ibot_cli.visualize.patterns.assignment import NetworkAssigner, evaluating, num_prototypes
from ibot_cli.visualize.patterns.center import DEFAULT_TEMP, Scale, StageProgress, find_scale
from ibot_cli.visualize.patterns.collector import Collector
from ibot_cli.visualize.patterns.find import network_assigner, patch_side, preparation, require_head
from ibot_cli.visualize.patterns.measurement import measure
from ibot_cli.visualize.patterns.pixels import fit_pixels
from ibot_cli.visualize.patterns.random_weights import random_patterns, with_random_weights, without_names
from ibot_cli.visualize.patterns.result import PatternOptions, Patterns, Purity, PurityComparison
from ibot_cli.visualize.patterns.selection import check_options, members_purity, purity, select
from ibot_cli.weights.load import LoadedBackbone

__all__ = ["MOST_IMAGES", "compare_purity", "random_patterns"]

MOST_IMAGES = 2_000
_DRAWS = 200  # of members at random


def compare_purity(
    loaded: LoadedBackbone,
    source: Source,
    options: PatternOptions,
    found: Patterns,
    progress: StageProgress | None = None,
) -> PurityComparison:
    """Measure all on the same images, through the same collector, with the same rule of selection.

    k-means makes as many groups as the weights use prototypes: with more, on few images, every group is pure. The
    global generator is left as it was.

    Args:
        loaded: Weights with a head.
        source: Labelled images; of more than 2,000, a fixed random choice.
        options: What `found` was made with; of named prototypes, baselines take as many of their most populated ones.
        found: From `find_patterns`; where all images are compared, the weights are not measured again.
        progress: Called with the stage, what is done and its total.

    Raises:
        UsageError: The images have no labels, or the options do not fit.
        WeightsError: The weights have no head, or give scores that are not finite.
        DataError: No image can be read.
    """
    labels = source.labels
    if labels is None:
        raise UsageError(
            "The images have no labels, so there is no purity to compare.", "Put the images into class folders."
        )
    check_options(options, num_prototypes(require_head(loaded), options.kind), labelled=True)
    index = baseline_index(len(source), MOST_IMAGES)
    transform, stride = preparation(loaded), patch_side(loaded)
    run = partial(measure, source=source, transform=transform, stride=stride, options=options, index=index)
    again = len(index) < len(source)
    with contextlib.ExitStack() as stack:
        networks = [*([loaded] if again else []), *(with_random_weights(loaded, seed) for seed in SEEDS)]
        assigners = [_assigner(each, source, options, stack) for each in networks]
        measured = run(assigners, progress=_stage(progress, "random weights"))
    *own, first, second, third = measured.collectors
    trained = purity(own[0], options, labels) if own else _known(found)
    pixels = fit_pixels(source, transform, stride, max(1, trained.used), index, options, progress)
    raw = run([pixels], progress=_stage(progress, "comparison")).collectors[0]
    others = [purity(each, without_names(options), labels) for each in (first, second, third, raw)]
    histogram = raw.histogram.sum(axis=0, dtype=np.int64)
    members = _member_counts(own[0], options) if own else [len(pattern.members) for pattern in found.patterns]
    return PurityComparison(
        trained=trained,
        random=tuple(others[:-1]),
        seeds=SEEDS,
        pixels=others[-1],
        pixels_k=pixels.num_prototypes,
        chance=float(histogram.max() / max(1, histogram.sum())),
        chance_members=_drawn_purity(labels[index], members, options.seed),
        num_images=raw.num_images,
        top_k=options.top_k,
    )


def _stage(progress: StageProgress | None, name: str) -> Callable[[int, int], None] | None:
    return None if progress is None else partial(progress, name)


def _member_counts(collector: Collector, options: PatternOptions) -> list[int]:
    return [len(collector.members(number)) for number in select(collector, options).prototypes]


def _drawn_purity(labels: NDArray[np.int64], sizes: Sequence[int], seed: int) -> float:
    """Mean `members_purity` of patterns of these sizes whose members are images drawn at random."""
    rng, different = np.random.default_rng(seed), sorted(set(sizes))
    drawn = [[members_purity(rng.permutation(labels)[:size]) for size in different] for _ in range(_DRAWS)]
    mean = dict(zip(different, np.mean(drawn, axis=0), strict=True))
    return float(np.mean([mean[size] for size in sizes])) if sizes else float("nan")


def _assigner(
    loaded: LoadedBackbone, source: Source, options: PatternOptions, stack: contextlib.ExitStack
) -> NetworkAssigner:
    head = require_head(loaded)
    stack.enter_context(evaluating(torch.device(options.device), loaded.backbone, head))
    if options.order == "confidence":
        scale = find_scale(loaded.scale, loaded.backbone, head, source, preparation(loaded), options)
    else:  # no other order asks how probable anything is
        scale = Scale(torch.zeros(num_prototypes(head, options.kind)), DEFAULT_TEMP)
    return network_assigner(loaded, scale, options)


def _known(found: Patterns) -> Purity:
    """What `purity` would give for the patterns that are known already."""
    members = [pattern.members_purity for pattern in found.patterns if pattern.members_purity is not None]
    shares = [pattern.purity for pattern in found.patterns if pattern.purity is not None]
    assert found.overall_purity is not None
    return Purity(
        members=float(np.mean(members)),
        patches=float(np.mean(shares)),
        overall=found.overall_purity,
        used=found.used,
        num_patterns=len(found.patterns),
    )
