"""The linear evaluation of a backbone on labelled images, beside its baselines."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.evaluate.baselines import (
    MAX_TEST,
    MAX_TRAIN,
    baseline_index,
    cached_value,
    random_weights,
    raw_pixels,
)
from ibot_cli.evaluate.confidence import wilson
from ibot_cli.evaluate.labelled import LabelledSplit, open_labelled
from ibot_cli.evaluate.linear.data import Chosen, ProbeData, read_data
from ibot_cli.evaluate.linear.logistic import logistic_sweep
from ibot_cli.evaluate.linear.result import LinearResult
from ibot_cli.evaluate.linear.settings import Means, ProbeSettings
from ibot_cli.evaluate.linear.sweep import Outcome, sweep
from ibot_cli.weights.load import LoadedBackbone

_SEED = 0  # of the network with random weights


@dataclass(frozen=True)
class LinearEvaluation:
    """A linear evaluation.

    Attributes:
        result: What is reported.
        correct: bool `[m]`, whether the chosen head is right on each readable test image, in the order of the source.
    """

    result: LinearResult
    correct: NDArray[np.bool_]


def evaluate_linear(
    loaded: LoadedBackbone, data: str, settings: ProbeSettings, means: Means, *, baselines: bool = True
) -> LinearEvaluation:
    """Linear classifiers on frozen features; held-out training images choose the one that is reported.

    Args:
        loaded: The network and how its images are prepared.
        data: DATA; `train/` and `val/` inside are used, else a seeded stratified part is the test part.
        settings: What is trained how.
        means: Where, and whom to tell.
        baselines: Whether to measure random weights and raw pixels too (cached per data set).

    Raises:
        DataError: No images, no labels, a single class, nothing readable or nothing to hold out; all heads diverged.
        UsageError: A pooling is unknown.
        WeightsError: The network cannot give a pooling, or its features are not finite.

    Source:
        Section 5.2 of the authors' evaluation (arXiv 2111.07832, appendix), with a hold-out that chooses.
    """
    split = open_labelled(data, channels=loaded.channels, bits=loaded.bits, seed=settings.seed)
    with closing(read_data(loaded, split, settings, means)) as found:
        outcome = _solve(found, len(split.classes), settings, means)
    beside = _baselines(loaded, split, settings, means) if baselines else None
    return LinearEvaluation(_result(loaded, data, split, settings, found, outcome, beside), outcome.correct.numpy())


def _solve(found: ProbeData, num_classes: int, settings: ProbeSettings, means: Means, prefix: str = "") -> Outcome:
    if found.train is not None and found.holdout is not None:
        report = means.report(prefix, "logistic regressions")
        return logistic_sweep(found.train, found.holdout, found.test, report)
    settings = replace(settings, batch_size=found.batch)
    return sweep(found.feed, found.holdout, found.test, num_classes, settings, means, prefix)


def _baselines(
    loaded: LoadedBackbone, split: LabelledSplit, settings: ProbeSettings, means: Means
) -> Mapping[str, Any]:
    """The same probe on fixed features of random weights and on pixels; measured once per data set and settings."""
    settings = replace(settings, augment=False)
    sizes = [len(part.source) for part in (split.train, split.test)]
    chosen = Chosen(*(baseline_index(size, most) for size, most in zip(sizes, (MAX_TRAIN, MAX_TEST), strict=True)))

    def top1(network: LoadedBackbone, poolings: tuple[str, ...], prefix: str) -> float:
        inner = replace(settings, poolings=poolings)
        with closing(read_data(network, split, inner, means, chosen, prefix)) as found:
            return float(_solve(found, len(split.classes), inner, means, prefix).heads[0].test_top1 or 0.0)

    def measure() -> dict[str, Any]:
        return {
            "random": top1(random_weights(loaded, _SEED), settings.poolings, "random weights: "),
            "pixels": top1(raw_pixels(loaded), settings.poolings[:1], "raw pixels: "),
            "num_train": len(chosen.train),
            "num_test": len(chosen.test),
        }

    key = f"{loaded.architecture} {loaded.preparation_key} {split.fingerprint} {settings.plain()}"
    return cached_value("linear", key, measure)


def _result(
    loaded: LoadedBackbone,
    data: str,
    split: LabelledSplit,
    settings: ProbeSettings,
    found: ProbeData,
    outcome: Outcome,
    beside: Mapping[str, Any] | None,
) -> LinearResult:
    chosen, num_test = outcome.heads[0], len(outcome.correct)
    num_holdout = 0 if found.holdout is None else len(found.holdout.labels)
    beside = beside or {}
    return LinearResult(
        top1=float(outcome.correct.double().mean()),
        top1_interval=wilson(int(outcome.correct.sum()), num_test),
        top5=float(chosen.test_top5 or 0.0),
        chosen=chosen,
        best_on_test_top1=outcome.best_on_test_top1,
        best_on_test=outcome.best_on_test,
        heads=outcome.heads,
        num_diverged=sum(head.diverged for head in outcome.heads),
        num_train=found.num_train,
        num_holdout=num_holdout,
        num_test=num_test,
        num_classes=len(split.classes),
        baseline_random=beside.get("random"),
        baseline_pixels=beside.get("pixels"),
        baseline_num_train=beside.get("num_train"),
        baseline_num_test=beside.get("num_test"),
        split=split.sentence + _holdout_sentence(num_holdout),
        weights=loaded.description,
        weights_hash=loaded.weights_hash,
        data=data,
        fingerprint=split.fingerprint,
        settings={**settings.plain(), **({} if settings.solver == "lbfgs" else {"batch_size": found.batch})},
        notes=(*loaded.notes, *split.notes, *found.notes, *_bad_note(found), *_subset_note(beside, split, settings)),
    )


def _holdout_sentence(num_holdout: int) -> str:
    if not num_holdout:
        return ""
    return f" {num_holdout:,} of the training images choose the head and are not learnt from."


def _bad_note(found: ProbeData) -> list[str]:
    """Unreadable images that augmentation met only while it went through the epochs."""
    bad = found.feed.bad
    if not bad:
        return []
    first = next(f"{path}: {reason}" for path, reason in bad.items())
    return [f"Unreadable training images were replaced by others, {len(bad)} in all ({first})."]


def _subset_note(beside: Mapping[str, Any], split: LabelledSplit, settings: ProbeSettings) -> list[str]:
    notes = []
    if beside and settings.augment:
        notes.append("The baselines are measured on fixed features, without augmentation.")
    sizes = (beside.get("num_train"), beside.get("num_test"))
    if beside and sizes != (len(split.train.source), len(split.test.source)):
        notes.append(f"The baselines use {sizes[0]:,} training and {sizes[1]:,} test images, so they are a little low.")
    return notes
