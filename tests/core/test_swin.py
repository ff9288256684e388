"""Swin against a forward pass written out from its state dict, on a miniature with the real windows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ibot_cli.core import swin
from ibot_cli.core.backbone import build_backbone, drop_path_factors
from tests.core import explicit, tiny

DEPTHS, HEADS = (2, 2, 2, 2), (1, 2, 2, 2)


@pytest.fixture(autouse=True)
def miniature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(8, DEPTHS, HEADS))


def build(window: int = 7, image_size: int = 224) -> swin.Swin:
    torch.manual_seed(0)
    backbone = build_backbone(
        arch="swin_miniature", image_size=image_size, channels=1, window_size=window, mask_token=True
    )
    assert isinstance(backbone, swin.Swin)
    tiny.scatter(backbone, 0)
    return backbone


def images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(1))


def expected(backbone: swin.Swin, views: Tensor, window: int, **options: Tensor) -> list[Tensor]:
    """Every block's tokens and the normed last ones, `[B, N, D]`."""
    state = explicit.double(backbone)
    maps = explicit.swin(state, views, native=backbone.image_size, window=window, depths=DEPTHS, heads=HEADS, **options)
    return [x.flatten(1, 2) for x in maps]


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours.detach().double(), theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("window", "size"), [(7, 96), (14, 96), (7, 64)])
def test_forward_with_mask_and_drop_path(window: int, size: int) -> None:
    """Built for 224 and shown local crops: every stage is padded, and shifted where the map at 224 is larger than a
    window."""
    backbone = build(window)
    hidden = torch.rand(2, (size // 32) ** 2, generator=torch.Generator().manual_seed(2)) < 0.4
    factors = drop_path_factors(0.5, 8, 1, 2, torch.Generator().manual_seed(3))
    assert factors is not None
    with torch.no_grad():
        ours = backbone(images(size), hidden, factors[:, :, 0])
    close(ours[:, 1:], expected(backbone, images(size), window, mask=hidden, drop_path=factors[:, :, 0])[-1])
    torch.testing.assert_close(ours[:, 0], ours[:, 1:].mean(dim=1))


def test_forward_at_its_own_size() -> None:
    """Maps of 32, 16, 8 and 4 tokens: three are padded and shifted, the last is one window."""
    backbone = build(7, image_size=128)
    close(backbone(images(128))[:, 1:], expected(backbone, images(128), 7)[-1])


def test_the_last_stage_uses_smaller_windows() -> None:
    windows = [stage.blocks[1].window_size[0] for stage in build(14).layers]
    shifts = [stage.blocks[1].shift_size[0] for stage in build(14).layers]
    assert (windows, shifts) == ([14, 14, 14, 7], [7, 7, 0, 0])
    assert [stage.blocks[1].shift_size[0] for stage in build(7).layers] == [3, 3, 3, 0]


def test_attention_for_training_equals_that_of_evaluations() -> None:
    """With a gradient the products are written out, without one torch's kernel does them."""
    backbone = build()
    with torch.no_grad():
        fused = backbone(images(96))
    torch.testing.assert_close(backbone(images(96)).detach(), fused, atol=1e-5, rtol=1e-4)


def test_no_subnormal_weights_across_the_shift() -> None:
    block = build().layers[0].blocks[1]
    weights = swin._bias(block, torch.zeros(1, 28, 28, 8)).softmax(dim=-1)
    assert (weights == 0).any()
    assert not ((weights > 0) & (weights < torch.finfo(torch.float32).tiny)).any()


def test_a_masked_token_hides_its_8_x_8_stem_cells() -> None:
    backbone = build()
    hidden = torch.zeros(1, 9, dtype=torch.bool)
    hidden[0, 5] = True  # row 1, column 2 of 3 x 3
    stem = backbone._embed(images(96, 1), hidden)[0]
    plain = backbone._embed(images(96, 1), None)[0]
    inside = torch.zeros(24, 24, dtype=torch.bool)
    inside[8:16, 16:24] = True
    assert backbone.masked_embed is not None
    assert torch.equal(stem[inside], backbone.masked_embed.expand(64, -1))
    assert torch.equal(stem[~inside], plain[~inside])
    painted = images(96, 1)
    painted[:, :, 32:64, 64:96] = 5.0
    assert torch.equal(backbone(painted, hidden), backbone(images(96, 1), hidden))
    painted[:, :, 31, 70] = 5.0
    assert not torch.equal(backbone(painted, hidden), backbone(images(96, 1), hidden))


def test_drop_path_acts_per_image() -> None:
    backbone = build()
    with torch.no_grad():
        whole = backbone(images(96))
        torch.testing.assert_close(backbone(images(96), None, torch.ones(8, 2, 2)), whole)
        factors = torch.ones(8, 2, 2)
        factors[3, 0, 1] = 0
        dropped = backbone(images(96), None, factors)
    torch.testing.assert_close(dropped[0], whole[0])
    assert not torch.allclose(dropped[1], whole[1], atol=1e-3)


@pytest.mark.parametrize("count", [1, 3, 8])
def test_intermediate_features(count: int) -> None:
    """The final norm is applied in the last stage only; the average comes first."""
    backbone = build()
    maps = expected(backbone, images(96), 7)
    state = explicit.double(backbone)
    features = backbone.intermediate(images(96), count)
    assert len(features) == count
    for ours, theirs, block in zip(features, maps[8 - count : 8], range(8 - count, 8), strict=True):
        theirs = explicit._norm(state, "norm", theirs) if block >= 6 else theirs
        close(ours[:, 1:], theirs)
        close(ours[:, 0], theirs.mean(dim=1))
    torch.testing.assert_close(features[-1], backbone(images(96)))


@pytest.mark.parametrize(("window", "native", "size"), [(7, 224, 96), (7, 224, 224), (2, 128, 96), (2, 128, 160)])
def test_attention_of_the_last_block(window: int, native: int, size: int) -> None:
    """One padded window, one whole one, and shifted windows on a map that is padded from 3 to 4, or from 5 to 6."""
    backbone = build(window, native)
    state, block, side = explicit.double(backbone), backbone.layers[3].blocks[1], size // 32
    shift = block.shift_size[0]
    assert shift == (1 if window == 2 else 0)
    fed: list[Tensor] = []
    with block.norm1.register_forward_pre_hook(lambda _, given: fed.append(given[0])), torch.no_grad():
        backbone(images(size))
    name = "layers.3.blocks.1"
    padding = -side % window
    padded = torch.nn.functional.pad(
        explicit._norm(state, f"{name}.norm1", fed[0].double()), (0, 0, 0, padding, 0, padding)
    )
    table = state[f"{name}.attn.relative_position_bias_table"]
    bias = explicit._window_bias(table, side + padding, window, shift)
    _, weights = explicit._attention(state, f"{name}.attn", padded.flatten(1, 2), 2, bias)
    cells = torch.arange((side + padding) ** 2).reshape(side + padding, -1)[:side, :side].flatten()
    queries = torch.tensor([0, side + 1, side**2 - 1, 2])
    rows = backbone.attention(images(size), queries + 1)
    theirs = weights[:, :, cells[queries]]
    close(rows[..., 1:], theirs[..., cells])
    close(rows[..., 0], theirs.sum(-1) - theirs[..., cells].sum(-1))
    assert (rows[..., 0] > 1e-3).any() == (size == 96 and window == 7)  # a shifted window shuts the padding out
    torch.testing.assert_close(rows.sum(-1), torch.ones(2, 2, 4))


def test_attention_of_a_wide_image_is_that_of_the_layer() -> None:
    backbone = build(2, image_size=64)  # the last stage has windows of 2 x 2 and no shift
    layer = backbone.layers[3].blocks[1].attn
    wide = torch.randn(1, 1, 64, 192, generator=torch.Generator().manual_seed(1))
    seen: list[Tensor] = []
    with layer.qkv.register_forward_hook(lambda _, given, out: seen.append(out)), torch.no_grad():
        backbone(wide)
    query, key, _ = seen[0][0, 1].unflatten(-1, (3, 2, -1)).permute(1, 2, 0, 3)  # the second window
    rows = backbone.attention(wide, torch.tensor([1 + 6 + 3]))[0, :, 0, 1:].reshape(2, 2, 6)  # row 1, column 3
    scores = torch.einsum("hd,hkd->hk", query[:, 3], key) * layer.scale + layer._get_rel_pos_bias()[0, :, 3]
    expected = torch.zeros(2, 2, 6)
    expected[:, :, 2:4] = scores.softmax(dim=-1).reshape(2, 2, 2)  # the last place of the window
    torch.testing.assert_close(rows, expected)


def test_attention_of_the_class_token_is_refused() -> None:
    with pytest.raises(ValueError, match="Swin has no class token"):
        build().attention(images(96), torch.tensor([3, 0]))


def test_tiny_gives_2304_features_from_four_blocks() -> None:
    """Section 2.2: 384 + 384 + 768 + 768."""
    with torch.device("meta"):
        backbone = build_backbone(arch="swin_tiny", image_size=224)
        features = backbone.intermediate(torch.empty(1, 3, 224, 224), 4)
    assert [tuple(f.shape[1:]) for f in features] == [(197, 384), (197, 384), (50, 768), (50, 768)]


def test_mask_without_token_is_refused() -> None:
    backbone = build_backbone(arch="swin_miniature", image_size=224, channels=1)
    with pytest.raises(ValueError, match="no mask token"):
        backbone(images(96), torch.ones(2, 9, dtype=torch.bool))


def test_initialisation() -> None:
    torch.manual_seed(0)
    backbone = build_backbone(arch="swin_miniature", image_size=224, channels=1)
    weights = torch.cat([m.weight.flatten() for m in backbone.modules() if isinstance(m, torch.nn.Linear)])
    tables = torch.cat([p.flatten() for n, p in backbone.named_parameters() if "bias_table" in n])
    assert weights.std().item() == pytest.approx(0.02, rel=0.03)
    assert tables.std().item() == pytest.approx(0.02, rel=0.05)
    assert all(m.eps == 1e-6 for m in backbone.modules() if isinstance(m, torch.nn.LayerNorm))


def test_bf16_autocast_stays_close() -> None:
    backbone = build()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        low = backbone(images(96))
    assert (low.float() - backbone(images(96))).abs().max() < 0.15


def test_class_tokens_and_wanted_patches_only() -> None:
    backbone = build()
    wanted = torch.tensor([0, 5, 9, 17])
    with torch.no_grad():
        every = backbone(images(96))
        expected = torch.cat([every[:, 0], every[:, 1:].flatten(0, 1)[wanted]])
        assert torch.equal(backbone(images(96), patches=wanted), expected)
