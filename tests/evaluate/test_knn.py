import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ibot_cli.evaluate import knn
from ibot_cli.evaluate.knn import accuracy, clamp_ks, knn_vote


def clusters(num: int, classes: int, seed: int, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, size))
    labels = rng.integers(0, classes, num)
    features = (centres[labels] + 2.0 * rng.normal(size=(num, size))) * rng.uniform(0.1, 9, size=(num, 1))
    return torch.tensor(features, dtype=torch.float32), torch.tensor(labels)


def slow_vote(train, labels, test, k: int, temperature: float, classes: int) -> list[int]:
    """Row by row in float64, straight from the definition."""
    train, test = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (train, test))
    answers = []
    for row in test:
        similarity = train @ row
        order = sorted(range(len(train)), key=lambda i: (-float(similarity[i]), i))[:k]
        votes = [0.0] * classes
        for i in order:
            votes[int(labels[i])] += float(torch.exp(similarity[i] / temperature))
        answers.append(votes.index(max(votes)))
    return answers


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_equals_sklearn(temperature: float) -> None:
    train, labels = clusters(400, 7, seed=0)
    test, _ = clusters(150, 7, seed=1)
    found = knn_vote(train, labels, test, [1, 5, 20, 100], temperature, 7)
    for k, answer in found.items():
        judge = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / temperature)
        )
        judge.fit(train.double().numpy(), labels.numpy())
        assert answer[:, 0].tolist() == judge.predict(test.double().numpy()).tolist()
        ranked = np.argsort(-judge.predict_proba(test.double().numpy()), axis=1, kind="stable")[:, :5]
        same = (answer.numpy() == ranked) | (
            np.take_along_axis(judge.predict_proba(test.double().numpy()), ranked, 1) < 1e-9
        )
        assert same.all()


def test_equals_the_definition() -> None:
    train, labels = clusters(60, 3, seed=2)
    test, _ = clusters(30, 3, seed=3)
    for k, answer in knn_vote(train, labels, test, [3, 10], 0.07, 3).items():
        assert answer[:, 0].tolist() == slow_vote(train, labels, test, k, 0.07, 3)


@pytest.mark.parametrize("elements", [1, 7, 256, 1000, 2**20])
def test_chunks_change_nothing(elements: int) -> None:
    train, labels = clusters(83, 4, seed=4)
    test, _ = clusters(29, 4, seed=5)
    expected = knn_vote(train, labels, test, [2, 9, 40], 0.07, 4)
    found = knn_vote(train, labels, test, [2, 9, 40], 0.07, 4, chunk_elements=elements)
    assert all(torch.equal(found[k], expected[k]) for k in expected)


def test_all_k_at_once_equals_one_by_one() -> None:
    train, labels = clusters(80, 4, seed=4)
    test, _ = clusters(20, 4, seed=5)
    together = knn_vote(train, labels, test, [40, 3, 11], 0.07, 4)
    for k in (3, 11, 40):
        assert torch.equal(together[k], knn_vote(train, labels, test, [k], 0.07, 4)[k])


def test_ties_go_to_the_first_row_and_the_lowest_class() -> None:
    train = torch.ones(6, 3)
    labels = torch.tensor([2, 1, 1, 0, 0, 0])
    found = knn_vote(train, labels, torch.ones(1, 3), [1, 2, 3, 6], 0.07, 3)
    assert {k: answer.tolist() for k, answer in found.items()} == {
        1: [[2, 0, 1]],
        2: [[1, 2, 0]],
        3: [[1, 2, 0]],
        6: [[0, 1, 2]],
    }


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, -1e-30, 0.5, -0.5, 1.0, -1.0])
def test_keys_hold_similarity_and_index(value: float) -> None:
    keys = knn._keys(torch.tensor([[value, 0.25]]), start=2**31)
    assert knn._similarity(keys).tolist() == torch.tensor([[value, 0.25]]).tolist()
    assert (knn._INDEX_MASK - (keys & knn._INDEX_MASK)).tolist() == [[2**31, 2**31 + 1]]
    assert (keys[0, 0] > keys[0, 1]).item() == (value > 0.25)


def test_small_temperature_stays_finite() -> None:
    train, labels = clusters(50, 3, seed=6)
    found = knn_vote(train, labels, train, [5], 1e-4, 3)
    assert torch.equal(found[5][:, 0], labels)  # the row itself outvotes everything


def test_k_above_the_training_set_and_many_classes() -> None:
    train, labels = clusters(10, 3, seed=7)
    found = knn_vote(train, labels, train[:2], [200, 10], 0.07, 5000)
    assert torch.equal(found[200], found[10]) and found[10].shape == (2, 5)
    assert clamp_ks([10, 20, 100, 200], 50) == ([10, 20, 50], "k = 100, 200 was cut to the 50 training images.")
    assert clamp_ks([20, 10, 20], 50) == ([10, 20], None)


def test_no_test_rows_and_bad_arguments() -> None:
    train, labels = clusters(10, 3, seed=7)
    assert knn_vote(train, labels, train[:0], [5], 0.07, 3)[5].shape == (0, 3)
    for bad in ({"ks": [0]}, {"temperature": 0.0}, {"train": train[:0]}):
        arguments = {"train": train, "train_labels": labels, "test": train, "ks": [5], "temperature": 0.07} | bad
        with pytest.raises(ValueError, match="knn_vote needs"):
            knn_vote(**arguments, num_classes=3)


def test_accuracy() -> None:
    predictions = torch.tensor([[0, 1], [1, 0], [2, 3], [3, 2]])
    assert accuracy(predictions, torch.tensor([0, 0, 0, 3])) == (0.5, 0.75)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    train, labels = clusters(5000, 20, seed=8, size=384)
    test, truth = clusters(2000, 20, seed=9, size=384)
    cpu, gpu = (knn_vote(train, labels, test, [10, 200], 0.07, 20, device=device) for device in ("cpu", "cuda"))
    for k in (10, 200):
        assert abs(accuracy(cpu[k], truth)[0] - accuracy(gpu[k], truth)[0]) <= 1e-4
