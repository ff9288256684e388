"""The estimate against bytes counted by hand and against a real step."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch

from ibot_cli.config.schema import (
    Config,
    DataConfig,
    HeadConfig,
    MaskConfig,
    ModelConfig,
    ObjectiveConfig,
    RuntimeConfig,
    ViewsConfig,
)
from ibot_cli.core.batch import Batch
from ibot_cli.core.optim import build_optimizer
from ibot_cli.train.build import objective_of
from ibot_cli.train.memory import AllocationMeter, MemoryEstimate, estimate_step
from ibot_cli.train.step import StepSettings, train_step
from tests.core import tiny

CONFIG = Config(
    data=DataConfig(channels=1),
    views=ViewsConfig(num_local=2, global_size=32, local_size=16),
    mask=MaskConfig(ratio=(0.5,), ratio_var=(0.0,)),
    model=ModelConfig(arch="vit_tiny", patch_size=4, width=48, depth=1, heads=3),
    head=HeadConfig(prototypes=256, patch_prototypes=256, hidden_size=96, bottleneck_size=32),
)


@lru_cache
def estimate(config: Config, images: int, dtype: torch.dtype | None = None, micro_batches: int = 1) -> MemoryEstimate:
    return estimate_step(config, images, dtype, micro_batches)


def parameters(config: Config) -> tuple[int, int]:
    objective = objective_of(config)
    return tuple(sum(p.numel() for p in network.parameters()) for network in (objective.student, objective.teacher))


def test_resident_is_weights_and_moments() -> None:
    """Student, its two moments, the teacher, one step count per tensor, two centres and the batch."""
    student, teacher = parameters(CONFIG)
    by_hand = 4 * (3 * student + teacher)
    assert by_hand <= estimate(CONFIG, 1).resident <= 1.1 * by_hand


def test_peak_grows_with_the_batch_and_holds_the_gradients() -> None:
    student, teacher = parameters(CONFIG)
    peaks = [estimate(CONFIG, size).peak for size in (1, 2, 4)]
    assert peaks[0] > 4 * (4 * student + teacher) * 0.8
    assert peaks[0] < peaks[1] < peaks[2]
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.35)
    # Per image at least the residual stream of every block and branch, for both global views.
    assert peaks[1] - peaks[0] > 4 * 2 * 65 * 48 * 2


def test_a_second_micro_batch_adds_the_gradients_of_the_first() -> None:
    one, two = (estimate(CONFIG, 2, micro_batches=n).peak for n in (1, 2))
    assert two - one == pytest.approx(4 * parameters(CONFIG)[0], rel=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"views": replace(CONFIG.views, num_local=8)},
        {"model": replace(CONFIG.model, depth=3)},
        {"head": replace(CONFIG.head, prototypes=4096, patch_prototypes=4096)},
        {"mask": MaskConfig(ratio=(0.9,), ratio_var=(0.0,))},
    ],
    ids=["more views", "deeper", "more prototypes", "more masked"],
)
def test_what_costs_memory_raises_the_estimate(change: dict[str, Any]) -> None:
    assert estimate(replace(CONFIG, **change), 4).peak > estimate(CONFIG, 4).peak


def test_bf16_needs_less() -> None:
    assert estimate(CONFIG, 16, dtype=torch.bfloat16).peak < 0.9 * estimate(CONFIG, 16).peak


def test_checkpointing_keeps_the_inputs_of_the_blocks() -> None:
    """The tokens of all views instead of the many tensors inside a block."""
    config = replace(CONFIG, model=replace(CONFIG.model, depth=4))
    kept, again = (
        estimate(replace(config, runtime=RuntimeConfig(checkpointing=way)), 16).peak for way in ("none", "blocks")
    )
    assert again < 0.6 * kept


def measured_peak(config: Config, images: int) -> int:
    """Of two real steps, counted tensor by tensor."""
    with AllocationMeter() as meter:
        objective = objective_of(config)
        optimizer = build_optimizer(objective.student, betas=(0.9, 0.999), eps=1e-8)
        options = StepSettings(clip_grad=3.0, clip_mode="tensor", dtype=None, average_over_ranks=lambda tensors: None)
        views = config.views
        generator = torch.Generator().manual_seed(0)
        mask = torch.rand(2, images, 64, generator=generator).argsort(-1) < 32  # half of every view
        batch = Batch.make(
            torch.randn(2, images, 1, views.global_size, views.global_size, generator=generator),
            torch.randn(views.num_local, images, 1, views.local_size, views.local_size, generator=generator),
            mask,
            torch.ones(1, 2, 2 + views.num_local, images),
        )
        for _ in range(2):
            train_step(objective, optimizer, [batch], tiny.now(), options)
        return meter.peak


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"objective": ObjectiveConfig(balance="sinkhorn")},
        {"objective": ObjectiveConfig(patch="none")},
        {"runtime": RuntimeConfig(checkpointing="blocks")},
    ],
    ids=["center", "sinkhorn", "dino", "checkpointing"],
)
def test_estimate_equals_a_real_step(change: dict[str, Any]) -> None:
    config = replace(CONFIG, **change)
    assert estimate(config, 4).peak == pytest.approx(measured_peak(config, 4), rel=0.05)


def test_nothing_is_computed_or_drawn() -> None:
    """A batch far larger than this machine could compute in the time of a test."""
    state = torch.get_rng_state()
    config = Config(model=ModelConfig(arch="vit_base", depth=1), views=ViewsConfig(num_local=1))
    assert estimate_step(config, 512, dtype=torch.bfloat16).peak > 5 * 2**30
    assert torch.equal(torch.get_rng_state(), state)
