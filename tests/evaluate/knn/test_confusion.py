import numpy as np
import pytest
from sklearn import metrics

from ibot_cli.evaluate.knn.confusion import ClassAccuracy, Confused, class_accuracies, mean_accuracy, most_confused

CLASSES = [f"class {place}" for place in range(6)]


def answers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    test = rng.integers(0, 6, 400)
    predicted = np.where(rng.random(400) < 0.6, test, rng.integers(0, 6, 400))
    return predicted, test


@pytest.mark.parametrize("seed", [0, 1])
def test_accuracies_equal_sklearn(seed: int) -> None:
    predicted, test = answers(seed)
    found = class_accuracies(predicted, test, np.arange(6).repeat(3), CLASSES)
    assert [each.name for each in found] == CLASSES and {each.num_train for each in found} == {3}
    assert [each.accuracy for each in found] == pytest.approx(metrics.recall_score(test, predicted, average=None))
    assert [each.num_test for each in found] == np.bincount(test).tolist()
    assert mean_accuracy(found) == pytest.approx(metrics.balanced_accuracy_score(test, predicted))


@pytest.mark.parametrize("seed", [0, 1])
def test_pairs_equal_sklearn(seed: int) -> None:
    predicted, test = answers(seed)
    table = metrics.confusion_matrix(test, predicted)
    np.fill_diagonal(table, 0)
    found = most_confused(predicted, test, CLASSES, most=100)
    assert {(each.true, each.predicted): each.count for each in found} == {
        (CLASSES[true], CLASSES[other]): table[true, other] for true, other in np.argwhere(table)
    }
    assert [each.count for each in found] == sorted((each.count for each in found), reverse=True)
    assert most_confused(predicted, test, CLASSES) == found[:10]


def test_equal_counts_are_in_the_order_of_the_classes() -> None:
    found = most_confused(np.array([0, 2, 1, 2]), np.array([2, 0, 2, 0]), ["10", "9", "8"])
    assert found == (
        Confused(true="10", predicted="8", count=2),
        Confused(true="8", predicted="10", count=1),
        Confused(true="8", predicted="9", count=1),
    )


def test_nothing_wrong_and_classes_without_test_images() -> None:
    labels = np.array([0, 2, 2])
    assert most_confused(labels, labels, ["a", "b", "c"]) == ()
    found = class_accuracies(labels, labels, np.array([1, 2]), ["a", "b", "c"])
    assert found[1] == ClassAccuracy(name="b", num_train=1, num_test=0, correct=0, accuracy=None)
    assert mean_accuracy(found) == 1.0
    with pytest.raises(ValueError, match="no class has a test image"):
        mean_accuracy(found[1:2])
