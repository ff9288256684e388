"""Images of several sizes in one pass through a ViT against one pass for each size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ibot_cli.core.backbone import Crops
from ibot_cli.core.vit import ViT
from tests.core import tiny

NONE = torch.empty(0, dtype=torch.int64)


def vit(dtype: torch.dtype, registers: int = 0, layer_scale: float = 0.0) -> ViT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = tiny.vit(depth=3, registers=registers, layer_scale=layer_scale)
    tiny.scatter(backbone, 0)
    return backbone.to(dtype)


def crops(dtype: torch.dtype, *, drop: bool, wanted: tuple[Tensor | None, Tensor | None]) -> list[Crops]:
    """Three masked images of 16 pixels and five of 8; some branches are dropped, others count twice."""
    generator = torch.Generator().manual_seed(1)

    def images(count: int, size: int) -> Tensor:
        return torch.randn(count, 1, size, size, generator=generator).to(dtype)

    def factors(count: int) -> Tensor | None:
        return torch.randint(0, 3, (3, 2, count), generator=generator).to(dtype) if drop else None

    mask = torch.rand(3, 16, generator=generator) < 0.4
    return [Crops(images(3, 16), mask, factors(3), wanted[0]), Crops(images(5, 8), None, factors(5), wanted[1])]


def gradients(backbone: ViT, outputs: list[Tensor]) -> list[Tensor]:
    weighted = [(y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum() for y in outputs]
    return list(torch.autograd.grad(torch.stack(weighted).sum(), list(backbone.parameters()), allow_unused=True))


@pytest.mark.parametrize(
    "wanted",
    [(torch.tensor([0, 7, 7, 47]), NONE), (None, torch.tensor([3])), (None, None)],
    ids=["train", "some", "all"],
)
@pytest.mark.parametrize("drop", [False, True], ids=["whole", "drop path"])
@pytest.mark.parametrize(("registers", "layer_scale"), [(0, 0.0), (2, 0.0), (2, 0.3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_one_pass_equals_one_for_each_size(
    wanted: tuple[Tensor | None, Tensor | None],
    drop: bool,
    registers: int,
    layer_scale: float,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    backbone, inputs = vit(dtype, registers, layer_scale), crops(dtype, drop=drop, wanted=wanted)
    apart, packed = [backbone(*c) for c in inputs], backbone.packed(inputs)
    for ours, theirs in zip(packed, apart, strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    pairs = zip(gradients(backbone, packed), gradients(backbone, apart), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, atol=10 * tolerance, rtol=10 * tolerance)


def test_an_image_sees_only_itself() -> None:
    """Another size, other images beside it, change nothing."""
    backbone = vit(torch.float32)
    first, second = crops(torch.float32, drop=True, wanted=(None, None))
    changed = second._replace(images=second.images + 1)
    before, after = (backbone.packed([first, other]) for other in (second, changed))
    assert torch.equal(before[0], after[0]) and not torch.allclose(before[1], after[1], atol=1e-2)


def test_a_size_without_images() -> None:
    backbone = vit(torch.float32)
    first, second = crops(torch.float32, drop=False, wanted=(NONE, NONE))
    whole, empty = backbone.packed([first, second._replace(images=second.images[:0])])
    torch.testing.assert_close(whole, backbone(*first))
    assert empty.shape == (0, 16)


class Products(TorchDispatchMode):
    """Counts matrix products with a bias."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.aten.addmm.default
        return func(*args, **(kwargs or {}))


def test_only_the_output_projection_is_called_for_each_size() -> None:
    """Four layers and three blocks; elsewhere than on a CPU `together` goes this way."""
    backbone, inputs = vit(torch.float32), crops(torch.float32, drop=False, wanted=(None, None))
    with torch.no_grad(), Products() as packed:
        backbone.packed(inputs)
    with torch.no_grad(), Products() as apart:
        backbone.together(inputs)
    assert (packed.count, apart.count) == (3 * 5, 3 * 8)
    meta = [Crops(torch.empty(2, 1, size, size, device="meta")) for size in (16, 8)]
    with torch.no_grad(), Products() as elsewhere:
        tokens = backbone.to("meta").together(meta)
    assert elsewhere.count == 3 * 5 and [x.shape[1] for x in tokens] == [17, 5]
