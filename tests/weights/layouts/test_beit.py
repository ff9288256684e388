"""BEiT files made by hand, against the BEiT of the transformers library with the same tensors."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.core.vit import ViT
from ibot_cli.data.transform import normalisation
from ibot_cli.errors import WeightsError
from ibot_cli.weights.load import LoadedBackbone, load_weights
from ibot_cli.weights.timm_models import TimmBackbone
from ibot_cli.weights.trainable import trainable

WIDTH, DEPTH, HEADS, PATCH, SIDE = 24, 3, 3, 8, 4
SIZE, ROWS = PATCH * SIDE, (2 * SIDE - 1) ** 2 + 3
HALF = (0.5, 0.5, 0.5)
IMAGENET = normalisation(3, None, None)[0]


def block(add: Any, name: str, table: bool, scale: bool) -> None:
    for gamma in ("gamma_1", "gamma_2") if scale else ():
        add(f"{name}.{gamma}", WIDTH, spread=1.0)
    for norm in ("norm1", "norm2"):
        add(f"{name}.{norm}.weight", WIDTH, shift=1.0)
        add(f"{name}.{norm}.bias", WIDTH)
    add(f"{name}.attn.q_bias", WIDTH)
    add(f"{name}.attn.v_bias", WIDTH)
    add(f"{name}.attn.qkv.weight", 3 * WIDTH, WIDTH)
    if table:
        add(f"{name}.attn.relative_position_bias_table", ROWS, HEADS, spread=2.0)
        add(f"{name}.attn.relative_position_index", 17, 17)
    for layer, inputs, outputs in (("attn.proj", 1, 1), ("mlp.fc1", 1, 4), ("mlp.fc2", 4, 1)):
        add(f"{name}.{layer}.weight", outputs * WIDTH, inputs * WIDTH)
        add(f"{name}.{layer}.bias", outputs * WIDTH)


def beit_state(
    *, shared: bool = False, own: bool = False, absolute: bool = False, mean: bool = False, scale: bool = True
) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the authors' `VisionTransformerForMaskedImageModeling`, or with `own`
    and `mean` those of the fine-tuned classifier."""
    generator = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, spread: float = 0.3, shift: float = 0.0) -> None:
        state[name] = shift + spread * torch.randn(shape, generator=generator)

    add("cls_token", 1, 1, WIDTH)
    if absolute:
        add("pos_embed", 1, 1 + SIDE**2, WIDTH)
    if shared:
        add("rel_pos_bias.relative_position_bias_table", ROWS, HEADS, spread=2.0)
        add("rel_pos_bias.relative_position_index", 17, 17)
    add("patch_embed.proj.weight", WIDTH, 3, PATCH, PATCH, spread=0.1)
    add("patch_embed.proj.bias", WIDTH)
    for number in range(DEPTH):
        block(add, f"blocks.{number}", own, scale)
    norm = "fc_norm" if mean else "norm"
    add(f"{norm}.weight", WIDTH, shift=1.0)
    add(f"{norm}.bias", WIDTH)
    return state


PREDICTOR = {
    "mask_token": torch.ones(1, 1, WIDTH),
    "lm_head.weight": torch.ones(7, WIDTH),
    "lm_head.bias": torch.ones(7),
}
AGGREGATION = {"cls_pt_layers.0.norm1.weight": torch.ones(WIDTH), "cls_pt_layers.1.attn.q_bias": torch.ones(WIDTH)}
CLASSIFIER = {"head.weight": torch.ones(5, WIDTH), "head.bias": torch.ones(5)}


def oracle(state: dict[str, Tensor]) -> Any:
    """The model of transformers."""
    from transformers import BeitConfig, BeitModel

    config = BeitConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        num_attention_heads=HEADS,
        intermediate_size=4 * WIDTH,
        image_size=SIZE,
        patch_size=PATCH,
        layer_norm_eps=1e-6,
        layer_scale_init_value=0.1 if "blocks.0.gamma_1" in state else 0.0,
        use_shared_relative_position_bias="rel_pos_bias.relative_position_bias_table" in state,
        use_relative_position_bias="blocks.0.attn.relative_position_bias_table" in state,
        use_absolute_position_embeddings="pos_embed" in state,
        use_mean_pooling="fc_norm.weight" in state,
        attn_implementation="eager",
    )
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "rel_pos_bias": "shared_position_bias",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "blocks": "layers",
        "gamma_": "lambda_",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "fc_norm": "pooler.layernorm",
        "attn.relative_position_bias_table": "relative_position_bias.relative_position_bias_table",
        "attn.q_bias": "attention.q_proj.bias",
        "attn.v_bias": "attention.v_proj.bias",
        "attn.proj": "attention.o_proj",
    }
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        if "relative_position_index" in name:
            continue
        if name.endswith("attn.qkv.weight"):
            start = name.replace("blocks", "layers").removesuffix("attn.qkv.weight")
            for part, rows in zip("qkv", value.chunk(3), strict=True):
                theirs[f"{start}attention.{part}_proj.weight"] = rows
            continue
        for old, new in names.items():
            name = name.replace(old, new)
        theirs[name.replace("norm.", "layernorm.") if name.startswith("norm.") else name] = value
    model = BeitModel(config)
    model.load_state_dict(theirs)
    return model.eval()


def images() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(7))


