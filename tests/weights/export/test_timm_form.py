"""A timm model: opened by timm itself in both ways, and by our own loader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import ExportError, WeightsError
from ibot_cli.weights.description import parse
from ibot_cli.weights.export import timm_form
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.export.timm_form import TIMM
from ibot_cli.weights.export.timm_names import VITS, base_model, changed_arguments
from ibot_cli.weights.load import load_weights
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
    TIMM.check(subject, ExportOptions())
    TIMM.write(subject, folder, ExportOptions())
    return folder


def both_ways(folder: Path) -> list[Any]:
    """As a folder, and by the name and arguments in the file's metadata; timm loads strictly in both."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        made = json.loads(file.metadata()["timm"])
    by_name = timm.create_model(made["name"], checkpoint_path=str(folder / "model.safetensors"), **made["kwargs"])
    return [timm.create_model(f"local-dir:{folder}", pretrained=True).eval(), by_name.eval()]


@pytest.mark.parametrize("pooling", [None, "cls", "mean"])
@pytest.mark.parametrize("shape", [VIT, GREY, REGISTERS, SCALED], ids=["plain", "grey", "registers", "scaled"])
def test_timm_computes_the_same(shape: BackboneShape, pooling: Any, tmp_path: Path) -> None:
    subject = subject_of(shape, pooling)
    folder = written(subject, tmp_path)
    images = comparison_images(subject)(subject.image_size)
    expected = subject.network(images)
    for model in both_ways(folder):
        assert set(model.state_dict()) == set(load_file(folder / "model.safetensors"))
        with torch.no_grad():
            found = model(images)
        wanted = expected["cls"] if pooling is None else expected["logits"]
        assert (found - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert max(compare(subject.network, TIMM.read_back(folder), images).values()) <= TOLERANCE


@pytest.mark.parametrize("pooling", [None, "mean"])
def test_a_swin_computes_the_same_with_the_epsilon_of_timm(
    pooling: Any, narrow_swin: BackboneShape, tmp_path: Path
) -> None:
    subject = subject_of(narrow_swin, pooling)
    folder = written(subject, tmp_path)
    images = comparison_images(subject)(subject.image_size)
    wanted = subject.network(images)["cls" if pooling is None else "logits"]
    for model in both_ways(folder):
        assert model.norm.eps == 1e-5 and "multiplied by 3.162" in TIMM.notes(subject, ExportOptions())[0]
        with torch.no_grad():
            assert (model(images) - wanted).abs().max() <= TOLERANCE * wanted.abs().max()
    assert max(compare(subject.network, TIMM.read_back(folder), images).values()) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("size", "window"), [(128, 4), (224, 7)])
def test_a_whole_swin_of_the_usual_width(size: int, window: int, tmp_path: Path) -> None:
    subject = subject_of(BackboneShape(arch="swin_tiny", image_size=size, patch_size=4, window_size=window))
    images = comparison_images(subject)(size)[:2]
    assert max(compare(subject.network, TIMM.read_back(written(subject, tmp_path)), images).values()) <= TOLERANCE


def test_a_trained_network_with_local_crops_goes_to_timm_and_comes_back(tmp_path: Path) -> None:
    pretrain(make_images(tmp_path / "images", per_class=6), tmp_path / "run", "train.epochs=1", "monitor.knn_epochs=0")
    loaded = load_weights(str(tmp_path / "run"))
    assert loaded.views is not None and loaded.views.num_local > 0
    subject = export_subject(loaded)
    (tmp_path / "timm").mkdir()
    folder = written(subject, tmp_path / "timm")
    assert not any("mask" in name for name in load_file(folder / "model.safetensors"))
    images = comparison_images(subject)(subject.image_size)
    assert max(compare(subject.network, TIMM.read_back(folder), images).values()) <= TOLERANCE
    again = load_weights(str(folder))
    assert again.preparation == loaded.preparation
    assert again.views == loaded.views
    assert torch.equal(again.backbone(images), loaded.backbone(images))


def test_registers_and_a_swin_come_back(narrow_swin: BackboneShape, tmp_path: Path) -> None:
    for name, shape in (("registers", REGISTERS), ("scaled", SCALED), ("swin", narrow_swin)):
        loaded = loaded_backbone(shape)
        (tmp_path / name).mkdir()
        again = load_weights(str(written(export_subject(loaded), tmp_path / name)))
        images = comparison_images(export_subject(loaded))(shape.image_size)
        expected = loaded.backbone(images)
        assert (again.backbone(images) - expected).abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("shape", [VIT, GREY], ids=["photos", "digits"])
def test_images_are_prepared_by_timm_exactly_as_by_us(shape: BackboneShape, tmp_path: Path) -> None:
    subject = subject_of(shape)
    ours = eval_transform(*(subject.loaded.preparation))
    source = open_source("builtin:photos" if shape.channels == 3 else "builtin:digits", channels=shape.channels)
    in_folder = both_ways(written(subject, tmp_path))[0]
    namespace: dict[str, Any] = {}
    call = "\n".join(line.removeprefix("# ") for line in TIMM.usage(subject, str(tmp_path)).splitlines()[5:])
    exec("import timm\n" + call.partition("transform =")[0], namespace)
    for model in (in_folder, namespace["model"]):
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
        for index in (0, 1, 2):
            assert torch.equal(transform(source.read(index)), ours(source.read(index)))


