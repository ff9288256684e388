"""Operations that are counted on shapes against a formula and against sums by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from benchmarks import flops
from ibot_cli.config.schema import Config, HeadConfig, ModelConfig, ObjectiveConfig, ViewsConfig
from ibot_cli.train.bench.operations import Product, count_operations

CONFIG = Config(
    views=ViewsConfig(num_local=3, global_size=64, local_size=32),
    model=ModelConfig(arch="vit_tiny", depth=2),
    head=HeadConfig(prototypes=512, patch_prototypes=512, hidden_size=96, bottleneck_size=32),
)
WORK = flops.Workload(
    images=4, masked=21, num_local=3, global_size=64, local_size=32, width=192, depth=2, hidden=96, bottleneck=32,
    prototypes=512,
)  # fmt: skip


counted = lru_cache(count_operations)


def test_a_vit_with_centres_equals_the_formula() -> None:
    found = counted(CONFIG, 4, 21)
    assert found.teacher == flops.teacher_flops(WORK)
    assert found.student == flops.student_flops(WORK)
    assert found.total == flops.step_flops(WORK)


def test_sinkhorn_needs_no_bottleneck_of_other_patches() -> None:
    sinkhorn = replace(CONFIG, objective=ObjectiveConfig(balance="sinkhorn"))
    every, few = (counted(config, 4, 21) for config in (CONFIG, sinkhorn))
    rows = 8 * 17 - 8 - 21  # tokens of the global views that have no target
    after_attention = 2 * rows * 9 * 192**2  # in the last block
    assert every.teacher - few.teacher == flops.mlp_flops(WORK, rows) + after_attention
    assert every.student == few.student


def test_without_a_patch_target_no_patch_is_masked() -> None:
    dino = count_operations(replace(CONFIG, objective=ObjectiveConfig(patch="none")), 4, 21)
    assert dino.student == flops.student_flops(replace(WORK, masked=0))


def test_the_products_of_the_largest_layers_are_the_formulas() -> None:
    expected = {product for product in flops.step_products(WORK) if 512 not in product}  # both slots' scores apart
    found = counted(CONFIG, 4, 21).largest(1000)
    assert expected <= {flops.Product(*product) for product in found}
    first = max(counted(CONFIG, 4, 21).layers.items(), key=lambda item: item[0].flops * item[1])[0]
    rows, inner, columns = first
    assert counted(CONFIG, 4, 21).largest(1) == [
        Product(rows, inner, columns), Product(rows, columns, inner), Product(columns, rows, inner),
    ]  # fmt: skip


@pytest.mark.slow
def test_the_published_vit_equals_the_formula() -> None:
    found = count_operations(Config(head=HeadConfig(prototypes=8192, patch_prototypes=8192)), 8, 500)
    assert found.total == flops.step_flops(flops.Workload(images=8, masked=500))


@pytest.mark.slow
def test_a_swin_equals_a_sum_by_hand() -> None:
    """Swin-T with windows of 7 x 7 at 224 pixels, whose windows need no padding; the teacher sees all patches."""
    head = HeadConfig(prototypes=64, patch_prototypes=64, hidden_size=16, bottleneck_size=8)
    config = Config(model=ModelConfig(arch="swin_tiny"), head=head, views=ViewsConfig(num_local=0))
    images, tokens, width = 2, 56 * 56, 96
    by_hand = tokens * 48 * width  # patches of 4 x 4 pixels
    for stage, depth in enumerate((2, 2, 6, 2)):
        if stage:
            tokens, width = tokens // 4, 2 * width
            by_hand += tokens * 2 * width * width  # four neighbours, 2 D together with twice the width
        by_hand += depth * tokens * (12 * width**2 + 2 * 49 * width)
    bottlenecks = (tokens + 1) * (width * 16 + 16 * 16 + 16 * 8)
    scores = (images + 5) * 8 * 64
    assert count_operations(config, 1, 5).teacher == 2 * (images * (by_hand + bottlenecks) + scores)