def load(content: Any, tmp_path: Path, **options: Any) -> LoadedBackbone:
    torch.save(content, tmp_path / "beit.pth")
    return load_weights(str(tmp_path / "beit.pth"), **options)


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("second", [False, True])
def test_pre_trained_with_a_shared_bias(tmp_path: Path, second: bool) -> None:
    state = beit_state(shared=True)
    extra = PREDICTOR | (AGGREGATION if second else {})
    wrapper = "module" if second else "model"
    loaded = load({wrapper: state | extra, "epoch": 799}, tmp_path)
    assert isinstance(loaded.backbone, TimmBackbone) and loaded.backbone.has_class_token
    with torch.no_grad():
        expected = oracle(state)(images()).last_hidden_state
        assert relative(loaded.backbone(images()), expected) < 1e-5
    index = {"rel_pos_bias.relative_position_index"}
    assert set(loaded.unused) == (extra.keys() | index) - {"mask_token"}
    assert loaded.mask_token is not None and loaded.mask_token.shape == (1, WIDTH)
    method = "BEiT v2" if second else "BEiT"
    assert (loaded.origin.method, loaded.origin.layout) == (method, f"pre-trained {method} checkpoint")
    assert loaded.origin.epoch == 799
    assert loaded.mean == (IMAGENET if second else HALF) and loaded.image_size == SIZE
    assert any("no class token" in note for note in loaded.notes) != second


def test_random_weights_to_compare_with_see_the_image(tmp_path: Path) -> None:
    """timm's own layer scale of 1e-5 hides the image from the class token of a fresh network."""
    torch.manual_seed(0)
    fresh = load({"model": beit_state(shared=True)}, tmp_path).rebuild().eval()
    with torch.no_grad():
        first, second = fresh(images())[:, 0]
    assert (first - second).abs().max() > 1e-3


def test_fine_tuned_with_a_bias_of_each_block(tmp_path: Path) -> None:
    state = beit_state(own=True, mean=True)
    loaded = load({"model": state | CLASSIFIER}, tmp_path)
    assert isinstance(loaded.backbone, TimmBackbone) and not loaded.backbone.has_class_token
    with torch.no_grad():
        expected = oracle(state)(images()).pooler_output
        assert relative(loaded.backbone(images())[:, 0], expected) < 1e-5
    assert loaded.origin.layout == "fine-tuned BEiT checkpoint" and loaded.mean == HALF
    assert CLASSIFIER.keys() < set(loaded.unused)
    assert len(loaded.notes) == 2 and "classifier was left out" in loaded.notes[0]


@pytest.mark.parametrize("scale", [False, True])
def test_absolute_positions_run_on_our_network(tmp_path: Path, scale: bool) -> None:
    state = beit_state(absolute=True, scale=scale)
    loaded = load({"model": state | PREDICTOR}, tmp_path, heads=HEADS)
    assert isinstance(loaded.backbone, ViT) and trainable(loaded).shape.depth == DEPTH
    with torch.no_grad():
        assert relative(loaded.backbone(images()), oracle(state)(images()).last_hidden_state) < 1e-5
    assert loaded.mean == IMAGENET


def test_absolute_positions_and_the_mean_of_patches(tmp_path: Path) -> None:
    state = beit_state(absolute=True, mean=True, scale=False)
    loaded = load({"model": state | CLASSIFIER}, tmp_path, heads=HEADS)
    with torch.no_grad():
        assert relative(loaded.backbone(images())[:, 0], oracle(state)(images()).pooler_output) < 1e-5


def test_statistics_that_a_training_says(tmp_path: Path) -> None:
    state = beit_state(own=True, mean=True) | CLASSIFIER
    for imagenet, mean in ((True, IMAGENET), (False, HALF)):
        arguments = argparse.Namespace(imagenet_default_mean_and_std=imagenet, model="beit_base_patch16_224")
        loaded = load({"model": state, "args": arguments}, tmp_path)
        assert loaded.mean == mean and len(loaded.notes) == 1
        assert loaded.origin.arguments["model"] == "beit_base_patch16_224"


@pytest.mark.parametrize("kind", ["shared", "own", "absolute"])
def test_blocks_and_attention(tmp_path: Path, kind: str) -> None:
    """What visualisation and linear probing ask for, also where our network runs it."""
    state = beit_state(**{kind: True})
    loaded, model = load({"model": state}, tmp_path, heads=HEADS), oracle(state)
    with torch.no_grad():
        output = model(images(), output_hidden_states=True, output_attentions=True)
        blocks = loaded.backbone.last_blocks(images(), 2)
        for found, raw in zip(blocks, output.hidden_states[-2:], strict=True):
            normed = model.layernorm(raw)
            assert relative(found.cls, normed[:, 0]) < 1e-5 and relative(found.patches, normed[:, 1:]) < 1e-5
            assert relative(found.raw, raw[:, 1:]) < 1e-5
        for queries in ([0], [3, 0, 16], list(range(17))):
            rows = loaded.backbone.attention(images(), torch.tensor(queries))
            assert relative(rows, output.attentions[-1][:, :, queries]) < 1e-5
    assert loaded.backbone.heads == HEADS


def test_training_is_refused_with_the_reason(tmp_path: Path) -> None:
    for kind in ("shared", "own"):
        with pytest.raises(WeightsError, match="relative position bias") as caught:
            trainable(load({"model": beit_state(**{kind: True})}, tmp_path))
        assert "evaluat" in caught.value.hint


def test_a_tokenizer_is_no_backbone(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer of BEiT v2 \(VQ-KD\)"):
        load(
            {"model": {"encoder.cls_token": torch.ones(1, 1, 8), "quantize.embedding.weight": torch.ones(4, 2)}},
            tmp_path,
        )


def test_missing_tensors_are_told(tmp_path: Path) -> None:
    state = beit_state(shared=True)
    del state["blocks.2.attn.v_bias"]
    with pytest.raises(WeightsError, match=r"missing: backbone\.blocks\.2\.attn\.v_bias"):
        load({"model": state}, tmp_path)
    del state["patch_embed.proj.weight"]
    with pytest.raises(WeightsError, match=r"no BEiT that is known: patch_embed\.proj\.weight"):
        load({"model": state}, tmp_path)
