"""What `ibot knn-eval` found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ibot_cli.evaluate.knn.confusion import ClassAccuracy, Confused


@dataclass(frozen=True, kw_only=True)
class SweepCell:
    """Accuracy at one number of neighbours and one temperature.

    Attributes:
        k: Neighbours.
        temperature: Votes weigh `exp(similarity / temperature)`.
        top1: Share of test images whose class is right.
        top5: Share whose class is among the five with most votes.
    """

    k: int
    temperature: float
    top1: float
    top5: float


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Accuracy of one checkpoint of a run.

    Attributes:
        step: Optimiser steps done.
        epoch: Epochs complete.
        top1: At the `k` and the temperature of the whole result.
        per_k: k to top-1 at that temperature.
        weights_hash: sha256 of its tensors.
    """

    step: int
    epoch: int
    top1: float
    per_k: Mapping[int, float]
    weights_hash: str


@dataclass(frozen=True, kw_only=True)
class DuplicatePair:
    """A test image that is in the training part too.

    Attributes:
        test: Where the test image is.
        train: Where the training image is.
        kind: `identical` (the same decoded pixels) or `near` (features with a cosine above the threshold).
    """

    test: str
    train: str
    kind: str


@dataclass(frozen=True, kw_only=True)
class Excluded:
    """Test images that were left out as duplicates of training images.

    Attributes:
        identical: Those with the same decoded pixels.
        near: The others, whose features have a cosine above `threshold`.
        threshold: Of the cosine.
        examples: A few of both kinds.
    """

    identical: int
    near: int
    threshold: float
    examples: tuple[DuplicatePair, ...]


@dataclass(frozen=True, kw_only=True)
class KnnResult:
    """Accuracy of a weighted-vote k-NN, beside what makes it mean something.

    Attributes:
        top1: Share of test images whose class is right, at `k` and `temperature`.
        top1_interval: Its 95 % confidence interval (Wilson), for the choice of the test images.
        top5: Share whose class is among the five with most votes (all classes when there are fewer).
        mean_per_class: Mean over the classes that have test images of the top-1 within the class.
        k: 20 if it was asked for, else the first that was.
        temperature: 0.07 if it was asked for, else the first that was; votes weigh `exp(similarity / temperature)`.
        per_k: k to top-1 at `temperature`; a k above the number of training images was cut to it.
        sweep: Every k with every temperature.
        best: The best of the sweep, the earliest of equals; chosen on the test images, so it is optimistic.
        per_class: Accuracy within each class.
        confused: The pairs of classes that were taken for another most often, at most 10.
        curve: Accuracy over the training, oldest first; empty unless several checkpoints were asked for.
        excluded: Test images left out as duplicates of training images; None when not asked for.
        num_train: Training images.
        num_test: Test images.
        num_classes: Classes.
        baseline_random: top-1 of the same network with random weights, mean over seeds; None when not measured.
        baseline_random_per_seed: Its values.
        baseline_pixels: top-1 of raw pixels; None when not measured.
        baseline_num_train: Training images of both baselines.
        baseline_num_test: Test images of both baselines.
        split: One sentence on which images are which.
        weights: What was evaluated.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: sha256 of the identity of the data, and of what was left out.
        precision: Arithmetic of the feature pass, `fp32` or `bf16`.
        notes: What the reader should know.
    """

    top1: float
    top1_interval: tuple[float, float]
    top5: float
    mean_per_class: float
    k: int
    temperature: float
    per_k: Mapping[int, float]
    sweep: tuple[SweepCell, ...]
    best: SweepCell
    per_class: tuple[ClassAccuracy, ...]
    confused: tuple[Confused, ...]
    curve: tuple[CurvePoint, ...] = ()
    excluded: Excluded | None = None
    num_train: int
    num_test: int
    num_classes: int
    baseline_random: float | None
    baseline_random_per_seed: tuple[float, ...] | None
    baseline_pixels: float | None
    baseline_num_train: int | None
    baseline_num_test: int | None
    split: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    precision: str
    notes: tuple[str, ...] = ()
