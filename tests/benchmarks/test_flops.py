"""The operations that the speed benchmark divides by."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flops import Product, Workload, baseline_flops, step_flops, step_products, student_flops, teacher_flops
from benchmarks.step import make_batch
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.batch import Batch
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network, Now, Objective

SIZES = {"width": 8, "depth": 2, "hidden": 12, "bottleneck": 4, "prototypes": 16}
CROPS = {"num_local": 3, "global_size": 8, "local_size": 4, "patch_size": 2}
TINY = Workload(images=2, masked=5, **CROPS, **SIZES)
NOW = Now(
    lr=1e-3, weight_decay=0.0, teacher_temp=0.04, teacher_patch_temp=0.04, teacher_momentum=0.9, freeze_prototypes=False
)


def test_tiny_model_by_hand():
    # 4 crops of 16 + 1 tokens, 6 crops of 4 + 1 tokens; a patch has 2 * 2 * 3 = 12 numbers.
    block = 8 * 24 + 8 * 8 + 8 * 32 + 32 * 8
    whole = 4 * (16 * 12 * 8 + 2 * (17 * block + 2 * 17 * 17 * 8))
    local = 6 * (4 * 12 * 8 + 2 * (5 * block + 2 * 5 * 5 * 8))
    mlp = 8 * 12 + 12 * 12 + 12 * 4
    # The student's last block needs 4 + 5 of 68 and 6 of 30 tokens after its attention.
    unneeded = (68 - 9 + 30 - 6) * (8 * 8 + 8 * 32 + 32 * 8)
    student = whole + local - unneeded + 15 * (mlp + 4 * 16)
    teacher = whole + 4 * 17 * mlp + 9 * 4 * 16
    assert student_flops(TINY) == 2 * student
    assert teacher_flops(TINY) == 2 * teacher
    assert step_flops(TINY) == 2 * (teacher + 3 * student)
    every = mlp + 4 * 16
    assert baseline_flops(TINY) == 2 * (whole + 68 * every + 3 * (whole + local + (68 + 30) * every))


def tiny_objective() -> tuple[Objective, Batch]:
    def network(mask_token: bool) -> Network:
        backbone = build_backbone(
            arch="vit_tiny", image_size=8, patch_size=2, width=8, depth=2, heads=2, mask_token=mask_token
        )
        return Network(backbone, Head(8, 16, hidden_size=12, bottleneck_size=4))

    mask = torch.zeros(2, 2, 16, dtype=torch.bool)
    mask[0, 0, :2] = mask[1, 1, :3] = True
    batch = Batch.make(torch.randn(2, 2, 3, 8, 8), torch.randn(3, 2, 3, 4, 4), mask)
    return Objective(network(True), network(False)), batch


def counted(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def test_both_forward_passes_equal_torchs_counter():
    objective, batch = tiny_objective()
    with torch.no_grad():
        assert counted(lambda: objective.losses(batch, NOW)) == student_flops(TINY) + teacher_flops(TINY)


def test_products_of_the_step_are_its_linear_layers():
    work = Workload(images=1, masked=30)
    products = step_products(work)
    assert Product(2 * 197, 384, 1536) in products
    assert Product(1536, 10 * 37, 384) in products
    assert Product(42, 256, 8192) in products
    assert Product(3, 4, 5).flops == 120
    assert {1152, 384, 1536, 2048, 256, 8192} <= {p.columns for p in products}
    assert len(set(products)) == len(products)


def test_published_masks_hide_fifteen_percent_on_average():
    share = sum(len(make_batch(8, seed, torch.device("cpu")).mask_index) / (16 * 196) for seed in range(4)) / 4
    assert share == pytest.approx(0.15, abs=0.05)
