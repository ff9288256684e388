"""A folder of Hugging Face's transformers: opened by that library, and by our own loader."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import ExportError, WeightsError
from ibot_cli.weights.description import parse
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.hf_form import HF
from ibot_cli.weights.export.hf_preparation import crops_elsewhere, preparation_difference
from ibot_cli.weights.export.silence import quiet_transformers
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.loaded import LoadedBackbone
from ibot_cli.weights.shapes import BackboneShape
from tests.train.runs import make_images, pretrain
from tests.weights.export.networks import (
    CLASSES,
    GREY,
    REGISTERS,
    SCALED,
    VIT,
    loaded_backbone,
    loaded_classifier,
    narrow_swin,
    subject_of,
)

__all__ = ["narrow_swin"]
TOLERANCE = 1e-5


def written(subject: Subject, folder: Path) -> Path:
    HF.check(subject, ExportOptions())
    HF.write(subject, folder, ExportOptions())
    return folder


def opened(folder: Path, classes: bool) -> Any:
    """By the class that a user names, with nothing missing and nothing left over."""
    import transformers

    opener: Any = transformers.AutoModelForImageClassification if classes else transformers.AutoModel
    with quiet_transformers():
        model, report = opener.from_pretrained(str(folder), output_loading_info=True)
    assert not any(report.values())
    return model.eval()


CASES = [
    pytest.param(VIT, None, "ViTModel", id="vit"),
    pytest.param(GREY, None, "ViTModel", id="grey"),
    pytest.param(VIT, "cls", "ViTForImageClassification", id="vit-cls"),
    pytest.param(VIT, "mean", "BeitForImageClassification", id="vit-mean"),
    pytest.param(GREY, "mean", "BeitForImageClassification", id="grey-mean"),
    pytest.param(REGISTERS, None, "Dinov2WithRegistersModel", id="registers"),
    pytest.param(REGISTERS, "cls", "Dinov2WithRegistersForImageClassification", id="registers-cls"),
    pytest.param(SCALED, None, "Dinov2Model", id="scaled"),
    pytest.param(SCALED, "cls", "Dinov2ForImageClassification", id="scaled-cls"),
    pytest.param(SCALED, "mean", "BeitForImageClassification", id="scaled-mean", marks=pytest.mark.slow),
    pytest.param(replace(SCALED, registers=4), None, "Dinov2WithRegistersModel", id="scaled-registers"),
]


@pytest.mark.parametrize(("shape", "pooling", "name"), CASES)
def test_transformers_computes_the_same(shape: BackboneShape, pooling: Any, name: str, tmp_path: Path) -> None:
    check_same(subject_of(shape, pooling), name, tmp_path)


@pytest.mark.parametrize(
    ("pooling", "name"), [(None, "SwinModel"), ("cls", "SwinForImageClassification")], ids=["bare", "classes"]
)
def test_a_swin_computes_the_same(pooling: Any, name: str, narrow_swin: BackboneShape, tmp_path: Path) -> None:
    check_same(subject_of(narrow_swin, pooling), name, tmp_path)


def test_a_swin_that_pads_its_windows_does_too(narrow_swin: BackboneShape, tmp_path: Path) -> None:
    check_same(export_subject(loaded_backbone(narrow_swin), image_size=96), "SwinModel", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("size", "window"), [(128, 4), (224, 7)])
def test_a_whole_swin_of_the_usual_width(size: int, window: int, tmp_path: Path) -> None:
    shape = BackboneShape(arch="swin_tiny", image_size=size, patch_size=4, window_size=window)
    check_same(subject_of(shape), "SwinModel", tmp_path)


def check_same(subject: Subject, name: str, folder: Path) -> None:
    model = opened(written(subject, folder), subject.classifier is not None)
    assert type(model).__name__ == name
    images = comparison_images(subject)(subject.image_size)[:4]
    expected = subject.network(images)
    with torch.no_grad():
        found = model(images)
    if subject.classifier is None:
        close(found.pooler_output, expected["cls"])
    else:
        close(found.logits, expected["logits"])
        assert model.config.id2label == dict(enumerate(CLASSES))
        assert model.config.label2id == {label: number for number, label in enumerate(CLASSES)}
    assert max(compare(subject.network, HF.read_back(folder), images).values()) <= TOLERANCE


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_a_trained_network_with_local_crops_goes_there_and_comes_back(tmp_path: Path) -> None:
    pretrain(make_images(tmp_path / "images", per_class=6), tmp_path / "run", "train.epochs=1", "monitor.knn_epochs=0")
    loaded = load_weights(str(tmp_path / "run"))
    assert loaded.views is not None and loaded.views.num_local > 0
    subject = export_subject(loaded)
    (tmp_path / "hf").mkdir()
    check_same(subject, "ViTModel", tmp_path / "hf")
    again = load_weights(str(tmp_path / "hf"))
    assert again.preparation == loaded.preparation
    assert again.views == loaded.views
    images = comparison_images(subject)(subject.image_size)
    assert torch.equal(again.backbone(images), loaded.backbone(images))


def test_registers_and_a_swin_come_back(narrow_swin: BackboneShape, tmp_path: Path) -> None:
    for name, shape in (("registers", REGISTERS), ("swin", narrow_swin)):
        loaded = loaded_backbone(shape)
        (tmp_path / name).mkdir()
        again = load_weights(str(written(export_subject(loaded), tmp_path / name)))
        images = comparison_images(export_subject(loaded))(shape.image_size)
        close(again.backbone(images), loaded.backbone(images))


@pytest.mark.parametrize("shape", [SCALED, REGISTERS, replace(SCALED, registers=4)])
def test_layer_scale_comes_back_where_it_was(shape: BackboneShape, tmp_path: Path) -> None:
    for pooling in (None, "cls"):
        place = folder(tmp_path / str(pooling))
        loaded = loaded_backbone(shape) if pooling is None else loaded_classifier(shape, "cls")
        again = load_weights(str(written(export_subject(loaded), place)))
        assert again.shape is not None and (again.shape.layer_scale > 0) == (shape.layer_scale > 0)
        ours, theirs = again.backbone.state_dict(), loaded.backbone.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
        assert ours.keys() == theirs.keys() - {"masked_embed"}


def test_a_mean_pooled_classifier_keeps_its_layer_scale(tmp_path: Path) -> None:
    loaded = loaded_classifier(SCALED, "mean")
    again = load_weights(str(written(export_subject(loaded), tmp_path)))
    assert again.classifier is not None and loaded.classifier is not None
    ours, theirs = again.classifier.state_dict(), loaded.classifier.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if name.endswith(".gamma"))
    images = comparison_images(export_subject(loaded))(SCALED.image_size)
    close(again.classifier(images), loaded.classifier(images))


def test_names_are_those_that_both_versions_of_the_library_read(narrow_swin: BackboneShape, tmp_path: Path) -> None:
    """As version 4 saved them; version 5 still does, and calls them otherwise in memory only."""
    from transformers import SwinConfig, SwinModel, ViTConfig, ViTModel

    made = {
        "vit": (VIT, ViTModel(ViTConfig(**sizes_of(written(subject_of(VIT), folder(tmp_path / "a")))))),
        "swin": (
            narrow_swin,
            SwinModel(SwinConfig(**sizes_of(written(subject_of(narrow_swin), folder(tmp_path / "b"))))),
        ),
    }
    for (name, (_, model)), ours in zip(made.items(), ("a", "b"), strict=True):
        with quiet_transformers():
            model.save_pretrained(tmp_path / name)
        theirs = load_file(tmp_path / name / "model.safetensors")
        found = load_file(tmp_path / ours / "model.safetensors")
        tables = {key for key in found if key.endswith("relative_position_index")}
        assert len(tables) == (8 if name == "swin" else 0)  # version 4 expects them
        assert {key: value.shape for key, value in theirs.items()} == {
            key: value.shape for key, value in found.items() if key not in tables
        }


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def sizes_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in content.items() if name not in ("architectures", "torch_dtype", "ibot")}


@pytest.mark.parametrize("shape", [VIT, GREY], ids=["photos", "digits"])
def test_the_image_processor_gives_our_pixels(shape: BackboneShape) -> None:
    usual = export_subject(prepared(subject_of(shape), 0.875))
    assert not crops_elsewhere(usual)
    assert preparation_difference(usual, "pil") < 1e-3
    assert 0 < preparation_difference(usual, "torchvision") < 1.01


def prepared(subject: Subject, crop_ratio: float) -> LoadedBackbone:
    return replace(subject.loaded, crop_ratio=crop_ratio)


def test_a_margin_that_it_crops_elsewhere_is_told() -> None:
    subject = subject_of(VIT)
    assert crops_elsewhere(subject)
    assert preparation_difference(subject, "pil") > 2
    (told,) = HF.notes(subject, ExportOptions())
    assert "rounds the half pixel down where ibot rounds it up" in told
    (told,) = HF.notes(export_subject(prepared(subject, 0.875)), ExportOptions())
    assert "at most 0 of 255 levels" in told and "rounds the half pixel down" not in told


def test_one_in_four_images_that_are_not_square_is_cropped_a_pixel_beside(tmp_path: Path) -> None:
    subject = prepared(subject_of(VIT), 1.0)  # 32 pixels, the shorter side too
    written(export_subject(subject), tmp_path)
    ours, beside = eval_transform(*subject.preparation), []
    with quiet_transformers():
        processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    photo = open_source("builtin:photos", channels=3).read(0)
    for margin in range(8):
        image = photo.resize((32 + margin, 32))
        theirs = processor(images=image, return_tensors="pt").pixel_values[0]
        beside.append(not torch.allclose(theirs, ours(image), atol=1e-4))
    assert beside == [margin % 4 == 3 for margin in range(8)]
    (told,) = HF.notes(export_subject(subject), ExportOptions())
    assert "Of other images it crops one in four a pixel further to the left or top" in told


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_the_printed_lines_open_it(pooling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(GREY, pooling)
    written(subject, tmp_path)
    image = open_source("builtin:photos", channels=3).read(0)
    image.save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    with quiet_transformers():
        exec(HF.usage(subject, str(tmp_path)), namespace)
    given = eval_transform(*subject.loaded.preparation)(image.convert("L"))[None]
    expected = subject.network(given)
    if pooling is None:
        assert torch.allclose(namespace["features"], expected["cls"], atol=1e-6)
        assert namespace["tokens"].shape == (1, 17, 24)
    else:
        assert torch.allclose(namespace["scores"], expected["logits"].softmax(-1), atol=1e-6)


@pytest.mark.parametrize(("shape", "pooling"), [(VIT, None), (VIT, "mean"), (REGISTERS, None)])
def test_another_image_size_is_left_to_transformers(shape: BackboneShape, pooling: Any, tmp_path: Path) -> None:
    subject = subject_of(shape, pooling)
    model, images = HF.read_back(written(subject, tmp_path)), comparison_images(subject)
    size = shape.image_size + shape.patch_size
    assert 1e-4 < max(compare(subject.network, model, images(size)).values()) < 0.1


def test_what_travels_with_it(tmp_path: Path) -> None:
    content = json.loads((written(subject_of(GREY, "mean"), tmp_path) / "config.json").read_text())
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        described = parse(file.metadata()["ibot"])
    assert described == parse(json.dumps(content["ibot"]))
    assert (described.classes, described.pooling, described.step) == (CLASSES, "mean", 3)


def test_refusals(narrow_swin: BackboneShape) -> None:
    with pytest.raises(WeightsError, match="has registers and classifies the mean") as raised:
        HF.check(export_subject(loaded_classifier(REGISTERS, "mean")), ExportOptions())
    assert "--to timm, onnx" in str(raised.value.hint)
    with pytest.raises(WeightsError, match="1 tokens per side, fewer than its windows of 2"):
        HF.check(export_subject(loaded_backbone(replace(narrow_swin, image_size=32))), ExportOptions())


def test_a_folder_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    written(subject_of(VIT), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["stranger"] = tensors.pop("layernorm.weight")
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"opens the folder .* as a ViTModel with .*layernorm.weight.*stranger"):
        HF.read_back(tmp_path)
