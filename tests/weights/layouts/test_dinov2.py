"""DINOv2 files made by hand, against timm's own conversion of the same tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor

from ibot_cli.core.heads import Head
from ibot_cli.core.vit import ViT
from ibot_cli.errors import WeightsError
from ibot_cli.weights.load import LoadedBackbone, load_weights
from ibot_cli.weights.timm_models import TimmBackbone

WIDTH, DEPTH, HEADS, PATCH, SIDE = 24, 3, 3, 14, 4
SIZE = PATCH * SIDE


def backbone_state(registers: int = 0, *, gated: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with the names, shapes and order of the authors' `DinoVisionTransformer`."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, scale: float = 0.3, shift: float = 0.0) -> None:
        state[name] = shift + scale * torch.randn(shape, generator=generator)

    def linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs)
        add(f"{name}.bias", outputs)

    add("cls_token", 1, 1, WIDTH)
    add("pos_embed", 1, 1 + SIDE**2, WIDTH)
    if registers:
        add("register_tokens", 1, registers, WIDTH)
    add("mask_token", 1, WIDTH)
    add("patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH, scale=0.05)
    add("patch_embed.proj.bias", WIDTH)
    for block in (f"blocks.{number}" for number in range(DEPTH)):
        for norm in ("norm1", "norm2"):
            add(f"{block}.{norm}.weight", WIDTH, shift=1.0)
            add(f"{block}.{norm}.bias", WIDTH)
        linear(f"{block}.attn.qkv", WIDTH, 3 * WIDTH)
        linear(f"{block}.attn.proj", WIDTH, WIDTH)
        for scale in ("ls1", "ls2"):
            add(f"{block}.{scale}.gamma", WIDTH, scale=1.0)
        linear(f"{block}.mlp.{'w12' if gated else 'fc1'}", WIDTH, 128 if gated else 4 * WIDTH)
        linear(f"{block}.mlp.{'w3' if gated else 'fc2'}", 64 if gated else 4 * WIDTH, WIDTH)
    add("norm.weight", WIDTH, shift=1.0)
    add("norm.bias", WIDTH)
    return state


def oracle(state: dict[str, Tensor], **kwargs: Any) -> Any:
    """timm's model with layer scale in its blocks, filled by timm's conversion."""
    registers = state["register_tokens"].shape[1] if "register_tokens" in state else 0
    model = timm.create_model(
        "vit_giant_patch14_dinov2" if "blocks.0.mlp.w12.weight" in state else "vit_small_patch14_dinov2",
        img_size=SIZE, patch_size=PATCH, embed_dim=WIDTH, depth=DEPTH, num_heads=HEADS, num_classes=0,
        reg_tokens=registers, no_embed_class=bool(registers), **kwargs,
    )  # fmt: skip
    model.load_state_dict(checkpoint_filter_fn(dict(state), model))
    return model.eval()


def images(size: int = SIZE) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(7))


def saved(content: Any, tmp_path: Path) -> str:
    torch.save(content, tmp_path / "dinov2.pth")
    return str(tmp_path / "dinov2.pth")


def same(loaded: LoadedBackbone, model: Any, registers: int) -> None:
    with torch.no_grad():
        expected, found = model.forward_features(images()), loaded.backbone(images())
    expected = torch.cat([expected[:, :1], expected[:, 1 + registers :]], dim=1)
    assert found.shape == expected.shape == (2, 1 + SIDE**2, WIDTH)
    assert (found - expected).abs().max() / expected.abs().max() < 1e-5


@pytest.mark.parametrize("registers", [0, 4])
def test_our_network_computes_the_same_as_timms(tmp_path: Path, registers: int) -> None:
    state = backbone_state(registers)
    loaded = load_weights(saved(state, tmp_path), heads=HEADS)
    assert isinstance(loaded.backbone, ViT) and loaded.shape is not None and loaded.head is None
    same(loaded, oracle(state), registers)
    assert (loaded.image_size, loaded.channels, loaded.shape.registers) == (SIZE, 3, registers)
    assert loaded.origin.method == "DINOv2" and loaded.origin.layout == "DINOv2 backbone"
    assert loaded.unused == () and loaded.mask_token is not None
    assert torch.equal(loaded.mask_token, state["mask_token"])
    assert loaded.shape.layer_scale == 1
    assert torch.equal(loaded.backbone.state_dict()["blocks.1.ls2.gamma"], state["blocks.1.ls2.gamma"])
    assert loaded.notes == [f"Images are {SIZE} px wide and high, the size that the weights have positions for."]


@pytest.mark.parametrize(("registers", "scaled"), [(0, True), (2, True), (2, False)])
def test_gated_blocks_run_in_timm(tmp_path: Path, registers: int, scaled: bool) -> None:
    state = backbone_state(registers, gated=True)
    if not scaled:
        state = {name: value for name, value in state.items() if not name.endswith(".gamma")}
    loaded = load_weights(saved(state, tmp_path), heads=HEADS)
    assert isinstance(loaded.backbone, TimmBackbone) and loaded.shape is None
    same(loaded, oracle(state, mlp_ratio=128 / WIDTH, init_values=float(scaled)), registers)
    assert loaded.image_size == SIZE and loaded.backbone.has_class_token


def test_names_with_chunks_and_wrappers(tmp_path: Path) -> None:
    state = backbone_state(2)
    chunked = {
        name.replace("blocks.", f"blocks.{int(name.split('.')[1]) // 2}.", 1) if name.startswith("blocks.") else name: v
        for name, v in state.items()
    }
    assert "blocks.1.2.ls2.gamma" in chunked
    wrapped = {f"module.backbone._fsdp_wrapped_module.{name}": value for name, value in chunked.items()}
    for content in (chunked, {"model": chunked}, {"teacher": wrapped}):
        same(load_weights(saved(content, tmp_path), heads=HEADS), oracle(state), 2)


def head_state(name: str, seed: int = 3, bottleneck_size: int = 8) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    head = Head(WIDTH, 10, hidden_size=16, bottleneck_size=bottleneck_size)
    return {f"{name}.{key}": value for key, value in head.state_dict().items()}


def training(patch_head: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The state of a whole training: both networks and the centres."""
    model = {"dino_loss.center": torch.arange(10.0)[None], "ibot_patch_loss.center": torch.zeros(1, 1, 10)}
    for number, network in enumerate(("student", "teacher")):
        heads = head_state("dino_head") | (patch_head or {})
        state = {f"backbone.{name}": value for name, value in backbone_state(seed=number).items()} | heads
        model |= {f"{network}.{name}": value for name, value in state.items()}
    return model