@pytest.mark.parametrize("pooling", [None, "cls"])
def test_the_printed_lines_open_it(pooling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(GREY, pooling)
    written(subject, tmp_path)
    image = open_source("builtin:photos", channels=3).read(0)
    image.save(tmp_path / "image.png")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    exec(TIMM.usage(subject, str(tmp_path)), namespace)
    given = eval_transform(*subject.loaded.preparation)(image.convert("L"))[None]
    expected = subject.network(given)
    if pooling is None:
        assert torch.allclose(namespace["features"], expected["cls"], atol=1e-6)
        assert namespace["tokens"].shape == (1, 17, 24)
    else:
        assert torch.allclose(namespace["scores"], expected["logits"].softmax(-1), atol=1e-6)


def test_another_image_size_is_left_to_timm(tmp_path: Path) -> None:
    subject = subject_of(VIT)
    opened, images = TIMM.read_back(written(subject, tmp_path)), comparison_images(subject)
    other = compare(subject.network, opened, images(48))
    assert 1e-4 < max(other.values()) < 0.1
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, img_size=48).eval()
    with torch.no_grad():
        assert torch.equal(model(images(48)), opened(images(48))["cls"])


def test_usual_sizes_need_no_arguments() -> None:
    usual = BackboneShape(arch="vit_small", image_size=224)
    subject = _shaped(usual)
    assert base_model(subject) == "vit_small_patch16_224"
    assert changed_arguments(subject) == {"num_classes": 0}
    custom = _shaped(
        BackboneShape(arch="vit_tiny", image_size=64, channels=1, patch_size=8, width=400, depth=5, heads=8)
    )
    assert base_model(custom) == "vit_small_patch8_224"
    assert changed_arguments(custom) == {
        "num_classes": 0, "img_size": 64, "in_chans": 1, "embed_dim": 400, "depth": 5, "num_heads": 8
    }  # fmt: skip


def test_the_table_of_names_is_that_of_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    from timm.models import vision_transformer

    monkeypatch.setattr(vision_transformer, "_create_vision_transformer", lambda name, pretrained, **sizes: sizes)
    for name, size in VITS.items():
        made = timm.models.model_entrypoint(name)()
        assert (made["embed_dim"], made["depth"], made["num_heads"], made["patch_size"]) == size


def test_what_travels_with_it(tmp_path: Path) -> None:
    folder = written(subject_of(GREY, "mean"), tmp_path)
    content = json.loads((folder / "config.json").read_text())
    assert content["label_names"] == list(CLASSES)
    assert content["pretrained_cfg"]["interpolation"] == "bicubic"
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        described = parse(file.metadata()["ibot"])
    assert described == parse(json.dumps(content["ibot"]))
    assert (described.classes, described.pooling, described.step) == (CLASSES, "mean", 3)


def test_refusals(narrow_swin: BackboneShape) -> None:
    kept = export_subject(loaded_classifier(VIT, "cls", projection=8))
    with pytest.raises(WeightsError, match="no projection layer between feature and head") as raised:
        TIMM.check(kept, ExportOptions())
    assert "--to onnx, torch-export or safetensors" in str(raised.value.hint)
    padded = export_subject(loaded_backbone(narrow_swin), image_size=96)
    with pytest.raises(WeightsError, match="pads maps of 3 tokens to windows of 2") as raised:
        TIMM.check(padded, ExportOptions())
    assert "--to hf" in str(raised.value.hint)


def test_a_file_that_is_not_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(subject_of(VIT), tmp_path)
    opened = timm_form._opened

    def with_noise(*args: Any, **kwargs: Any) -> Any:
        model: Any = opened(*args, **kwargs)
        with torch.no_grad():
            model.norm.bias.add_(1)
        return model

    monkeypatch.setattr(timm_form, "_opened", with_noise)
    with pytest.raises(ExportError, match="timm reads other weights"):
        TIMM.read_back(folder)


def test_versions_of_timm_that_mistake_a_swin_without_classes() -> None:
    name = "swin_tiny_patch4_window7_224"
    assert [timm_form._opens_folder(name, 0, version) for version in ("1.0.30", "1.0.31", "1.1.0.dev0")] == [
        False, True, True
    ]  # fmt: skip
    assert timm_form._opens_folder(name, 3, "1.0.20") and timm_form._opens_folder("vit_tiny_patch16_224", 0, "1.0.20")


def _shaped(shape: BackboneShape) -> Any:
    """A subject of which only the shape counts."""

    class Shaped:
        kind, classifier = "vit", None
        image_size, channels = shape.image_size, shape.channels

    Shaped.shape = shape  # type: ignore[attr-defined]
    return Shaped()
