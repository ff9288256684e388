"""Sums over an epoch, and that they survive a checkpoint."""

from __future__ import annotations

import io
import math

import torch

from ibot_cli.core.stats import SlotStats
from ibot_cli.train.epoch import EpochSums


def slot(value: float) -> SlotStats:
    return SlotStats(
        logit_sum=torch.full((4,), value),
        logit_rows=torch.tensor(value),
        prob_sum=torch.full((4,), value),
        used=torch.full((4,), value),
        entropy=torch.tensor(value),
        rows=torch.tensor(value),
    )


def filled() -> EpochSums:
    sums = EpochSums()
    for value in (1.0, 2.0):
        sums.add_stats({"cls": slot(value), "patch": slot(10 * value)}, torch.tensor(True))
    sums.add_assignments(torch.tensor([[1, 2], [3, 4]]), torch.tensor([[0, 1], [0, 1]]))
    return sums


def test_steps_add_up() -> None:
    sums = filled()
    assert sums.stats["cls"].rows == 3 and sums.stats["patch"].prob_sum.tolist() == [30.0] * 4
    pairs = sums.assigned()
    assert pairs is not None and [p.tolist() for p in pairs] == [[1, 2, 3, 4], [0, 1, 0, 1]]
    health = sums.health()
    assert health.keys() == {"cls", "patch"} and health["cls"] is not None and health["cls"].rows == 3


def test_a_bad_step_counts_nothing() -> None:
    sums = filled()
    sums.add_stats({"cls": slot(math.nan), "patch": slot(math.inf)}, torch.tensor(False))
    assert sums.stats["cls"].rows == 3 and sums.stats["patch"].entropy == 30


def test_a_bad_first_step_counts_nothing_either() -> None:
    sums = EpochSums()
    sums.add_stats({"cls": slot(math.nan)}, torch.tensor(False))
    assert sums.stats["cls"].rows == 0 and sums.health() == {"cls": None}


def test_assignments_need_labels() -> None:
    sums = EpochSums()
    sums.add_assignments(torch.tensor([[1, 2]]), None)
    sums.add_assignments(None, torch.tensor([[1, 2]]))
    assert sums.assigned() is None


def test_clear() -> None:
    sums = filled()
    sums.clear()
    assert sums.stats == {} and sums.assigned() is None


def test_state_goes_through_a_file() -> None:
    file = io.BytesIO()
    torch.save(filled().state(), file)
    file.seek(0)
    restored = EpochSums()
    restored.add_assignments(torch.tensor([[9]]), torch.tensor([[9]]))  # is replaced
    restored.restore(torch.load(file, weights_only=True), torch.device("cpu"))
    for sums in (restored, filled()):
        sums.add_stats({"cls": slot(5.0)}, torch.tensor(True))
        sums.add_assignments(torch.tensor([[7]]), torch.tensor([[8]]))
        assert sums.stats["cls"].used.tolist() == [8.0] * 4 and sums.stats["patch"].rows == 30
        pairs = sums.assigned()
        assert pairs is not None and [p.tolist() for p in pairs] == [[1, 2, 3, 4, 7], [0, 1, 0, 1, 8]]


def test_state_of_nothing() -> None:
    restored = EpochSums()
    restored.restore(EpochSums().state(), torch.device("cpu"))
    assert restored.stats == {} and restored.assigned() is None
