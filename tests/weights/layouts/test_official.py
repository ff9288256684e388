import argparse
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ibot_cli.core import swin
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.errors import WeightsError
from ibot_cli.weights.layouts.official import translate
from ibot_cli.weights.load import load_weights

GOLDEN = Path(__file__).parents[2] / "data" / "golden"
NAMES = ["ibot_tiny", "ibot_tiny_two_views"]


def recorded(name: str) -> dict:
    return torch.load(GOLDEN / f"{name}.pt", weights_only=True)


def official(name: str) -> dict:
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(GOLDEN / f"{name}_checkpoint.pth", weights_only=True)


def checkpoint(name: str) -> str:
    return str(GOLDEN / f"{name}_checkpoint.pth")


@pytest.mark.parametrize("name", NAMES)
def test_teacher_reproduces_the_recorded_features_and_logits(name: str) -> None:
    golden = recorded(name)
    loaded = load_weights(checkpoint(name), heads=golden["meta"]["num_heads"])
    step = golden["steps"][0]
    with torch.no_grad():
        tokens = loaded.backbone(step["global_views"].flatten(0, 1))
        torch.testing.assert_close(tokens, step["teacher_features_global"], atol=1e-5, rtol=0)
        if step["local_views"] is not None:
            local = loaded.backbone(step["local_views"].flatten(0, 1))
            torch.testing.assert_close(local, step["teacher_features_local"], atol=1e-5, rtol=0)
        bottleneck = loaded.head.bottleneck(tokens)
        cls, patch = loaded.head.cls_logits(bottleneck[:, 0]), loaded.head.patch_logits(bottleneck[:, 1:])
        torch.testing.assert_close(cls, step["teacher_cls"], atol=1e-5, rtol=0)
        torch.testing.assert_close(patch, step["teacher_patch"], atol=1e-5, rtol=0)
    assert (loaded.image_size, loaded.channels) == (32, 3)
    assert not loaded.backbone.training and not loaded.head.training


@pytest.mark.parametrize("which", ["student", "teacher"])
@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_loaded_or_named(name: str, which: str) -> None:
    golden = recorded(name)
    loaded = load_weights(checkpoint(name), which=which, heads=golden["meta"]["num_heads"])
    ours = {f"backbone.{key}": value for key, value in loaded.backbone.state_dict().items()}
    ours |= {f"head.{key}": value for key, value in loaded.head.state_dict().items()}
    theirs = {key.removeprefix("module."): value for key, value in official(name)[which].items()}
    unused = {key.removeprefix("module.") for key in loaded.unused}
    assert unused == {"head.last_layer2.weight_g", "head.last_layer2.weight_v"}  # the shared layer, saved twice
    assert ours.keys() | unused == theirs.keys() and not ours.keys() & unused
    assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert ("backbone.masked_embed" in ours) == (which == "student")


def save(tmp_path: Path, content: object) -> str:
    torch.save(content, tmp_path / "a.pth")
    return str(tmp_path / "a.pth")


def teacher(name: str = "ibot_tiny") -> dict[str, Tensor]:
    return official(name)["teacher"]


@pytest.mark.parametrize("layout", ["state_dict", "flat", "module", "with_head", "classifier", "no_args"])
def test_other_layouts_give_the_same_backbone(tmp_path: Path, layout: str) -> None:
    backbone = {key.removeprefix("backbone."): value for key, value in teacher().items() if key.startswith("backbone.")}
    head = {key: value for key, value in teacher().items() if key.startswith("head.")}
    contents = {
        "state_dict": {"state_dict": backbone},
        "flat": backbone,
        "module": {"teacher": {f"module.{key}": value for key, value in teacher().items()}},
        "with_head": {"state_dict": backbone | head},
        "classifier": backbone | {"fc.weight": torch.ones(2), "fc.bias": torch.ones(2), "head.weight": torch.ones(2)},
        "no_args": {"teacher": teacher(), "epoch": 3},
    }
    expected = load_weights(checkpoint("ibot_tiny"), heads=3)
    loaded = load_weights(save(tmp_path, contents[layout]), heads=3)
    assert loaded.weights_hash == expected.weights_hash
    assert (loaded.head is None) == (layout in ("state_dict", "flat", "classifier"))
    if layout == "classifier":
        assert set(loaded.unused) == {"fc.weight", "fc.bias", "head.weight"}


