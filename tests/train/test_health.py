"""The numbers behind a verdict, the verdicts and the patience."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ibot_cli.core.stats import SlotStats
from ibot_cli.train.health import PATIENCE_EPOCHS, SlotHealth, Watch, slot_health, verdict


def stats_of(targets: Tensor) -> SlotStats:
    """The sums of some distributions `[R, K]`."""
    used = torch.bincount(targets.argmax(-1), minlength=targets.shape[1]).float()
    return SlotStats(
        logit_sum=torch.zeros(targets.shape[1]),
        logit_rows=torch.tensor(0.0),
        prob_sum=targets.sum(0),
        used=used,
        entropy=torch.special.entr(targets).sum(),
        rows=torch.tensor(float(len(targets))),
    )


def health_of(targets: Tensor) -> SlotHealth:
    health = slot_health(stats_of(targets))
    assert health is not None
    return health


def test_numbers_of_known_targets() -> None:
    """Half of the images on each of two out of eight prototypes, each target one half and one half."""
    targets = torch.zeros(10, 8)
    targets[:5, :2] = 0.5
    targets[5:, 2:4] = 0.5
    health = health_of(targets)
    assert health.entropy == pytest.approx(math.log(2) / math.log(8))
    assert health.marginal_entropy == pytest.approx(math.log(4) / math.log(8))
    assert (health.used, health.prototypes, health.rows) == (2, 8, 10)


@pytest.mark.parametrize(
    ("targets", "entropy", "marginal"),
    [(torch.full((5, 16), 1 / 16), 1.0, 1.0), (torch.eye(16), 0.0, 1.0), (torch.eye(16)[[3] * 5], 0.0, 0.0)],
)
def test_extremes(targets: Tensor, entropy: float, marginal: float) -> None:
    health = health_of(targets)
    assert (health.entropy, health.marginal_entropy) == pytest.approx((entropy, marginal), abs=1e-6)


def test_nothing_counted_nothing_said() -> None:
    assert slot_health(SlotStats.zero(8)) is None


UNIFORM = torch.full((400, 256), 1 / 256)
SINGLE = torch.eye(256)[[7] * 400]
HEALTHY = torch.eye(256)[torch.arange(400) % 200]


@pytest.mark.parametrize(
    ("slot", "balance", "parts"),
    [
        ("cls", "center", ["class-token", "100.0%", "objective.balance=sinkhorn, or lower objective.teacher_temp "]),
        ("patch", "center", ["patch targets", "objective.balance=sinkhorn", "objective.teacher_patch_temp"]),
        ("patch", "sinkhorn", ["patch targets", "To fix it, lower objective.teacher_patch_temp"]),
    ],
)
def test_uniform_targets_in_words(slot: str, balance: str, parts: list[str]) -> None:
    text = verdict(slot, health_of(UNIFORM), balance)
    assert text is not None and text.startswith("Collapse to uniform")
    assert all(part in text for part in parts)
    assert balance == "center" or "objective.balance" not in text


@pytest.mark.parametrize(
    ("slot", "temp"), [("cls", "objective.teacher_temp"), ("patch", "objective.teacher_patch_temp")]
)
def test_few_prototypes_in_words(slot: str, temp: str) -> None:
    text = verdict(slot, health_of(SINGLE), "center")
    assert text is not None and text.startswith("Collapse to few prototypes")
    assert "about 1.0 of 256 prototypes" in text and f"objective.balance=sinkhorn, raise {temp}" in text
    text = verdict(slot, health_of(SINGLE), "sinkhorn")
    assert text is not None and "objective.balance" not in text and f"raise {temp}" in text


@pytest.mark.parametrize("targets", [HEALTHY, torch.softmax(torch.linspace(0, 6, 256).repeat(400, 1), -1)])
def test_healthy_targets_are_left_alone(targets: Tensor) -> None:
    assert verdict("cls", health_of(targets), "center") is None


def test_few_rows_cannot_use_many_prototypes() -> None:
    """Three images on three of 8,192 prototypes are no collapse."""
    assert verdict("cls", health_of(torch.eye(3, 8192)), "center") is None


def test_a_verdict_must_hold_and_is_said_once() -> None:
    watch = Watch("center")
    bad, good = {"cls": health_of(UNIFORM), "patch": None}, {"cls": health_of(HEALTHY), "patch": None}
    assert PATIENCE_EPOCHS == 2
    assert [len(watch.look(h)) for h in (bad, good, bad, bad, bad)] == [0, 0, 0, 1, 0]
    assert [len(watch.look(h)) for h in (good, bad, bad)] == [0, 0, 1]


def test_slots_are_watched_apart() -> None:
    watch = Watch("center")
    watch.look({"cls": health_of(UNIFORM), "patch": health_of(HEALTHY)})
    messages = watch.look({"cls": health_of(UNIFORM), "patch": health_of(UNIFORM)})
    assert len(messages) == 1 and "class-token" in messages[0]


def test_patience_survives_a_checkpoint() -> None:
    first, second = Watch("center"), Watch("center")
    first.look({"cls": health_of(UNIFORM)})
    second.restore(first.state())
    assert len(second.look({"cls": health_of(UNIFORM)})) == 1
