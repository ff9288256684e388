import math

import pytest
import torch
from torch import Tensor

from ibot_cli.core.heads import Head
from ibot_cli.evaluate.inspection.spread import answers_of, duplicates_of, mean_of, spread_of


def head(prototypes: Tensor) -> Head:
    """Prototypes behind an MLP that changes nothing but the length."""
    made = Head(prototypes.shape[1], len(prototypes), bottleneck_size=prototypes.shape[1], num_layers=1)
    with torch.no_grad():
        made.mlp[0].weight.copy_(torch.eye(prototypes.shape[1]))
        made.last_layer.weight_v.copy_(prototypes)
    return made.eval()


def test_spread_of_directions_that_have_nothing_in_common() -> None:
    found = spread_of(3 * torch.eye(8))
    assert found.images == 8
    assert found.cosine == pytest.approx(0)
    assert found.centred_cosine == pytest.approx(1 / 7)
    assert found.deviation == pytest.approx(math.sqrt(7 / 8))
    assert found.effective_rank == pytest.approx(7)


def test_spread_of_equal_features() -> None:
    found = spread_of(torch.tensor([[1.0, 2.0, 3.0]]).expand(5, 3))
    assert (found.cosine, found.deviation, found.effective_rank) == (pytest.approx(1), 0.0, 0.0)
    assert spread_of(torch.zeros(4, 3)).deviation == 0.0


def test_features_on_a_line_have_rank_one() -> None:
    found = spread_of(torch.tensor([[1.0, 5.0], [2.0, 5.0], [4.0, 5.0]]))
    assert (found.effective_rank, found.centred_cosine) == (pytest.approx(1), pytest.approx(1))


def test_answers_that_tell_everything() -> None:
    found = answers_of(head(torch.eye(4)), torch.eye(4), 0.01)
    assert found.information == pytest.approx(math.log(4)) == found.most
    assert (found.first_choices, found.marginal_entropy) == (4, pytest.approx(1))
    assert found.entropy == pytest.approx(0, abs=1e-6)


def test_answers_that_tell_nothing() -> None:
    found = answers_of(head(torch.eye(4)), torch.ones(6, 4), None)
    assert found.information == pytest.approx(0)
    assert (found.entropy, found.temp, found.most) == (pytest.approx(1), 0.04, math.log(4))


def test_duplicates_among_prototypes() -> None:
    prototypes = torch.eye(4)
    prototypes[1] = torch.tensor([9.0, 0.9, 0, 0])  # cosine 0.995 with the first
    found = duplicates_of(prototypes)
    assert (found.prototypes, found.looked_at, found.share) == (4, 4, 0.5)


def test_of_very_many_prototypes_some_are_compared_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibot_cli.evaluate.inspection.spread._PROTOTYPES_LOOKED_AT", 2)
    found = duplicates_of(torch.tensor([[1.0, 0], [2.0, 0], [0, 1.0]]))
    assert (found.looked_at, found.share) == (2, 0.5)


def test_means() -> None:
    found = mean_of([spread_of(torch.eye(4)), spread_of(torch.ones(4, 4))])
    assert found.images == 4 and isinstance(found.images, int)
    assert found.effective_rank == pytest.approx(1.5)
