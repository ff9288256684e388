import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.config.load import flatten
from ibot_cli.config.schema import Config, ObjectiveConfig
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.teacher_scale import TeacherScale
from tests.weights.layouts.test_official import NAMES, checkpoint, official, recorded
from tests.weights.test_load import CONFIG, network

ZERO = torch.zeros(1, 10)


def scale(tmp_path: Path, config: Config = CONFIG, **state: Any) -> TeacherScale:
    teacher = network(False)
    path = CheckpointStore(tmp_path).save(
        {"config": flatten(config), "teacher": teacher.state_dict(), **state}, step=1, epoch=0
    )
    found = load_weights(str(path)).scale
    assert found is not None
    return found


def test_a_checkpoint_of_ours(tmp_path: Path) -> None:
    config = replace(CONFIG, objective=ObjectiveConfig(teacher_temp=0.05, teacher_patch_temp=0.06))
    cls, patch = torch.arange(10.0).unsqueeze(0), torch.arange(10.0).unsqueeze(0) * 2
    found = scale(tmp_path, config, centers={"cls": cls, "patch": patch})
    assert found.cls_center is not None and torch.equal(found.cls_center, cls[0])
    assert found.patch_center is not None and torch.equal(found.patch_center, patch[0])
    assert (found.cls_temp, found.patch_temp) == (0.05, 0.06)


def test_centres_that_never_moved_are_none(tmp_path: Path) -> None:
    found = scale(tmp_path, centers={"cls": ZERO, "patch": ZERO})
    assert found.cls_center is None and found.patch_center is None
    assert (found.cls_temp, found.patch_temp) == (0.07, 0.07)


def test_an_old_checkpoint_without_centres(tmp_path: Path) -> None:
    assert scale(tmp_path).patch_center is None


@pytest.mark.parametrize("name", NAMES)
def test_an_official_checkpoint(name: str) -> None:
    golden, arguments = recorded(name), vars(official(name)["args"])
    found = load_weights(checkpoint(name), heads=golden["meta"]["num_heads"]).scale
    assert found is not None and found.cls_center is not None and found.patch_center is not None
    assert torch.equal(found.cls_center, golden["center_before"].flatten())
    assert torch.equal(found.patch_center, golden["center2_before"].flatten())
    assert (found.cls_temp, found.patch_temp) == (arguments.get("teacher_temp"), arguments.get("teacher_patch_temp"))


def without_arguments(content: dict[str, Any]) -> None:
    del content["args"]


def without_loss(content: dict[str, Any]) -> None:
    del content["ibot_loss"]


def of_dino(content: dict[str, Any]) -> None:
    content["dino_loss"] = {"center": content.pop("ibot_loss")["center"]}
    content["args"] = argparse.Namespace(num_heads=1, teacher_temp=0.04)


@pytest.mark.parametrize(
    ("change", "held"),
    [
        (without_arguments, (True, True, None, None)),
        (without_loss, (False, False, 0.04, 0.07)),
        (of_dino, (True, False, 0.04, None)),
    ],
)
def test_official_files_that_say_less(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], held: tuple[bool, bool, float | None, float | None]
) -> None:
    content = official("ibot_tiny")
    content["args"] = argparse.Namespace(teacher_temp=0.04, teacher_patch_temp=0.07)
    change(content)
    torch.save(content, tmp_path / "a.pth")
    found = load_weights(str(tmp_path / "a.pth"), heads=recorded("ibot_tiny")["meta"]["num_heads"]).scale
    assert found is not None
    centers = (found.cls_center is not None, found.patch_center is not None)
    assert (*centers, found.cls_temp, found.patch_temp) == held


def test_a_backbone_has_none(tmp_path: Path) -> None:
    content = official("ibot_tiny")["teacher"]
    bare = {name.removeprefix("backbone."): value for name, value in content.items() if name.startswith("backbone.")}
    torch.save({"state_dict": bare}, tmp_path / "a.pth")
    assert load_weights(str(tmp_path / "a.pth"), heads=recorded("ibot_tiny")["meta"]["num_heads"]).scale is None
