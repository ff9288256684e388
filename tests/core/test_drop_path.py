"""Images left out of a branch against images whose branch is multiplied by 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ibot_cli.core.backbone import Crops, build_backbone, drop_path_factors
from ibot_cli.core.drop_path import SMALLEST_RATE, Branch, SubBatches, add_branch, placed, plain_factors
from ibot_cli.core.vit import ViT
from tests.core import tiny

CPU = torch.device("cpu")
NONE = torch.empty(0, dtype=torch.int64)


def backbone_of(dtype: torch.dtype = torch.float32, **options: Any) -> ViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(
            arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=4, heads=2, **options
        )
    assert isinstance(backbone, ViT)
    tiny.scatter(backbone, 0)
    return backbone.to(dtype)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(6, 1, 16, 16, generator=torch.Generator().manual_seed(1)).to(dtype)


def draw(rate: float = 0.6) -> Tensor:
    """Of four blocks and six images; of the third block no image keeps the second branch."""
    factors = drop_path_factors(rate, 4, 1, 6, torch.Generator().manual_seed(2))
    assert factors is not None
    factors[2, 1] = 0
    return factors[:, :, 0]


def results(backbone: ViT, pixels: Tensor, *arguments: object) -> tuple[Tensor, list[Tensor]]:
    """Tokens and gradients."""
    tokens = backbone(pixels, None, *arguments)
    weights = torch.linspace(-1, 1, tokens.numel()).view_as(tokens)
    (tokens * weights).sum().backward()
    grads = [p.grad for p in backbone.parameters() if p.grad is not None]
    backbone.zero_grad(set_to_none=True)
    return tokens.detach(), grads


@pytest.mark.parametrize("wanted", [None, NONE, torch.tensor([3, 90])], ids=["all", "class tokens", "some"])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "options"),
    [
        (torch.float32, 1e-5, {}),
        (torch.float64, 1e-13, {}),
        (torch.float32, 1e-5, {"registers": 2}),
        (torch.float32, 1e-5, {"layer_scale": 0.5}),
    ],
)
def test_the_same_tokens_and_gradients(
    wanted: Tensor | None, dtype: torch.dtype, tolerance: float, options: dict[str, Any]
) -> None:
    backbone, factors, pixels = backbone_of(dtype, **options), draw(), images(dtype)
    assert (factors == 0).float().mean() > 0.2
    exact = torch.where(factors > 0, 1 / (1 - torch.linspace(0, 0.6, 4))[:, None, None], 0.0).to(dtype)
    tokens, grads = results(backbone, pixels, exact, wanted)
    ours, our_grads = results(backbone, pixels, SubBatches.of(exact, CPU), wanted)
    torch.testing.assert_close(ours, tokens, atol=tolerance, rtol=tolerance)
    for mine, plain in zip(our_grads, grads, strict=True):
        torch.testing.assert_close(mine, plain, atol=100 * tolerance, rtol=100 * tolerance)


def test_under_autocast_it_stays_as_close_as_multiplying() -> None:
    backbone, factors = backbone_of(), draw()
    with torch.no_grad():
        exact = backbone(images(), None, factors)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            plain, ours = (backbone(images(), None, f) for f in (factors, SubBatches.of(factors, CPU)))
    assert ours.dtype == torch.float32
    assert (ours - exact).abs().max() < 1.5 * (plain - exact).abs().max()


def test_dropped_images_are_not_computed() -> None:
    """Rows that the MLPs see: as many as there are factors other than 0, and one where there is none."""
    backbone, factors = backbone_of(), draw()
    seen: list[int] = []
    for block in backbone.blocks.children():
        fc1 = block.get_submodule("mlp.fc1")
        fc1.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel() // 17))
    with torch.no_grad():
        backbone(images(), None, SubBatches.of(factors, CPU))
    assert seen == [int(n) if n else 1 for n in (factors[:, 1] > 0).sum(-1)]
    assert seen[2] == 1 and min(seen[0], *seen[2:]) < 6


def test_the_lists_are_those_of_the_factors() -> None:
    factors = draw()
    found = SubBatches.of(factors, CPU)
    assert torch.equal(found.factors, factors) and len(found.branches) == 4
    for block, pair in zip(factors, found.branches, strict=True):
        for expected, branch in zip(block, pair, strict=True):
            again = torch.zeros(6).index_copy(0, branch.images, branch.factors)
            assert torch.equal(again, expected)
            assert bool((branch.factors > 0).all()) or branch.images.tolist() == [0]


def test_sub_batches_from_the_rate_where_they_pay() -> None:
    factors = draw()
    assert placed(None, 0.9, CPU) is None
    assert isinstance(placed(factors, SMALLEST_RATE, CPU), SubBatches)
    for plain in (placed(factors, SMALLEST_RATE / 2, CPU), placed(factors, 0.9, CPU, whole=True)):
        assert plain is not None and plain_factors(plain) is plain and torch.equal(plain, factors)
    there = placed(factors, 0.9, torch.device("meta"))
    assert isinstance(there, SubBatches) and there.branches[3][1].images.device.type == "meta"


class Copies(TorchDispatchMode):
    """Notes of each copy to another device whether the host goes on meanwhile."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.non_blocking: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and kwargs.get("device") is not None:
            self.non_blocking.append(kwargs.get("non_blocking", False))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("whole", [False, True])
