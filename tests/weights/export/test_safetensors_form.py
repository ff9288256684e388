"""One file in our names, which is WEIGHTS like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ibot_cli.data.sources import open_source
from ibot_cli.errors import WeightsError
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.safetensors_form import SAFETENSORS
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.load import load_weights
from tests.weights.export.networks import CLASSES, GREY, SWIN, VIT, loaded_backbone, narrow_swin, subject_of
from tests.weights.export.test_subject import from_timm

__all__ = ["narrow_swin"]


def written(subject: Subject, folder: Path) -> str:
    SAFETENSORS.check(subject, ExportOptions())
    SAFETENSORS.write(subject, folder, ExportOptions())
    return str(folder / "model.safetensors")


@pytest.mark.parametrize("image_size", [None, 24])
@pytest.mark.parametrize("which", ["teacher", "student"])
def test_a_trained_network_with_its_head_comes_back(run: Path, which: Any, image_size: Any, tmp_path: Path) -> None:
    loaded = load_weights(str(run), which=which)
    subject = export_subject(loaded, image_size, with_head=True)
    path = written(subject, tmp_path)
    images = comparison_images(subject)(subject.image_size)
    differences = compare(subject.network, SAFETENSORS.read_back(tmp_path), images)
    assert set(differences) == {"cls", "patches", "cls_logits", "patch_logits"} and max(differences.values()) <= 1e-5
    found = load_weights(path)
    assert found.origin.layout == "safetensors of ibot export" and found.origin.which == which
    assert found.preparation[1:] == loaded.preparation[1:] and found.image_size == subject.image_size
    assert found.views == loaded.views and found.origin.config == loaded.origin.config
    assert found.mask_token is not None and loaded.mask_token is not None
    assert torch.equal(found.mask_token, loaded.mask_token)
    assert found.scale is not None and loaded.scale is not None
    for name in ("cls_center", "patch_center"):
        assert torch.equal(getattr(found.scale, name), getattr(loaded.scale, name))
    assert (found.scale.cls_temp, found.scale.patch_temp) == (loaded.scale.cls_temp, loaded.scale.patch_temp)
    if image_size is None and which == "teacher":  # the hash of a student counts its mask token
        assert found.weights_hash == loaded.weights_hash


def test_an_exported_teacher_is_not_taken_for_the_student(run: Path, tmp_path: Path) -> None:
    path = written(export_subject(load_weights(str(run)), None), tmp_path)
    with pytest.raises(WeightsError, match="has no student, only the teacher"):
        load_weights(path, which="student")


def test_names_are_ours_and_without_a_mask_token_in_the_backbone(run: Path, tmp_path: Path) -> None:
    loaded = load_weights(str(run))
    names = set(load_file(written(export_subject(loaded), tmp_path)))
    assert names == {f"backbone.{name}" for name in loaded.backbone.state_dict()} | {"mask_token"}


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_comes_back_with_its_classes(pooling: Any, tmp_path: Path) -> None:
    subject = subject_of(GREY, pooling)
    found = load_weights(written(subject, tmp_path))
    assert found.classes == CLASSES and found.weights_hash == subject.loaded.weights_hash
    source = open_source("builtin:digits", channels=1)
    assert len(source) > 4
    images = comparison_images(subject)(16)
    assert compare(subject.network, SAFETENSORS.read_back(tmp_path), images)["logits"] <= 1e-5


def test_a_swin_comes_back_at_its_image_size(narrow_swin: object, tmp_path: Path) -> None:
    subject = export_subject(loaded_backbone(SWIN), 128)
    found = load_weights(written(subject, tmp_path))
    assert found.shape == subject.shape and found.image_size == 128
    differences = compare(subject.network, SAFETENSORS.read_back(tmp_path), comparison_images(subject)(128))
    assert max(differences.values()) <= 1e-5


def test_layers_of_timm_are_refused() -> None:
    subject = export_subject(from_timm("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2,
                                       num_heads=4, global_pool="avg"))  # fmt: skip
    with pytest.raises(WeightsError, match="has layers that ibot itself does not build") as told:
        SAFETENSORS.check(subject, ExportOptions())
    assert told.value.hint == "Export it with --to onnx or --to torch-export."


def test_a_description_without_a_network_is_told(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from ibot_cli.weights.description import as_text, describe

    text = as_text(describe(loaded_backbone(VIT)) | {"shape": None})
    save_file({"backbone.x": torch.zeros(1)}, tmp_path / "a.safetensors", metadata={"ibot": text})
    with pytest.raises(WeightsError, match=r"a\.safetensors does not say which network it holds\."):
        load_weights(str(tmp_path / "a.safetensors"))


def test_the_lines_that_open_it_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    subject = subject_of(GREY, "mean")
    written(subject, tmp_path)
    Image.new("L", (20, 30), 90).save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(SAFETENSORS.usage(subject, "model.safetensors"), names)
    assert names["tokens"].shape == (1, 17, 24) and names["probabilities"].sum().item() == pytest.approx(1)
