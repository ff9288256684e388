"""A program of torch.export, opened with torch alone."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import parse
from ibot_cli.weights.export import torch_export_form
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.export.torch_export_form import TORCH_EXPORT
from ibot_cli.weights.load import load_weights
from tests.weights.export.networks import SWIN, VIT, loaded_backbone, narrow_swin, subject_of

__all__ = ["narrow_swin"]


def differences(subject: Subject, folder: Path) -> dict[str, float]:
    TORCH_EXPORT.check(subject, ExportOptions())
    TORCH_EXPORT.write(subject, folder, ExportOptions())
    images = comparison_images(subject)(subject.image_size)
    return compare(subject.network, TORCH_EXPORT.read_back(folder), images)


def test_a_trained_network_with_its_head_for_any_number_of_images(run: Path, tmp_path: Path) -> None:
    subject = export_subject(load_weights(str(run)), with_head=True)
    found = differences(subject, tmp_path)
    assert set(found) == {"cls", "patches", "cls_logits", "patch_logits"} and max(found.values()) <= 1e-5
    program = TORCH_EXPORT.read_back(tmp_path)
    for count in (1, 3):
        assert program(torch.zeros(count, 1, 16, 16))["cls"].shape == (count, 16)
    with zipfile.ZipFile(tmp_path / "model.pt2") as file:  # no folder of this machine
        assert not any(str(Path(__file__).parents[3]).encode() in file.read(name) for name in file.namelist())
    extra = {"ibot.json": ""}
    torch.export.load(tmp_path / "model.pt2", extra_files=extra)
    assert parse(extra["ibot.json"]).shape == subject.shape


@pytest.mark.slow
def test_a_swin_at_another_size(narrow_swin: object, tmp_path: Path) -> None:
    assert max(differences(export_subject(loaded_backbone(SWIN), 128), tmp_path).values()) <= 1e-5


def test_the_lines_that_open_a_classifier_prepare_images_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibot_cli.data.transform import eval_transform

    subject = subject_of(VIT, "mean")
    assert max(differences(subject, tmp_path).values()) <= 1e-5
    levels = torch.randint(0, 256, (50, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray(levels.numpy())
    image.save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(TORCH_EXPORT.usage(subject, "model.pt2"), names)
    torch.testing.assert_close(names["images"][0], eval_transform(*subject.loaded.preparation)(image))
    assert names["classes"] == ["dark", "light", "odd"] and names["probabilities"].shape == (1, 3)


def test_what_torch_cannot_trace_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("a loop that depends on data\nand more")

    monkeypatch.setattr(torch_export_form.torch.export, "export", refuse)
    with pytest.raises(WeightsError, match=r"cannot trace memory: a loop that depends on data$") as told:
        TORCH_EXPORT.write(subject_of(VIT), tmp_path, ExportOptions())
    assert told.value.hint == "Export it with --to safetensors."