def test_the_host_does_not_wait_for_the_copies(whole: bool) -> None:
    with Copies() as copies:
        placed(draw(), 0.9, torch.device("meta"), whole=whole)
    assert copies.non_blocking == [True] * (1 if whole else 3)


def test_checkpointed_blocks_give_the_same_bits() -> None:
    backbone, drop = backbone_of(), SubBatches.of(draw(), CPU)
    tokens, grads = results(backbone, images(), drop)
    backbone.checkpointing = True
    again, same = results(backbone, images(), drop)
    assert torch.equal(tokens, again) and all(torch.equal(a, b) for a, b in zip(grads, same, strict=True))


def test_a_swin_and_several_sizes_multiply() -> None:
    swin = build_backbone(arch="swin_tiny", image_size=32, channels=1, window_size=2)
    factors = drop_path_factors(0.5, 12, 1, 2, torch.Generator().manual_seed(0))
    assert factors is not None
    pixels = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        drop = SubBatches.of(factors[:, :, 0], CPU)
        assert torch.equal(swin(pixels, drop_path=drop), swin(pixels, drop_path=factors[:, :, 0]))
        backbone, drop = backbone_of(), SubBatches.of(draw(), CPU)
        plain, ours = (
            backbone.packed([Crops(images(), None, f), Crops(images()[:, :, :8, :8], None, f)])
            for f in (drop.factors, drop)
        )
    assert all(torch.equal(a, b) for a, b in zip(plain, ours, strict=True))


def test_adding_a_branch() -> None:
    x, branch = torch.ones(3, 2, dtype=torch.float64), torch.tensor([[1.0, 2.0], [3.0, 4.0]]).bfloat16()
    added = add_branch(x, branch, Branch(torch.tensor([0, 2]), torch.tensor([2.0, 0.5])))
    assert added.dtype == torch.float64 and added.tolist() == [[3, 5], [1, 1], [2.5, 3]]


def kept_bytes(backbone: ViT, pixels: Tensor, drop: Tensor | SubBatches) -> int:
    """Of all tensors that the backward pass waits for."""
    seen: dict[int, Tensor] = {}

    def pack(value: Tensor) -> Tensor:
        seen[value.untyped_storage().data_ptr()] = value
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        backbone(pixels, None, drop)
    return sum(value.untyped_storage().nbytes() for value in seen.values())


def test_less_is_kept_for_the_backward_pass() -> None:
    """In proportion to what is computed: the sum that a branch is added to keeps nothing of it."""
    backbone, factors, pixels = backbone_of(), draw(), images()
    whole, plain, ours = (
        kept_bytes(backbone, pixels, drop) for drop in (torch.ones_like(factors), factors, SubBatches.of(factors, CPU))
    )
    weights = kept_bytes(backbone, pixels[:0], torch.ones_like(factors[..., :0]))
    share = (factors > 0).float().mean().item()
    assert plain == whole
    assert ours - weights < (share + 0.06) * (whole - weights)
