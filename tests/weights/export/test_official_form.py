"""The authors' layout: keys, shapes, order and values as in the recorded checkpoints of their own code."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from ibot_cli.core.heads import BatchNorm, Head
from ibot_cli.errors import WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.official_arguments import optimizer_of
from ibot_cli.weights.export.official_form import OFFICIAL
from ibot_cli.weights.export.official_names import can_be_said, head_names
from ibot_cli.weights.export.request import open_subject
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.files import read_weights_file
from ibot_cli.weights.load import load_weights
from tests.train.runs import make_images, pretrain
from tests.weights.export.networks import (
    REGISTERS,
    SWIN,
    VIT,
    loaded_backbone,
    loaded_classifier,
    narrow_swin,
)

__all__ = ["narrow_swin"]
DATA = Path(__file__).parents[2] / "data" / "golden"
GOLDEN = {"ibot_tiny": 3, "ibot_tiny_two_views": 2}
TOP = ["student", "teacher", "optimizer", "epoch", "args", "ibot_loss"]


def written(weights: str | Path, folder: Path, **asked: Any) -> tuple[Subject, ExportOptions, dict[str, Any]]:
    with_head = asked.pop("with_head", False)
    subject, options = open_subject(str(weights), OFFICIAL, ExportOptions(with_head=with_head), **asked)
    OFFICIAL.check(subject, options)
    OFFICIAL.write(subject, folder, options)
    return subject, options, read_weights_file(folder / "checkpoint.pth")


def differences(subject: Subject, folder: Path) -> dict[str, float]:
    images = comparison_images(subject)(subject.image_size)
    return compare(subject.network, OFFICIAL.read_back(folder), images, OFFICIAL.leaves_out)


def shapes(state: dict[str, Tensor]) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, tuple(value.shape)) for name, value in state.items()]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_checkpoint_of_the_authors_leaves_as_it_came(name: str, tmp_path: Path) -> None:
    path = DATA / f"{name}_checkpoint.pth"
    subject, _, found = written(path, tmp_path, heads=GOLDEN[name])
    golden = read_weights_file(path)
    assert list(found) == list(golden) == TOP
    for part in ("student", "teacher", "ibot_loss"):
        assert shapes(found[part]) == shapes(golden[part])
        assert all(torch.equal(found[part][key], value) for key, value in golden[part].items())
    assert found["epoch"] == golden["epoch"] and isinstance(found["args"], argparse.Namespace)
    assert vars(golden["args"]).items() <= vars(found["args"]).items()
    assert found["optimizer"]["param_groups"] == golden["optimizer"]["param_groups"]
    assert max(differences(subject, tmp_path).values()) <= 1e-5


def test_a_run_leaves_in_full(run: Path, tmp_path: Path) -> None:
    subject, _, found = written(run, tmp_path)
    golden = read_weights_file(DATA / "ibot_tiny_checkpoint.pth")
    assert list(found) == TOP and list(found["student"]) == list(golden["student"])
    assert list(found["teacher"]) == list(golden["teacher"])
    assert shapes(found["ibot_loss"]) == [("center", (1, 16)), ("center2", (1, 1, 16))]
    student = found["student"]
    assert torch.equal(student["module.head.last_layer2.weight_v"], student["module.head.last_layer.weight_v"])
    arguments = vars(found["args"])
    assert {"arch": "vit_tiny", "patch_size": 4, "out_dim": 16, "shared_head": True, "num_heads": 2, "embed_dim": 16,
            "depth": 2, "local_crops_number": 2, "norm_in_head": None}.items() <= arguments.items()  # fmt: skip
    result = differences(subject, tmp_path)
    assert set(result) == {"cls", "patches", "cls_logits", "patch_logits"} and max(result.values()) <= 1e-5
    for which in ("student", "teacher"):
        before, after = (load_weights(str(path), which=which) for path in (run, tmp_path / "checkpoint.pth"))
        assert before.weights_hash == after.weights_hash and before.preparation == after.preparation
        assert before.head is not None and after.head is not None
        assert all(torch.equal(value, after.head.state_dict()[key]) for key, value in before.head.state_dict().items())
        assert before.scale is not None and after.scale is not None
        assert before.scale.cls_temp == after.scale.cls_temp


def test_the_optimiser_is_in_the_order_of_the_authors_parameters(run: Path, tmp_path: Path) -> None:
    """Theirs: all named parameters with two or more dimensions, then the others; in weight norm g before v."""
    _, _, found = written(run, tmp_path)
    state = {name: value for name, value in found["student"].items() if "last_layer2" not in name}
    decayed = [name for name, value in state.items() if value.ndim > 1]
    plain = [name for name, value in state.items() if value.ndim == 1]
    moments = found["optimizer"]["state"]
    assert [tuple(moments[number]["exp_avg"].shape) for number in range(len(moments))] == [
        tuple(state[name].shape) for name in (*decayed, *plain)
    ]
    ours = checkpoint.latest(run / "checkpoints")
    assert ours is not None
    names = [name for name, value in ours.state["student"].items() if value.ndim > 1]
    number = names.index("head.last_layer.weight_g")
    theirs = decayed.index("module.head.last_layer.weight_g")
    assert number != theirs
    assert torch.equal(moments[theirs]["exp_avg"], ours.state["optimizer"]["state"][number]["exp_avg"])


def test_prototypes_without_a_trained_norm_keep_their_places() -> None:
    student = {"a": torch.zeros(2, 2), "head.last_layer.weight_v": torch.zeros(3, 2),
               "head.last_layer.weight_g": torch.zeros(3, 1), "b": torch.zeros(2)}  # fmt: skip
    state = {"state": {0: "a", 1: "v", 2: "b"}, "param_groups": [{"params": [0, 1]}, {"params": [2]}]}
    assert optimizer_of(state, student, shared=True)["state"] == {0: "a", 1: "v", 2: "b"}
    state = {"state": {0: "a", 1: "v", 2: "g", 3: "b"}, "param_groups": [{"params": [0, 1, 2]}, {"params": [3]}]}
    assert optimizer_of(state, student, shared=True)["state"] == {0: "a", 1: "g", 2: "v", 3: "b"}


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"which": "teacher"}, {"cls_token", "pos_embed"}),
        ({"which": "student"}, {"masked_embed"}),
        ({"which": "teacher", "with_head": True}, {"head.mlp.0.weight", "head.last_layer2.weight_g"}),
        ({"image_size": 24}, {"cls_token"}),
    ],
)
def test_the_extracted_backbone(run: Path, asked: dict[str, Any], names: set[str], tmp_path: Path) -> None:
    subject, options, found = written(run, tmp_path, **asked)
    assert options.student is None and names <= found["state_dict"].keys()
    assert ("masked_embed" in found["state_dict"]) == ("masked_embed" in names)
    assert any(name.startswith("head.") for name in found["state_dict"]) == bool(asked.get("with_head"))
    assert max(differences(subject, tmp_path).values()) <= 1e-5
    loaded = load_weights(str(tmp_path / "checkpoint.pth"))
    assert loaded.image_size == asked.get("image_size", 16) and loaded.mean == subject.mean


def test_a_swin_has_its_names_order_and_tables(narrow_swin: object, tmp_path: Path) -> None:
    loaded = loaded_backbone(SWIN)
    token = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    loaded = replace(loaded, mask_token=token, origin=replace(loaded.origin, which="student"))
    subject = export_subject(loaded, 128)
    OFFICIAL.write(subject, tmp_path, ExportOptions())
    state = read_weights_file(tmp_path / "checkpoint.pth")["state_dict"]
    names = list(state)
    assert names[:3] == ["masked_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"]
    assert names[-2:] == ["norm.weight", "norm.bias"]
    first = names.index("layers.1.blocks.0.norm1.weight")
    reduction = ["reduction.weight", "norm.weight", "norm.bias"]  # at the end of the stage before, in this order
    assert names[first - 3 : first] == [f"layers.0.downsample.{name}" for name in reduction]
    table = names.index("layers.0.blocks.0.attn.relative_position_bias_table")
    assert names[table + 1 : table + 3] == [f"layers.0.blocks.0.attn.{name}" for name in
                                            ("relative_position_index", "qkv.weight")]  # fmt: skip
    timm_swin = SwinTransformer(img_size=128, window_size=2, embed_dim=16, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8))
    for name, buffer in timm_swin.named_buffers():
        if name.endswith("relative_position_index"):
            assert torch.equal(state[name], buffer)
    assert max(differences(subject, tmp_path).values()) <= 1e-5
    assert load_weights(str(tmp_path / "checkpoint.pth")).shape == subject.shape


def test_the_backbone_of_a_classifier_on_the_class_token(tmp_path: Path) -> None:
    subject = export_subject(loaded_classifier(VIT, "cls"))
    OFFICIAL.write(subject, tmp_path, ExportOptions())
    assert max(differences(subject, tmp_path).values()) <= 1e-5
    assert "no place for the classifier" in OFFICIAL.notes(subject, ExportOptions())[0]


def test_the_printed_lines_open_a_backbone_and_a_whole_checkpoint(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (50, 40), (90, 120, 200)).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    for which, keys in ((None, TOP), ("teacher", ["state_dict", "ibot"])):
        subject, _, _ = written(run, tmp_path, which=which)
        namespace: dict[str, Any] = {}
        exec(OFFICIAL.usage(subject, "checkpoint.pth"), namespace)
        assert list(namespace["content"]) == keys
        assert torch.equal(namespace["tokens"][:, 0], subject.network(namespace["images"])["cls"])


def test_a_head_with_two_batch_norms_stays_behind(tmp_path: Path) -> None:
    sets = ("train.epochs=1", "monitor.knn_epochs=0", "head.norm=batch")
    pretrain(make_images(tmp_path / "images", per_class=6), tmp_path / "run", *sets)
    subject, options, found = written(tmp_path / "run", tmp_path)
    assert list(found) == TOP and not any("head" in name for name in found["student"])
    assert "the batch normalisations of the projection head differ" in OFFICIAL.notes(subject, options)[0]
    assert max(differences(subject, tmp_path).values()) <= 1e-5
    with pytest.raises(WeightsError, match="--with-head: the batch normalisations of the projection head differ"):
        written(tmp_path / "run", tmp_path, with_head=True)


def test_a_head_with_one_batch_norm_has_the_authors_names() -> None:
    with torch.random.fork_rng(devices=[]):
        head = Head(4, 5, hidden_size=6, bottleneck_size=3, norm="batch")
    assert can_be_said(head)
    theirs = [f"mlp.{place}.{name}" for place, names in (
        (0, ("weight", "bias")), (1, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        (3, ("weight", "bias")), (4, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        (6, ("weight", "bias")),
    ) for name in names]  # fmt: skip
    assert [name for name in head_names(head) if name.startswith("mlp.")] == theirs
    assert isinstance(head.mlp[4], BatchNorm)
    head.mlp[4].running_mean += 1
    assert not can_be_said(head)


def test_a_head_of_one_layer_is_that_layer() -> None:
    with torch.random.fork_rng(devices=[]):
        head = Head(4, 5, 7, bottleneck_size=3, num_layers=1)
    assert {name: tuple(value.shape) for name, value in head_names(head).items()} == {
        "mlp.weight": (3, 4), "mlp.bias": (3,), "last_layer.weight_g": (5, 1), "last_layer.weight_v": (5, 3),
        "last_layer2.weight_g": (7, 1), "last_layer2.weight_v": (7, 3),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (lambda: loaded_backbone(REGISTERS), "has registers, which the authors' code has not"),
        (lambda: loaded_classifier(VIT, "mean"), "fine-tuned with mean pooling, which took away the final norm"),
    ],
)
def test_what_the_authors_network_cannot_hold_is_refused(loaded: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as told:
        OFFICIAL.check(export_subject(loaded()), ExportOptions())
    assert told.value.hint == "Export it with --to safetensors."
