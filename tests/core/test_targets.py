"""Target distributions: centring and Sinkhorn-Knopp."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ibot_cli.core import targets
from ibot_cli.core.targets import Scores, SumOverRanks, center_offset, identity, sinkhorn_offset
from tests import reference


def cosines(rows: int, columns: int, seed: int = 0) -> Tensor:
    return 2 * torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) - 1


def centered_target(logits: Tensor, center: Tensor, temp: float) -> Tensor:
    return torch.softmax(logits / temp - center_offset(center, temp), dim=-1)


def sinkhorn_target(
    logits: Tensor,
    temp: float,
    iterations: int = 3,
    sum_over_ranks: SumOverRanks = identity,
    counts: Tensor | None = None,
) -> Tensor:
    """Targets of given scores `[R, K]`: the prototypes are the unit vectors, so that the bottlenecks are the scores."""
    scores = Scores.of(logits[None], torch.eye(logits.shape[1], dtype=logits.dtype), temp)
    counts = logits.new_ones(len(logits)) if counts is None else counts
    offset = sinkhorn_offset(scores, counts, iterations, sum_over_ranks)
    return torch.softmax(scores.part(slice(0, len(logits)))[0] - offset, dim=-1)


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs.double(), atol=tolerance, rtol=1e-4)


def test_centered_target() -> None:
    logits, center = cosines(6, 9).reshape(2, 3, 9), 0.3 * cosines(1, 9, seed=1)
    close(centered_target(logits, center, 0.04), reference.centered(logits.double(), center.double(), 0.04))


@pytest.mark.parametrize("make", [lambda x, t: centered_target(x, torch.zeros(1, x.shape[1]), t), sinkhorn_target])
@pytest.mark.parametrize(("scale", "temp"), [(1.0, 0.04), (1.0, 0.01), (1e4, 0.04), (1e30, 0.04), (0.0, 0.04)])
def test_rows_are_distributions_at_any_scale(make: Callable[..., Tensor], scale: float, temp: float) -> None:
    target = make(scale * cosines(17, 8), temp)
    assert torch.isfinite(target).all() and (target >= 0).all()
    torch.testing.assert_close(target.sum(-1), torch.ones(17))


@pytest.mark.parametrize("iterations", [1, 3, 7])
@pytest.mark.parametrize("temp", [0.05, 0.2])
def test_sinkhorn_follows_the_naive_scaling(iterations: int, temp: float) -> None:
    logits = cosines(10, 6)
    close(sinkhorn_target(logits, temp, iterations), reference.sinkhorn(logits.double(), temp, iterations))


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_chunks_and_padding_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = cosines(13, 6)
    expected = sinkhorn_target(logits[:10], 0.05)
    monkeypatch.setattr(targets, "CHUNK_ROWS", rows)
    monkeypatch.setitem(targets.CHUNK_ELEMENTS, "cpu", 1)
    counts = torch.tensor([1.0] * 10 + [0.0] * 3)
    torch.testing.assert_close(sinkhorn_target(logits, 0.05, counts=counts)[:10], expected)
    assert not torch.allclose(sinkhorn_target(logits, 0.05)[:10], expected, atol=1e-2)


@pytest.mark.parametrize(
    ("num_rows", "views", "parts"), [(0, 1, 0), (256, 1, 1), (257, 1, 2), (1000, 1, 4), (50, 12, 3)]
)
def test_chunks_have_one_length(num_rows: int, views: int, parts: int) -> None:
    found = list(targets.chunks(num_rows, views, 8192, torch.device("cpu")))
    assert len(found) == parts and len({part.stop - part.start for part in found}) == min(parts, 1)
    assert [row for part in found for row in range(part.start, part.stop)][:num_rows] == list(range(num_rows))
    assert all(part.start < num_rows for part in found)


def test_sinkhorn_balances_the_prototypes() -> None:
    """One prototype is everyone's favourite; after enough iterations all get the same mass."""
    logits = cosines(60, 5)
    logits[:, 2] += 1.5
    crowded = sinkhorn_target(logits, 0.3, 1).sum(0)
    balanced = sinkhorn_target(logits, 0.3, 100).sum(0)
    torch.testing.assert_close(balanced, torch.full((5,), 12.0), atol=1e-3, rtol=0)
    assert crowded.max() - crowded.min() > 0.1


def test_sinkhorn_keeps_the_preference_within_a_row_pair() -> None:
    """Scaling rows and columns leaves cross ratios alone: they are those of the exponentiated scores."""
    logits = cosines(6, 4)
    target = sinkhorn_target(logits, 0.5, 20).double().log()
    raw = logits.double() / 0.5
    for table in (target, raw):
        table -= table[:1].clone()
        table -= table[:, :1].clone()
    close(target.float(), raw, 1e-4)


def test_a_prototype_that_nobody_wants_is_left_alone() -> None:
    logits = cosines(5, 4)
    logits[:, 3] = -1e6
    target = sinkhorn_target(logits, 0.04)
    assert torch.isfinite(target).all() and not target[:, 3].any()


def test_empty_rows() -> None:
    assert sinkhorn_target(torch.zeros(0, 7), 0.04).shape == (0, 7)
    assert centered_target(torch.zeros(0, 7), torch.zeros(1, 7), 0.04).shape == (0, 7)


class Ranks:
    """`sum_over_ranks` of threads that stand for processes: everyone waits until all have handed in their part."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world)
        self.parts: dict[int, Tensor] = {}

    def sum_for(self, rank: int) -> Callable[[Tensor], Tensor]:
        def total(tensor: Tensor) -> Tensor:
            self.parts[rank] = tensor
            self.barrier.wait(timeout=20)
            result = torch.stack([self.parts[key] for key in sorted(self.parts)]).sum(0)
            self.barrier.wait(timeout=20)
            return result

        return total


@pytest.mark.parametrize("split", [4, 0, 11])
def test_sinkhorn_over_two_ranks_equals_the_joint_result(split: int) -> None:
    """Also when one of them has no masked patch at all."""
    logits = cosines(11, 6)
    ranks, results = Ranks(2), {}

    def work(rank: int, rows: Tensor) -> None:
        results[rank] = sinkhorn_target(rows, 0.05, 3, ranks.sum_for(rank))

    threads = [threading.Thread(target=work, args=(r, x)) for r, x in enumerate((logits[:split], logits[split:]))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close(torch.cat([results[0], results[1]]), sinkhorn_target(logits, 0.05, 3))
    if 0 < split < 11:
        alone = sinkhorn_target(logits[:split], 0.05, 3)
        assert not torch.allclose(alone, results[0], atol=1e-2)
