import pytest
import torch
from sklearn.preprocessing import StandardScaler

from ibot_cli.evaluate.cluster import standardization
from ibot_cli.evaluate.cluster.standardization import standardized


def test_as_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 7) + 1000
    expected = torch.from_numpy(StandardScaler().fit_transform(rows.double().numpy())).float()
    before = rows.clone()
    monkeypatch.setattr(standardization, "_CHUNK_ROWS", 8)
    found = standardized(rows)
    assert torch.allclose(found[:, 3:], expected[:, 3:], atol=1e-4) and found.dtype == torch.float32
    assert torch.equal(rows, before)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_what_never_changes_becomes_zero(value: float) -> None:
    rows = torch.full((9, 2), value)
    rows[:, 1] = torch.arange(9)
    found = standardized(rows)
    assert (found[:, 0] == 0).all() and found[:, 1].std(correction=0) == pytest.approx(1)
    assert (standardized(rows[:1]) == 0).all()
