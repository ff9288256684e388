import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ibot_cli.weights.statistics import distance, measure_parts, part_of, structure


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(64, 64), (192, 48), (48, 192)])
def test_random_numbers_have_structure_one(shape: tuple[int, int]) -> None:
    uniform = torch.rand(*shape, generator=torch.Generator().manual_seed(1)) - 0.5
    for matrix in (0.02 * normal(*shape), 300 * uniform):
        assert 0.9 < structure(matrix) < 1.06


@pytest.mark.parametrize("shape", [(64, 64), (192, 48), (48, 192)])
def test_structure_is_that_of_a_full_decomposition(shape: tuple[int, int]) -> None:
    direction = torch.outer(normal(shape[0], seed=1), normal(shape[1], seed=2))
    matrix = normal(*shape) + 0.5 * direction
    singular = np.linalg.svd(matrix.double().numpy(), compute_uv=False)
    expected = np.sqrt((matrix.double().numpy() ** 2).mean()) * (math.sqrt(shape[0]) + math.sqrt(shape[1]))
    assert structure(matrix) == pytest.approx(singular[0] / expected, rel=1e-4)
    assert structure(matrix) > 1.5


def test_parts_stand_in_the_order_of_the_network_and_have_their_numbers() -> None:
    tensors = {
        "backbone.pos_embed": torch.tensor([3.0, -4.0]),
        "backbone.patch_embed.proj.weight": torch.tensor([1.0, 1.0]),
        "backbone.blocks.0.attn.qkv.weight": torch.tensor([[1.0, float("nan")], [float("inf"), 7.0]]),
        "backbone.blocks.0.norm1.bias": torch.tensor([5.0]),
        "backbone.norm.weight": torch.full((2,), float("nan")),
        "head.last_layer.weight_v": torch.zeros(2, 2),
        "counted": torch.tensor([1, 2]),
    }
    parts = measure_parts(tensors)
    assert [part.part for part in parts] == ["patch embedding", "positions", "block 0", "final norm", "prototypes"]
    _, positions, block, norm, prototypes = parts
    assert positions.rms == pytest.approx(math.sqrt(12.5))
    assert (positions.smallest, positions.largest, positions.parameters) == (-4.0, 3.0, 2)
    assert (block.tensors, block.parameters, block.non_finite) == (2, 5, 2)
    assert block.rms == pytest.approx(5.0) and (block.smallest, block.largest) == (1.0, 7.0)
    assert (norm.rms, norm.smallest, norm.non_finite) == (None, None, 2)
    assert prototypes.rms == 0.0
    assert all(part.distance is None for part in parts)


def test_distance_is_relative_to_the_first_network() -> None:
    first = {"backbone.pos_embed": torch.tensor([3.0, 4.0]), "backbone.cls_token": torch.tensor([1.0])}
    second = {"backbone.pos_embed": torch.tensor([3.0, 5.0]), "backbone.cls_token": torch.zeros(4)}
    assert distance(first, second) == pytest.approx(0.2)
    assert [part.distance for part in measure_parts(first, second)] == [None, pytest.approx(0.2)]
    assert distance(first, {}) is None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("backbone.patch_embed.proj.bias", "patch embedding"),
        ("backbone.masked_embed", "mask token"),
        ("backbone.register_tokens", "registers"),
        ("backbone.blocks.11.mlp.fc1.weight", "block 11"),
        ("backbone.layers.2.blocks.5.norm1.weight", "stage 2 block 5"),
        ("backbone.layers.1.downsample.reduction.weight", "stage 1 reduction"),
        ("backbone.norm.bias", "final norm"),
        ("classifier.fc_norm.weight", "final norm"),
        ("classifier.head.weight", "classifier"),
        ("head.mlp.0.weight", "head MLP"),
        ("head.last_layer2.weight_g", "patch prototypes"),
        ("backbone.stages.0.conv.weight", "stages.0"),
    ],
)
def test_part_of_a_name(name: str, part: str) -> None:
    assert part_of(name) == part
