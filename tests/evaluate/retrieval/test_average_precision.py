import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.retrieval.average_precision import rank_gallery


def features(num: int, seed: int, classes: int = 5) -> tuple[torch.Tensor, np.ndarray]:
    """Clusters, some rows of which are exact copies of others, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, num)
    values = np.random.default_rng(9).normal(size=(classes, 16))[labels] + 2 * rng.normal(size=(num, 16))
    values[num // 2 :: 3] = values[: len(values[num // 2 :: 3])]
    return torch.tensor(values * rng.uniform(0.1, 9, (num, 1)), dtype=torch.float32), labels


def cosines(gallery: torch.Tensor, queries: torch.Tensor) -> np.ndarray:
    parts = [part.double().numpy() for part in (gallery, queries)]
    g, q = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts)
    return (q @ g.T).astype(np.float32)


def test_equals_sklearn_with_a_gallery() -> None:
    (gallery, labels), (queries, truth) = features(300, 0), features(80, 1)
    found = rank_gallery(gallery, labels, queries, truth)
    similarity = cosines(gallery, queries)
    expected = [average_precision_score(labels == truth[i], similarity[i]) for i in range(80)]
    np.testing.assert_allclose(found.average_precision, expected, rtol=0, atol=1e-12)
    order = np.argsort(-similarity, axis=1, kind="stable")
    for k in (1, 5, 10):
        right = labels[order[:, :k]] == truth[:, None]
        np.testing.assert_allclose(found.precision_at[k], right.mean(axis=1), rtol=0, atol=1e-12)
    assert found.counted.all()
    assert found.means()[0] == pytest.approx(np.mean(expected), abs=1e-12)


def test_equals_sklearn_leaving_one_out() -> None:
    gallery, labels = features(200, 2)
    labels[17] = 99  # the only one of its class
    found = rank_gallery(gallery, labels, gallery, labels, exclude_self=True)
    similarity = cosines(gallery, gallery)
    for i in range(200):
        others = np.arange(200) != i
        if i != 17:
            expected = average_precision_score(labels[others] == labels[i], similarity[i][others])
            assert found.average_precision[i] == pytest.approx(expected, abs=1e-12)
    assert found.counted.tolist() == [i != 17 for i in range(200)]
    mean = found.average_precision[found.counted].mean()
    assert found.means()[0] == pytest.approx(mean) and found.means()[0] > found.average_precision.mean()


def test_by_hand_with_ties() -> None:
    gallery = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.1], [0.0, 1.0]])
    found = rank_gallery(gallery, np.array([0, 1, 0, 0]), torch.tensor([[2.0, 0.0]]), np.array([0]), ks=(1, 2, 3, 9))
    # ranks: right; wrong and right tied, so 2 right of 3; right, 3 of 4
    assert found.average_precision.tolist() == pytest.approx([(1 / 1 + 2 / 3 + 3 / 4) / 3])
    assert {k: value.tolist() for k, value in found.precision_at.items()} == {1: [1.0], 2: [0.5], 3: [2 / 3], 9: [0.75]}


@pytest.mark.parametrize("block", [1, 100, 10_000])
def test_blocks_change_nothing(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, labels = features(150, 3)
    whole = rank_gallery(gallery, labels, gallery, labels, exclude_self=True)
    monkeypatch.setattr("ibot_cli.evaluate.retrieval.average_precision._SORTED", {"cpu": 2 * block})
    monkeypatch.setattr("ibot_cli.evaluate.retrieval.average_precision._CONVERTED", block)
    done: list[tuple[int, int]] = []
    parts = rank_gallery(
        gallery, labels, gallery, labels, exclude_self=True, block=block, progress=lambda *call: done.append(call)
    )
    np.testing.assert_array_equal(whole.average_precision, parts.average_precision)
    for k in (1, 5, 10):
        np.testing.assert_array_equal(whole.precision_at[k], parts.precision_at[k])
    assert done[-1] == (150, 150)


def test_nothing_to_find_or_to_rank() -> None:
    rows = torch.ones(2, 3)
    alone = rank_gallery(rows[:1], np.array([0]), rows[:1], np.array([0]), exclude_self=True)
    assert not alone.counted.any() and alone.average_precision.tolist() == [0.0]
    strangers = rank_gallery(rows, np.array([0, 0]), rows, np.array([1, 1]))
    with pytest.raises(ValueError, match="no query has an image of its class"):
        strangers.means()
    with pytest.raises(ValueError, match="do not fit"):
        rank_gallery(rows, np.array([0]), rows, np.array([1, 1]))


def test_features_that_are_not_finite() -> None:
    rows = torch.tensor([[1.0, torch.inf], [1.0, 0.0]])
    with pytest.raises(WeightsError, match="not finite"):
        rank_gallery(rows, np.array([0, 0]), rows[1:], np.array([0]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    gallery, labels = features(3000, 4)
    cpu, gpu = (rank_gallery(gallery, labels, gallery, labels, exclude_self=True, device=d) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(cpu.average_precision, gpu.average_precision, rtol=0, atol=1e-6)
