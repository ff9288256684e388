"""Which classes are recognised, and which are taken for which others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_PAIRS = 10


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy:
    """Accuracy within one class.

    Attributes:
        name: The class.
        num_train: Its training images.
        num_test: Its test images.
        correct: Test images that were recognised.
        accuracy: Their share; None where the class has no test image.
    """

    name: str
    num_train: int
    num_test: int
    correct: int
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Test images of one class that were taken for another.

    Attributes:
        true: Their class.
        predicted: What they were taken for.
        count: How many.
    """

    true: str
    predicted: str
    count: int


def class_accuracies(
    predicted: NDArray[np.int64], test: NDArray[np.int64], train: NDArray[np.int64], classes: Sequence[str]
) -> tuple[ClassAccuracy, ...]:
    """Accuracy (recall) of every class, in the order of the classes.

    Args:
        predicted: int64 `[m]`, the class that each test image was given.
        test: int64 `[m]`, its true class.
        train: int64 `[n]`, classes of the training images.
        classes: Names.
    """
    counts = [np.bincount(labels, minlength=len(classes)) for labels in (train, test, test[predicted == test])]
    return tuple(
        ClassAccuracy(
            name=name,
            num_train=int(learnt),
            num_test=int(total),
            correct=int(right),
            accuracy=float(right / total) if total else None,
        )
        for name, learnt, total, right in zip(classes, *counts, strict=True)
    )


def mean_accuracy(found: Sequence[ClassAccuracy]) -> float:
    """Mean over the classes that have test images; every class counts the same, however many images it has.

    Raises:
        ValueError: No class has a test image.
    """
    values = [each.accuracy for each in found if each.accuracy is not None]
    if not values:
        raise ValueError("no class has a test image")
    return float(np.mean(values))


def most_confused(
    predicted: NDArray[np.int64], test: NDArray[np.int64], classes: Sequence[str], most: int = MOST_PAIRS
) -> tuple[Confused, ...]:
    """The most frequent mistakes, most frequent first; equal ones by true, then by predicted class.

    Args:
        predicted: int64 `[m]`.
        test: int64 `[m]`, the true classes.
        classes: Names.
        most: Pairs at most.
    """
    wrong = predicted != test
    pairs, counts = np.unique(np.stack([test[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]  # np.unique has sorted the pairs already
    return tuple(
        Confused(true=classes[pairs[place, 0]], predicted=classes[pairs[place, 1]], count=int(counts[place]))
        for place in order
    )
