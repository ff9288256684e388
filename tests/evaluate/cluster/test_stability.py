import numpy as np
import pytest
import torch
from sklearn import metrics

from ibot_cli.evaluate.cluster.stability import silhouette, stability

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(3), 30)
ROWS = torch.from_numpy(np.eye(3, 6)[LABELS] + RNG.normal(size=(90, 6)) * 0.2).float()


def test_stability_is_the_mean_over_pairs() -> None:
    runs = [RNG.integers(0, 3, 90) for _ in range(3)] + [LABELS]
    pairs = [(a, b) for a in range(4) for b in range(a)]
    expected = np.mean([metrics.adjusted_rand_score(runs[a], runs[b]) for a, b in pairs])
    assert stability(runs) == pytest.approx(expected)
    assert stability([LABELS, (LABELS + 1) % 3, LABELS]) == 1  # numbers do not matter
    assert stability([LABELS]) is None


def test_stability_of_many_runs_takes_the_first_ten() -> None:
    assert stability([LABELS] * 10 + [RNG.permutation(LABELS)] * 5) == 1


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_silhouette_of_scikit_learn(metric: str) -> None:
    expected = metrics.silhouette_score(ROWS.double().numpy(), LABELS, metric=metric)
    assert silhouette(ROWS, LABELS, metric=metric) == pytest.approx(expected)
    assert expected > 0.3 > abs(silhouette(ROWS, RNG.permutation(LABELS), metric=metric) or 1)


def test_silhouette_of_a_seeded_sample() -> None:
    first, again, other = (silhouette(ROWS, LABELS, metric="cosine", seed=seed, most=40) for seed in (0, 0, 1))
    assert first == again != other
    assert first == pytest.approx(silhouette(ROWS, LABELS, metric="cosine") or 0, abs=0.1)


def test_silhouette_where_there_is_none() -> None:
    assert silhouette(ROWS, np.zeros(90, np.int64), metric="cosine") is None
    assert silhouette(ROWS, np.arange(90), metric="cosine") is None