def test_separate_prototypes_and_batch_norm_and_new_names(tmp_path: Path) -> None:
    head = Head(48, 10, 7, hidden_size=12, bottleneck_size=6, norm="batch")
    state = {f"head.{key}": value for key, value in head.state_dict().items()}
    renamed = {
        key.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): value
        for key, value in state.items()
    }
    counters = {f"head.mlp.{index}.num_batches_tracked": torch.tensor(5) for index in (1, 4)}
    backbone = {key: value for key, value in teacher().items() if key.startswith("backbone.")}
    loaded = load_weights(save(tmp_path, {"teacher": backbone | renamed | counters}), heads=3)
    assert loaded.head is not None and loaded.head.state_dict().keys() == head.state_dict().keys()
    assert all(torch.equal(value, head.state_dict()[key]) for key, value in loaded.head.state_dict().items())
    assert set(loaded.unused) == set(counters)


def test_a_head_of_another_kind_is_named_not_loaded(tmp_path: Path) -> None:
    state = {key: value for key, value in teacher().items() if not key.startswith("head.last_layer")}
    loaded = load_weights(save(tmp_path, {"teacher": state}), heads=3)
    assert loaded.head is None
    assert set(loaded.unused) == {key for key in state if key.startswith("head.")}


def test_missing_and_unexpected_tensors_are_listed(tmp_path: Path) -> None:
    state = teacher()
    del state["backbone.norm.weight"]
    state["backbone.blocks.0.gamma_1"] = torch.ones(48)
    state["backbone.cls_token"] = torch.ones(1, 1, 5)
    with pytest.raises(WeightsError) as caught:
        load_weights(save(tmp_path, {"teacher": state}), heads=3)
    text = caught.value.message
    assert "missing: backbone.norm.weight;" in text
    assert "unexpected: backbone.blocks.0.gamma_1;" in text
    assert "backbone.cls_token is [1, 1, 5], not [1, 1, 48]" in text


def test_heads_that_no_tensor_shows(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"attention heads cannot be told from the weights \(width 48\)") as caught:
        load_weights(checkpoint("ibot_tiny"))
    assert caught.value.hint == "Say it with --heads N."
    content = official("ibot_tiny")
    content["args"].num_heads = 3
    assert load_weights(save(tmp_path, content)).backbone.heads == 3


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (512, 8)])
def test_heads_of_usual_widths(tmp_path: Path, width: int, heads: int) -> None:
    shape = {"image_size": 16, "patch_size": 8, "channels": 1, "width": width, "depth": 1, "heads": heads}
    backbone = build_backbone(arch="vit_tiny", **shape)
    loaded = load_weights(save(tmp_path, backbone.state_dict()))
    assert (loaded.backbone.heads, loaded.backbone.num_blocks, loaded.channels) == (heads, 1, 1)
    assert (loaded.backbone.stride, loaded.image_size) == (8, 16)


def as_the_authors_save(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Swin's reductions belong to the stage before, and computed tables are saved."""
    shifted = {
        re.sub(r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key): value
        for key, value in state.items()
    }
    return shifted | {
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
        "layers.0.blocks.1.attn_mask": torch.zeros(64, 49, 49),
    }


@pytest.mark.parametrize("window_size", [7, 14])
def test_swin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window_size: int) -> None:
    monkeypatch.setitem(swin.SIZES, "swin_tiny", swin.Size(8, (2, 1, 1, 1), (1, 1, 2, 2)))
    backbone = build_backbone(arch="swin_tiny", image_size=224, window_size=window_size).eval()
    state = as_the_authors_save(backbone.state_dict())
    assert "layers.0.downsample.norm.weight" in state and "layers.3.downsample.norm.weight" not in state
    loaded = load_weights(save(tmp_path, {"state_dict": state}))
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in loaded.backbone.state_dict().items())
    assert len(loaded.unused) == 2
    assert load_weights(save(tmp_path, backbone.state_dict())).weights_hash == loaded.weights_hash  # our own names


