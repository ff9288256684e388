"""Weights of any origin in the student and the teacher of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ibot_cli.config.load import from_mapping
from ibot_cli.config.schema import Config, HeadConfig, InitConfig
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Objective
from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.runs import checkpoint
from ibot_cli.train.build import objective_of
from ibot_cli.train.inherited import network_settings
from ibot_cli.train.start import Beginning, Start, begin, head_fits, head_settings, read_start
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.shapes import BackboneShape
from ibot_cli.weights.trainable import Trainable, trainable
from tests.core import tiny
from tests.weights import finetuned_files
from tests.weights.layouts.test_beit import beit_state
from tests.weights.layouts.test_dinov2 import backbone_state as dinov2_state
from tests.weights.layouts.test_mae import decoder, timm_vit

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "ibot_tiny_checkpoint.pth"
HEAD = {"hidden_size": 24, "bottleneck_size": 8, "prototypes": 12}


def start_of(path: Path, heads: int | None = None, **init: Any) -> Start:
    start = read_start(InitConfig(weights=str(path), **init), heads)
    assert start is not None
    return start


def config_for(start: Start, **changes: Any) -> Config:
    """A run whose network and head are those of the weights."""
    shape, head = start.parts.shape, start.loaded.head
    said = {
        **network_settings(shape),
        "views.global_size": shape.image_size,
        "views.local_size": shape.image_size // 2,
        "data.channels": shape.channels,
        **{f"head.{name}": value for name, value in ({} if head is None else head_settings(head)).items()},
        **({f"head.{name}": value for name, value in HEAD.items()} if head is None else {}),
        **changes,
    }
    return from_mapping(said, "test")


def filled(start: Start, config: Config) -> tuple[Objective, Beginning]:
    objective, beginning = objective_of(config), begin(start, config)
    beginning.fill(objective)
    return objective, beginning


def our_checkpoint(path: Path, **changes: Any) -> Objective:
    """A checkpoint as `ibot pretrain` writes it; returns what is inside."""
    said = {
        **network_settings(BackboneShape(arch="vit_tiny", image_size=16, patch_size=4, width=16, depth=2, heads=2)),
        "views.global_size": 16, "views.local_size": 8, "data.channels": 1,
        **{f"head.{name}": value for name, value in HEAD.items()}, **changes,
    }  # fmt: skip
    config = from_mapping(said, "test")
    objective = objective_of(config)
    for number, module in enumerate((objective.student, objective.teacher)):
        tiny.scatter(module, number)
    objective.center.normal_()
    objective.patch_center.normal_()
    state = {
        "config": {path: list(v) if isinstance(v, tuple) else v for path, v in said.items()},
        "student": objective.student.state_dict(),
        "teacher": objective.teacher.state_dict(),
        "centers": {"cls": objective.center, "patch": objective.patch_center},
    }
    checkpoint.save(path, state, step=7, epoch=1)
    return objective


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return tiny.same(
        {name: value for name, value in ours.items() if name != "backbone.masked_embed"},
        {name: value for name, value in theirs.items() if name != "backbone.masked_embed"},
    )


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_both_networks_are_the_one_of_our_checkpoint(tmp_path: Path, which: str) -> None:
    before = our_checkpoint(tmp_path / "a.pt", **{"head.norm": "batch"})
    start = start_of(tmp_path / "a.pt", which=which)
    objective, beginning = filled(start, config_for(start))
    wanted = dict(getattr(before, which).state_dict())
    assert same(dict(objective.student.state_dict()), wanted) and same(dict(objective.teacher.state_dict()), wanted)
    assert torch.equal(objective.student.backbone.masked_embed, before.student.backbone.masked_embed)
    assert torch.equal(objective.center, before.center) and torch.equal(objective.patch_center, before.patch_center)
    assert not any(value.requires_grad for value in objective.teacher.parameters())
    assert beginning.sentences[1:] == ("head kept, with its centres", "mask token kept")
    assert beginning.record()["head"] == "kept" and len(beginning.record()["weights_hash"]) == 64


def test_the_official_checkpoint_with_head_mask_token_and_centres() -> None:
    content = torch.load(GOLDEN, weights_only=False)
    start = start_of(GOLDEN, 3)
    objective, beginning = filled(start, config_for(start))
    theirs = {name.removeprefix("module."): value for name, value in content["teacher"].items()}
    for network in (objective.student, objective.teacher):
        state = network.state_dict()
        assert all(torch.equal(state[name], value) for name, value in theirs.items() if name in state)
    student = {name.removeprefix("module."): value for name, value in content["student"].items()}
    assert torch.equal(objective.student.backbone.masked_embed, student["backbone.masked_embed"])
    assert torch.equal(objective.center, content["ibot_loss"]["center"])
    assert torch.equal(objective.patch_center.flatten(), content["ibot_loss"]["center2"].flatten())
    assert "head kept, with its centres" in beginning.sentences


def test_a_bare_backbone_gets_the_head_and_mask_token_of_the_seed(tmp_path: Path) -> None:
    backbone = tiny.vit(mask_token=False, channels=3)
    tiny.scatter(backbone, 3)
    save_file({name: value.contiguous() for name, value in backbone.state_dict().items()}, tmp_path / "a.safetensors")
    start = start_of(tmp_path / "a.safetensors", 2)
    config = config_for(start)
    objective, beginning = filled(start, config)
    fresh = objective_of(config)
    assert tiny.same(tiny.snapshot(objective.student.head), tiny.snapshot(fresh.student.head))
    assert tiny.same(tiny.snapshot(objective.teacher.head), tiny.snapshot(fresh.student.head))
    assert tiny.same(tiny.snapshot(objective.teacher.backbone), tiny.snapshot(backbone))
    assert objective.student.backbone.masked_embed is not None
    assert not objective.student.backbone.masked_embed.any() and not objective.center.any()
    assert beginning.sentences[1:] == ("head new, because the weights have none", "mask token new")


def test_a_head_of_other_sizes_is_new_and_without_centres(tmp_path: Path) -> None:
    our_checkpoint(tmp_path / "a.pt")
    start = start_of(tmp_path / "a.pt")
    objective, beginning = filled(start, config_for(start, **{"head.bottleneck_size": 6, "objective.patch": "none"}))
    assert beginning.head is None and not objective.center.any()
    assert beginning.sentences[1:] == ("head new, because theirs does not fit",)


def test_dinov2_with_registers_computes_the_same_in_student_and_teacher(tmp_path: Path) -> None:
    torch.save(dinov2_state(registers=2), tmp_path / "a.pth")
    start = start_of(tmp_path / "a.pth", 3)
    objective, beginning = filled(start, config_for(start))
    images = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_weights(str(tmp_path / "a.pth"), heads=3).backbone(images)
        for network in (objective.student.eval(), objective.teacher.eval()):
            torch.testing.assert_close(network.backbone(images), expected, atol=1e-5, rtol=1e-5)
    assert objective.student.backbone.register_tokens.requires_grad
    assert "mask token kept" in beginning.sentences


def test_mae_and_timm_compute_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, again = timm_vit(), timm_vit(pretrained_cfg_overlay={"input_size": (3, 16, 16)})
    torch.save({"model": model.state_dict() | decoder()}, tmp_path / "mae.pth")
    monkeypatch.setattr("timm.create_model", lambda *_, **__: again)
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for path in (str(tmp_path / "mae.pth"), "timm:vit_tiny_patch16_224"):
        start = read_start(InitConfig(weights=path), 2)
        assert start is not None
        objective, beginning = filled(start, config_for(start))
        with torch.no_grad():
            expected = model.forward_features(images)
            torch.testing.assert_close(objective.teacher.eval().backbone(images), expected, atol=1e-5, rtol=1e-5)
        assert (
            "mask token new" in beginning.sentences and "head new, because the weights have none" in beginning.sentences
        )
        assert beginning.record()["weights"] == path


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_fine_tuned_network(tmp_path: Path, pooling: Any) -> None:
    model = finetuned_files.write_run(tmp_path / "run", pooling=pooling)
    start = start_of(tmp_path / "run")
    objective, beginning = filled(start, config_for(start))
    theirs = model.backbone.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in objective.teacher.backbone.state_dict().items()
               if not name.startswith("norm.") or pooling == "cls")  # fmt: skip
    assert ("final norm new" in beginning.sentences) == (pooling == "mean")


def test_what_is_adapted_is_said(tmp_path: Path) -> None:
    our_checkpoint(tmp_path / "a.pt")
    start = start_of(tmp_path / "a.pt")
    changes = {"data.channels": 3, "views.global_size": 24, "views.local_size": 12}
    objective, beginning = filled(start, config_for(start, **changes))
    assert beginning.sentences[3:] == ("patch embedding 1 -> 3 channels", "positions 4x4 -> 6x6")
    assert objective.teacher.backbone.pos_embed.shape[1] == 37


def test_images_normalised_otherwise_are_told(tmp_path: Path) -> None:
    our_checkpoint(tmp_path / "a.pt", **{"data.mean": [0.25]})
    start = start_of(tmp_path / "a.pt")
    told = "images normalised otherwise than the weights saw them, as asked for"
    assert told in begin(start, config_for(start)).sentences
    assert told not in begin(start, config_for(start, **{"data.mean": [0.25]})).sentences
    coloured = begin(start, config_for(start, **{"data.channels": 3}))  # the patch embedding takes it in
    assert told not in coloured.sentences


def test_the_windows_of_a_swin_keep_their_shape(tmp_path: Path) -> None:
    shape = BackboneShape(arch="swin_tiny", image_size=224, window_size=7)
    with torch.device("meta"):
        parts = Trainable(shape=shape, tensors=shape.build().state_dict())
    our_checkpoint(tmp_path / "a.pt")
    start = replace(start_of(tmp_path / "a.pt"), parts=parts)
    with pytest.raises(UsageError, match="gives the windows of this Swin another shape") as caught:
        begin(start, config_for(start, **{"views.global_size": 64, "views.local_size": 32}))
    assert "Use views.global_size = 224" in str(caught.value.hint)


def test_networks_of_another_kind_are_refused(tmp_path: Path) -> None:
    torch.save(beit_state(shared=True), tmp_path / "beit.pth")
    with pytest.raises(WeightsError, match="relative position bias"):
        start_of(tmp_path / "beit.pth", 3)


def test_heads_that_no_tensor_shows_are_a_setting_here() -> None:
    with pytest.raises(WeightsError, match="attention heads cannot be told") as caught:
        start_of(GOLDEN)
    assert caught.value.hint == "Say it with --set model.heads=N."


def test_the_network_that_there_is_is_a_setting_here(tmp_path: Path) -> None:
    our_checkpoint(tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    del content["state"]["teacher"]
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="has no teacher, only the student") as caught:
        start_of(tmp_path / "a.pt")
    assert caught.value.hint == "Ask for it with --set init.which=student."
    assert start_of(tmp_path / "a.pt", which="student").loaded.origin.which == "student"


def test_no_weights_are_no_start() -> None:
    assert read_start(InitConfig(), None) is None


SIZES: list[dict[str, Any]] = [
    {},
    {"patch_prototypes": 5},
    {"num_layers": 1},
    {"num_layers": 2, "activation": "relu", "norm": "batch"},
    {"hidden_size": 7, "bottleneck_size": 5, "trainable_norm": False},
]


@pytest.mark.parametrize("options", SIZES)
def test_the_settings_of_a_head_build_it_again(options: dict[str, Any]) -> None:
    head = Head(16, 12, **options)
    config = replace(HeadConfig(), **head_settings(head))
    again = Head(
        16,
        config.prototypes or 0,
        None if config.shared else config.patch_prototypes,
        hidden_size=config.hidden_size,
        bottleneck_size=config.bottleneck_size,
        num_layers=config.num_layers,
        activation=config.activation,
        norm=config.norm,
    )
    assert [(name, value.shape) for name, value in again.state_dict().items()] == [
        (name, value.shape) for name, value in head.state_dict().items()
    ]
    assert [type(layer) for layer in again.mlp] == [type(layer) for layer in head.mlp]
    assert head_fits(head, config)
    change: Callable[..., HeadConfig] = replace
    assert not head_fits(head, change(config, bottleneck_size=99))
    assert not head_fits(head, change(config, shared=not config.shared))
    assert not head_fits(None, config)


def test_a_head_without_hidden_layers_fits_whatever_they_would_be() -> None:
    head = Head(16, 12, num_layers=1, bottleneck_size=8)
    assert head_fits(head, HeadConfig(prototypes=12, bottleneck_size=8, num_layers=1, hidden_size=999, norm="batch"))


def test_the_weights_are_trainable_as_they_are(tmp_path: Path) -> None:
    our_checkpoint(tmp_path / "a.pt")
    start = start_of(tmp_path / "a.pt")
    assert start.parts.tensors.keys() == trainable(start.loaded).tensors.keys()
