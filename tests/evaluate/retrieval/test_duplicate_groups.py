import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components

from ibot_cli.errors import WeightsError
from ibot_cli.evaluate.retrieval.duplicate_groups import near_groups


def features(num: int, seed: int) -> torch.Tensor:
    """Some directions, rows near them, and rows by themselves; lengths vary."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(num, 8))
    rows[num // 2 :] = rows[rng.integers(0, num // 4, num - num // 2)] + 0.2 * rng.normal(size=(num - num // 2, 8))
    return torch.tensor(rng.permutation(rows) * rng.uniform(0.1, 9, (num, 1)), dtype=torch.float32)


def all_at_once(rows: torch.Tensor, threshold: float) -> list[list[int]]:
    """From the whole matrix, by scipy."""
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    _, component = connected_components((unit @ unit.T > threshold).numpy(), directed=False)
    groups = {label: np.flatnonzero(component == label).tolist() for label in dict.fromkeys(component.tolist())}
    return [group for group in groups.values() if len(group) > 1]


@pytest.mark.parametrize("side", [None, 1, 7, 60])
@pytest.mark.parametrize("threshold", [0.7, 0.95, 0.99])
def test_equals_the_components_of_the_whole_matrix(side: int | None, threshold: float) -> None:
    rows = features(120, 0)
    found = [group.tolist() for group in near_groups(rows, threshold=threshold, side=side)]
    expected = all_at_once(rows, threshold)
    assert found == expected and len(expected) > 1


def test_chains_are_one_group() -> None:
    angles = torch.arange(40) * 0.05  # each row is like the next one only
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)[torch.randperm(40, generator=torch.Generator())]
    assert [len(group) for group in near_groups(rows, threshold=0.998, side=6)] == [40]


def test_all_alike_and_none_alike() -> None:
    assert [group.tolist() for group in near_groups(torch.ones(50, 3), threshold=0.999, side=8)] == [list(range(50))]
    assert near_groups(torch.eye(5), threshold=0.999) == []
    assert near_groups(torch.zeros(3, 2), threshold=0.5) == []
    assert near_groups(torch.ones(1, 2), threshold=0.5) == []


def test_progress_and_features_that_are_not_finite() -> None:
    calls: list[tuple[int, int]] = []
    near_groups(torch.eye(5), threshold=0.9, side=2, progress=lambda *call: calls.append(call))
    assert calls == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(WeightsError, match="not finite"):
        near_groups(torch.full((2, 2), torch.nan), threshold=0.9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    rows = features(3000, 1)
    cpu, gpu = (near_groups(rows, threshold=0.9, device=device, side=512) for device in ("cpu", "cuda"))
    assert [group.tolist() for group in cpu] == [group.tolist() for group in gpu]
