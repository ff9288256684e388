"""The k-NN of raw pixels against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from ibot_cli.data.sources import Subset
from ibot_cli.errors import DataError
from ibot_cli.evaluate.labelled import Labelled, open_labelled
from ibot_cli.evaluate.pixel_baseline import KS, TEMPERATURE, pixel_baseline
from tests.evaluate.images import Coloured


def part(whole: Labelled, index: np.ndarray) -> Labelled:
    return Labelled(Subset(whole.source, index), whole.labels[index])


def pixels(images: Labelled) -> np.ndarray:
    """Unit vectors of the 32 x 32 levels, which is the size of the digits."""
    rows = [np.asarray(images.source.read(index), dtype=np.float64).ravel() for index in range(len(images.labels))]
    table = np.stack(rows)
    return table / np.linalg.norm(table, axis=1, keepdims=True)


def classifier(k: int) -> KNeighborsClassifier:
    """Squared distances of unit vectors are twice one less cosine."""
    weights = lambda distance: np.exp((1 - distance**2 / 2) / TEMPERATURE)  # noqa: E731
    return KNeighborsClassifier(k, weights=weights, algorithm="brute")


def test_k_by_leaving_one_out_and_accuracy_are_those_of_scikit_learn() -> None:
    split = open_labelled("builtin:digits", channels=1)
    train, test = part(split.train, np.arange(0, 1437, 12)), part(split.test, np.arange(0, 360, 3))
    found = pixel_baseline(train, test, channels=1, num_classes=10)
    x, y = pixels(train), train.labels
    shares = [np.mean(cross_val_predict(classifier(k), x, y, cv=LeaveOneOut()) == y) for k in KS]
    assert found.k == KS[int(np.argmax(shares))]
    assert found.top1 == pytest.approx(classifier(found.k).fit(x, y).score(pixels(test), test.labels))
    assert (found.num_train, found.num_test) == (120, 120)
    assert found.label == f"raw pixels 32 x 32, k-NN, k = {found.k}"


def test_few_images() -> None:
    two = Labelled(Coloured([0, 1]), np.array([0, 1]))
    assert pixel_baseline(two, Labelled(Coloured([1, 0, 1]), np.array([1, 0, 1])), channels=3, num_classes=2).top1 == 1
    one = Labelled(Coloured([0]), np.array([0]))
    assert pixel_baseline(one, two, channels=3, num_classes=2).top1 == 0.5
    with pytest.raises(DataError, match="No image of coloured can be read"):
        pixel_baseline(two, Labelled(Coloured([0], bad=(0,)), np.array([0])), channels=3, num_classes=2)
