"""What `ibot linear-probe` found, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class HeadResult:
    """One linear classifier.

    Attributes:
        pooling: Of the features it reads.
        solver: `sgd`, `lars` or `lbfgs`.
        lr: Learning rate at a batch of 256; None for `lbfgs`, which has none.
        weight_decay: Of SGD and LARS; for `lbfgs` the weight l of the penalty in mean loss + l / 2 * |W|^2.
        diverged: Whether its numbers overflowed; then it has no accuracy.
        holdout_top1: On the held-out training images; None when there are none.
        holdout_loss: Cross-entropy there.
        test_top1: On the test images, after the last epoch.
        test_top5: On the test images, after the last epoch.
    """

    pooling: str
    solver: str
    lr: float | None
    weight_decay: float
    diverged: bool
    holdout_top1: float | None
    holdout_loss: float | None
    test_top1: float | None
    test_top5: float | None


@dataclass(frozen=True, kw_only=True)
class BestOnTest:
    """The published way to report: the best test accuracy over all heads and epochs. It is optimistic.

    Attributes:
        pooling: Of the head.
        solver: Of the head.
        lr: Of the head.
        weight_decay: Of the head.
        epoch: After how many epochs; None for a solver without epochs.
    """

    pooling: str
    solver: str
    lr: float | None
    weight_decay: float
    epoch: int | None


@dataclass(frozen=True, kw_only=True)
class LinearResult:
    """Accuracy of linear classifiers on frozen features, beside what makes it mean something.

    Attributes:
        top1: Share of test images whose class is right, by the head that does best on held-out training images.
        top1_interval: Its 95 % confidence interval (Wilson), for the choice of the test images.
        top5: Share whose class is among the five best of that head (all classes when there are fewer).
        chosen: That head.
        best_on_test_top1: The largest test accuracy of any head after any epoch: chosen on the test images, so it is
            optimistic; the published figures are of this kind.
        best_on_test: Which head, and when.
        heads: All heads, best on the held-out images first.
        num_diverged: Heads that diverged.
        num_train: Images that were learnt from.
        num_holdout: Training images that were held out to choose the head.
        num_test: Test images.
        num_classes: Classes.
        baseline_random: top-1 of the same probe on the same network with random weights (seed 0); None when not
            measured.
        baseline_pixels: top-1 of the same probe on raw pixels; None when not measured.
        baseline_num_train: Training images of both baselines, held-out ones included.
        baseline_num_test: Test images of both baselines.
        split: One sentence on which images are which.
        weights: What was evaluated.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: sha256 of the identity of the data.
        settings: How the heads were trained.
        notes: What the reader should know.
    """

    top1: float
    top1_interval: tuple[float, float]
    top5: float
    chosen: HeadResult
    best_on_test_top1: float
    best_on_test: BestOnTest
    heads: tuple[HeadResult, ...]
    num_diverged: int
    num_train: int
    num_holdout: int
    num_test: int
    num_classes: int
    baseline_random: float | None
    baseline_pixels: float | None
    baseline_num_train: int | None
    baseline_num_test: int | None
    split: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    settings: Mapping[str, Any]
    notes: tuple[str, ...] = ()
