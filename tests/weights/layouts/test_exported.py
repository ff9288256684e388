"""Classifiers that went to another library come back as ours, unless they have changed there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ibot_cli.weights.export.forms import FORMS, ExportOptions
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.shapes import BackboneShape
from tests.weights.export.networks import CLASSES, GREY, REGISTERS, VIT, narrow_swin, subject_of

__all__ = ["narrow_swin"]


def exported(form: str, shape: BackboneShape, pooling: Any, folder: Path) -> Any:
    """What went out; `folder` holds it."""
    subject = subject_of(shape, pooling)
    FORMS[form].write(subject, folder, ExportOptions())
    return subject


@pytest.mark.parametrize(
    ("form", "shape", "pooling"),
    [
        ("timm", GREY, "cls"),
        ("timm", VIT, "mean"),
        ("timm", REGISTERS, "cls"),
        ("timm", REGISTERS, "mean"),
        ("hf", GREY, "cls"),
        ("hf", VIT, "mean"),
        ("hf", REGISTERS, "cls"),
    ],
)
def test_it_comes_back(form: str, shape: BackboneShape, pooling: Any, tmp_path: Path) -> None:
    check_back(form, shape, pooling, tmp_path)


@pytest.mark.parametrize("form", ["timm", "hf"])
def test_that_of_a_swin_comes_back(form: str, narrow_swin: BackboneShape, tmp_path: Path) -> None:
    check_back(form, narrow_swin, "mean", tmp_path)


def check_back(form: str, shape: BackboneShape, pooling: Any, folder: Path) -> None:
    subject = exported(form, shape, pooling, folder)
    images = torch.randn(2, shape.channels, shape.image_size, shape.image_size, generator=torch.Generator())
    expected = subject.network(images)
    for weights in (folder, folder / "model.safetensors"):
        again = load_weights(str(weights))
        assert again.classifier is not None
        assert again.classes == CLASSES
        assert again.shape == subject.shape
        assert again.preparation == subject.loaded.preparation
        torch.testing.assert_close(again.classifier(images), expected["logits"], rtol=0, atol=2e-6)
        torch.testing.assert_close(again.backbone(images)[:, 0], expected["cls"], rtol=0, atol=5e-6)


@pytest.mark.parametrize("form", ["timm", "hf"])
def test_other_classes_than_those_of_the_export_are_not_taken_for_them(form: str, tmp_path: Path) -> None:
    exported(form, VIT, "cls", tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content |= {"label_names": ["a", "b", "c"]} if form == "timm" else {"id2label": {"0": "a", "1": "b", "2": "c"}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert load_weights(str(tmp_path)).classifier is None


def test_another_number_of_classes_is_not_taken_for_them(tmp_path: Path) -> None:
    exported("timm", VIT, "cls", tmp_path)
    change(tmp_path, {"head.weight": torch.zeros(5, 32), "head.bias": torch.zeros(5)})
    assert load_weights(str(tmp_path / "model.safetensors")).classifier is None


def test_a_head_of_dinov2_that_sees_the_patches_too_is_not_ours(tmp_path: Path) -> None:
    exported("hf", REGISTERS, "cls", tmp_path)
    change(tmp_path, {"classifier.weight": torch.ones(3, 64)})
    assert load_weights(str(tmp_path)).classifier is None


def change(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        kept, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file({**kept, **tensors}, folder / "model.safetensors", metadata=metadata)