@pytest.mark.parametrize("number", [0, 1])
def test_a_training_with_its_head_and_centres(tmp_path: Path, number: int) -> None:
    which = ("student", "teacher")[number]
    loaded = load_weights(saved({"model": training(), "iteration": 124}, tmp_path), which=which, heads=HEADS)
    same(loaded, oracle(backbone_state(seed=number)), 0)
    assert loaded.head is not None and loaded.scale is not None
    head = Head(WIDTH, 10, hidden_size=16, bottleneck_size=8)
    head.load_state_dict({name.removeprefix("head."): value for name, value in head_state("head").items()})
    tokens = torch.randn(4, WIDTH)
    torch.testing.assert_close(loaded.head.bottleneck(tokens), head.bottleneck(tokens))
    torch.testing.assert_close(loaded.scale.cls_center, torch.arange(10.0))
    assert loaded.scale.patch_center is None
    assert loaded.mask_token is not None and torch.equal(loaded.mask_token, backbone_state(seed=0)["mask_token"])
    origin = loaded.origin
    assert (origin.which, origin.networks, origin.step) == (which, ("student", "teacher"), 124)
    assert loaded.description.startswith(f"{which} of ")


def teacher_with(patch_head: dict[str, Tensor], tmp_path: Path) -> str:
    content = {n.removeprefix("teacher."): v for n, v in training(patch_head).items() if n.startswith("teacher.")}
    return saved({"teacher": content}, tmp_path)


def test_a_teacher_alone_with_separate_heads(tmp_path: Path) -> None:
    file = teacher_with(head_state("ibot_head", seed=4), tmp_path)
    loaded = load_weights(file, heads=HEADS)
    assert loaded.head is not None and loaded.unused == ()
    tokens = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
    for name, seed, found in (
        ("dino_head", 3, loaded.head.cls_logits(loaded.head.bottleneck(tokens))),
        ("ibot_head", 4, loaded.head.patch_logits(loaded.head.patch_bottleneck(tokens))),
    ):
        alone = Head(WIDTH, 10, hidden_size=16, bottleneck_size=8)
        state = head_state(name, seed).items()
        alone.load_state_dict({key.removeprefix(f"{name}."): value for key, value in state})
        torch.testing.assert_close(found, alone.cls_logits(alone.bottleneck(tokens)))
    with pytest.raises(WeightsError, match=r"has no student, only the teacher"):
        load_weights(file, which="student", heads=HEADS)


def test_heads_of_different_sizes_stay_behind(tmp_path: Path) -> None:
    other = head_state("ibot_head", bottleneck_size=4)
    loaded = load_weights(teacher_with(other, tmp_path), heads=HEADS)
    assert loaded.head is None and loaded.scale is None
    assert set(loaded.unused) == set(head_state("dino_head")) | set(other)
    assert any("projection heads of different sizes" in note for note in loaded.notes)


def test_a_block_that_is_incomplete_is_told(tmp_path: Path) -> None:
    state = backbone_state()
    del state["blocks.1.mlp.fc2.bias"]
    with pytest.raises(WeightsError, match=r"missing: backbone\.blocks\.1\.mlp\.fc2\.bias"):
        load_weights(saved(state, tmp_path), heads=HEADS)


@pytest.mark.parametrize(
    ("content", "message", "hint"),
    [
        (
            {"cls_token": torch.zeros(1, 1, 8), "mask_token": torch.zeros(1, 8), "rope_embed.periods": torch.zeros(4)},
            "is a DINOv3 backbone, whose rotary positions",
            "timm:vit_small_patch16_dinov3",
        ),
        (
            {"model": {"teacher.backbone._fsdp_wrapped_module.blocks.0._flat_param": torch.zeros(4)}},
            "is one process's share of a sharded training",
            "teacher_checkpoint.pth",
        ),
    ],
)
def test_refusals(tmp_path: Path, content: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(saved(content, tmp_path))
    assert hint in caught.value.hint
