import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from ibot_cli.evaluate.knn import vote as knn
from ibot_cli.evaluate.knn.vote import accuracy, clamp_ks, knn_vote, nearest, vote


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


def test_one_search_serves_every_temperature() -> None:
    train, labels = clusters(300, 5, seed=20)
    test, _ = clusters(90, 5, seed=21)
    similarity, index = nearest(train, test, 50)
    for temperature in (0.02, 0.07, 0.5):
        swept = vote(similarity, labels[index], [5, 50], temperature, 5)
        alone = knn_vote(train, labels, test, [5, 50], temperature, 5)
        assert all(torch.equal(swept[k], alone[k]) for k in (5, 50))
    judge = NearestNeighbors(n_neighbors=50, metric="cosine", algorithm="brute").fit(train.double().numpy())
    distance, place = judge.kneighbors(test.double().numpy())
    assert index.tolist() == place.tolist()
    np.testing.assert_allclose(similarity, 1 - distance, atol=1e-6)


@pytest.mark.parametrize("sorted_by_class", [False, True])
def test_rows_that_improve_late_are_found(sorted_by_class: bool) -> None:
    train, labels = clusters(700, 3, seed=22)
    if sorted_by_class:  # the last chunks hold the whole neighbourhood of a class
        labels, order = labels.sort()
        train = train[order]
    test, _ = clusters(40, 3, seed=23)
    similarity, index = nearest(train, test, 30, chunk_elements=40 * 64)
    expected = torch.nn.functional.normalize(test) @ torch.nn.functional.normalize(train).T
    values, places = expected.sort(dim=1, descending=True, stable=True)
    assert torch.equal(index, places[:, :30])
    torch.testing.assert_close(similarity, values[:, :30])


class LargestTensor(TorchDispatchMode):
    """Notes the most bytes of any tensor that is computed, views left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(part, torch.Tensor) and part._base is None and not func.is_view:
                self.bytes = max(self.bytes, part.numel() * part.element_size())
        return out


@pytest.mark.parametrize("ascending", [False, True])
def test_no_copy_of_the_training_rows_and_no_large_table(ascending: bool) -> None:
    train, labels = clusters(20_000, 4, seed=24, size=8)
    test, _ = clusters(300, 4, seed=25, size=8)
    if ascending:  # every chunk is better than all before it, for every query
        train = test[:1] + torch.linspace(9, 0, len(train)).unsqueeze(1) * torch.randn(8)
        test = test[:1].repeat(300, 1)
    with LargestTensor() as seen:
        knn_vote(train, labels, test, [10, 100], 0.07, 4, chunk_elements=2**14)
    # the neighbours of all test rows, or what was found in a chunk beside those so far: key and place of 8 bytes each
    assert seen.bytes <= 8 * max(300 * 100, 2**14 + 256 * 100) < train.numel() * 4


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
    keys = knn._keys(torch.tensor([[value, 0.25]]), torch.tensor([2**31, 2**31 + 1]))
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
    for bad, message in (
        ({"ks": [0]}, "0 neighbours"),
        ({"ks": [0, 5]}, "0 neighbours"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"train": train[:0]}, "5 neighbours among 0 training rows"),
    ):
        arguments = {"train": train, "train_labels": labels, "test": train, "ks": [5], "temperature": 0.07} | bad
        with pytest.raises(ValueError, match=message):
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
