import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ibot_cli.evaluate.inspection.signs import find_faults, read_signs
from tests.evaluate.inspection.networks import SHAPE, fresh, with_structure

MLP = "backbone.blocks.1.mlp.fc1.weight"


def changed(name: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    tensors = with_structure(fresh())
    return {**tensors, name: change(tensors[name].clone())}


def holed(tensor: Tensor) -> Tensor:
    tensor.view(-1)[:3] = torch.tensor([float("nan"), float("inf"), float("-inf")])
    return tensor


@pytest.mark.parametrize("tensors", [fresh(), with_structure(fresh())])
def test_sound_weights_have_no_faults(tensors: dict[str, Tensor]) -> None:
    assert find_faults(tensors) == []


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (MLP, holed, rf"3 of [\d,]+ numbers are NaN or infinite, in {MLP}\."),
        (MLP, torch.zeros_like, rf"All numbers are 0 in {MLP}\."),
        ("backbone.blocks.0.norm1.weight", torch.zeros_like, r"All numbers are 0 in backbone\.blocks\.0\.norm1\.weig"),
        (MLP, torch.ones_like, rf"All numbers are the same in {MLP}\."),
        (MLP, lambda x: 1e4 * x, rf"The root mean square is above 100, up to [\d.]+, in {MLP}\."),
        (
            "backbone.blocks.1.attn.proj.weight",
            lambda x: 1e-6 * x,
            r"The weights are below 0\.0001 of .*attn\.proj\.wei",
        ),
    ],
)
def test_each_fault_is_found(name: str, change: Callable[[Tensor], Tensor], fault: str) -> None:
    (found,) = find_faults(changed(name, change))
    assert re.match(fault, found)


@pytest.mark.parametrize(
    "name", ["backbone.cls_token", "backbone.pos_embed", "backbone.blocks.0.attn.qkv.bias", "backbone.norm.bias"]
)
def test_what_may_be_zero_is_no_fault(name: str) -> None:
    assert find_faults(changed(name, torch.zeros_like)) == []


def test_many_tensors_are_counted() -> None:
    tensors = {name: value * float("nan") for name, value in fresh().items() if name.startswith("backbone.blocks.0")}
    (fault,) = find_faults(tensors)
    assert fault.endswith("and 9 more tensors.")


def test_signs_of_a_fresh_network() -> None:
    with torch.random.fork_rng(devices=[]):
        signs = read_signs(SHAPE.build())
    assert (signs.matrices, signs.structured) == (13, 0)  # 2 blocks of q, k, v, proj, fc1, fc2, and the patches
    assert (signs.norms, signs.untouched_norms, signs.norm_shift, signs.zero_positions) == (5, 5, 0.0, False)


def test_positions_that_are_all_zero() -> None:
    backbone = SHAPE.build()
    torch.nn.init.zeros_(backbone.get_parameter("pos_embed"))
    assert read_signs(backbone).zero_positions


def test_signs_of_a_network_with_structure() -> None:
    backbone = SHAPE.build()
    tensors = with_structure(fresh())
    backbone.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in tensors.items() if "head" not in name}
    )
    signs = read_signs(backbone)
    assert signs.structured == 12 and signs.structure is not None and signs.structure > 1.3
    assert signs.untouched_norms == 0
    assert signs.norm_shift is not None and 0.03 < signs.norm_shift < 0.05  # 0.05 * sqrt(2 / pi) is 0.04