def test_translate_drops_a_second_layer_only_when_equal() -> None:
    layer = torch.ones(3, 2)
    state = {"head.last_layer.weight_v": layer, "head.last_layer2.weight_v": layer.clone()}
    assert translate(state)[1] == ["head.last_layer2.weight_v"]
    state["head.last_layer2.weight_v"] = layer + 1
    assert translate(state)[1] == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (["a list"], "holds a list, not weights"),
        ({"epoch": 3, "optimizer": {}}, "has no known layout; it holds epoch, optimizer"),
        ({"student": {"a": torch.ones(1)}}, "has no teacher, only the student"),
        ({"student": {"a": torch.ones(1)}, "teacher": 5}, "has no teacher, only the student"),
        ({"teacher": 5}, "has neither a student nor a teacher"),
        ({"state_dict": {"conv1.weight": torch.ones(1)}}, r"patch_embed\.proj\.weight is missing"),
        ({"patch_embed.proj.weight": torch.ones(8, 3, 4, 4)}, "pos_embed is missing"),
        (
            {"patch_embed.proj.weight": torch.ones(8, 3, 4, 4), "layers.0.blocks.0.norm1.weight": torch.ones(8)},
            r"unknown Swin: width 8, depths \[1, 0, 0, 0\]",
        ),
    ],
)
def test_what_is_no_such_checkpoint(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(save(tmp_path, content))
    assert caught.value.hint


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_what_a_full_checkpoint_says_about_itself(which: str) -> None:
    content = official("ibot_tiny")
    loaded = load_weights(checkpoint("ibot_tiny"), which=which, heads=3)
    origin = loaded.origin
    assert (origin.layout, origin.method) == ("full iBOT checkpoint", "iBOT")
    assert (origin.networks, origin.which) == (("student", "teacher"), which)
    assert origin.epoch == content["epoch"] and origin.arguments == vars(content["args"])
    token = next(value for name, value in content["student"].items() if name.endswith("masked_embed"))
    assert torch.equal(loaded.mask_token, token)


def test_dino_and_ibot_are_told_apart(tmp_path: Path) -> None:
    state = {key: value for key, value in teacher().items() if "last_layer2" not in key}
    content = {"student": state, "teacher": state, "dino_loss": {"center": torch.ones(1, 8)}, "epoch": 100}
    loaded = load_weights(save(tmp_path, content), heads=3)
    assert (loaded.origin.layout, loaded.origin.method) == ("full DINO checkpoint", "DINO")
    assert loaded.head is not None and loaded.mask_token is None
    loaded = load_weights(save(tmp_path, {"teacher": teacher()}), heads=3)  # the second prototypes tell
    assert loaded.origin.method == "iBOT"
    bare = {key: value for key, value in state.items() if key.startswith("backbone.")}
    loaded = load_weights(save(tmp_path, bare), heads=3)  # nothing tells
    assert (loaded.origin.layout, loaded.origin.method) == ("state dict", None)


def test_a_student_without_teacher(tmp_path: Path) -> None:
    path = save(tmp_path, {"student": official("ibot_tiny")["student"]})
    with pytest.raises(WeightsError, match=rf"{path} has no teacher, only the student") as caught:
        load_weights(path, heads=3)
    assert caught.value.hint == "Ask for it with --which student."
    assert load_weights(path, which="student", heads=3).origin.networks == ("student",)


def test_arguments_that_are_not_plain_become_text(tmp_path: Path) -> None:
    content = official("ibot_tiny")
    content["args"].betas, content["args"].inner = (0.9, 0.999), argparse.Namespace(a=1)
    arguments = load_weights(save(tmp_path, content), heads=3).origin.arguments
    assert arguments["betas"] == [0.9, 0.999] and arguments["inner"] == "Namespace(a=1)"
