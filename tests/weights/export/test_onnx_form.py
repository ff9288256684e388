"""ONNX, read back by onnxruntime."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource
from ibot_cli.errors import ExportError, UsageError
from ibot_cli.evaluate.predict import predict
from ibot_cli.weights.description import parse
from ibot_cli.weights.export import onnx_form, onnx_graph
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.forms import FORMS, ExportOptions
from ibot_cli.weights.export.onnx_form import ONNX
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.export.write import check_extra, export
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.shapes import BackboneShape
from tests.train.runs import make_images, pretrain
from tests.weights.export.networks import CLASSES, GREY, VIT, loaded_classifier, narrow_swin, subject_of

__all__ = ["narrow_swin"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """The teacher of a short training with local crops, with registers, layer scale and a head with two MLPs."""
    place = tmp_path_factory.mktemp("trained")
    network = ("model.registers=2", "model.layer_scale=0.5")
    head = ("head.shared=false", "head.separate_mlp=true", "head.patch_prototypes=12")
    sets = ("train.epochs=1", "monitor.knn_epochs=0", *network, *head)
    pretrain(make_images(place / "images", per_class=6), place / "run", *sets)
    return export_subject(load_weights(str(place / "run")), with_head=True)


@pytest.fixture(scope="module")
def folder(trained: Subject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("onnx")
    ONNX.write(trained, place, ExportOptions(with_head=True))
    return place


def test_round_trip_of_a_trained_vit_with_registers_and_head(trained: Subject, folder: Path) -> None:
    images = comparison_images(trained)(trained.image_size)
    opened = ONNX.read_back(folder)
    for size in (1, 2, 5):
        differences = compare(trained.network, opened, images[:size])
        assert set(differences) == {"cls", "patches", "cls_logits", "patch_logits"}
        assert max(differences.values()) <= 1e-5
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]


def test_file_says_what_it_is(trained: Subject, folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "images": ["batch", 1, 16, 16],
        "cls": ["batch", 16],
        "patches": ["batch", 16, 16],
        "cls_logits": ["batch", 16],
        "patch_logits": ["batch", 16, 12],
    }
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    (entry,) = model.metadata_props
    described = parse(entry.value)
    assert entry.key == "ibot" and described.shape is not None and described.shape.registers == 2
    assert described.preparation.image_size == 16 and described.preparation.mean == trained.mean
    assert str(Path(onnx_graph.__file__).parent).encode() not in (folder / "model.onnx").read_bytes()


def test_classifier_gives_what_predict_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By the lines that the export prints, which need no more than numpy, Pillow and onnxruntime."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    loaded = loaded_classifier(VIT, "mean")
    subject = export_subject(loaded)
    capfd.readouterr()
    result = export(subject, ONNX, tmp_path / "model.onnx", ExportOptions(), comparison_images(subject))
    assert capfd.readouterr() == ("", "")  # neither library said a word
    assert max(result.differences.values()) <= 1e-5 and result.agreement is None
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.md", "temporary"}
    assert not [path for path in temporary.rglob("*") if path.is_file()]

    names = _odd_images(tmp_path)
    found = predict(loaded, FileSource(name="odd", root=tmp_path, names=names, pixels=PixelFormat()))
    code = result.usage.replace('[prepared("image.png")]', "[prepared(path) for path in paths]")
    scope = {"paths": [tmp_path / name for name in names], "print": lambda *_: None}
    exec(compile(code, "usage", "exec"), scope)
    probabilities = np.asarray(scope["probabilities"])
    expected = np.array([[image.probabilities[name] for name in CLASSES] for image in found.images])
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)
    assert [CLASSES[place] for place in probabilities.argmax(1)] == [image.prediction for image in found.images]
    assert len(set(probabilities[:, 0].round(4))) == len(names)  # the images do differ


def _odd_images(folder: Path) -> list[str]:
    """Files of several shapes and modes, one of them turned by its EXIF data."""
    rng = np.random.default_rng(0)
    images = {}
    for name, mode, size in [("wide.png", "RGB", (61, 40)), ("tall.png", "L", (35, 90)), ("small.png", "RGBA", (9, 7))]:
        shape = size[::-1] if mode == "L" else (*size[::-1], len(mode))
        images[name] = Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))
    images["palette.png"] = images["wide.png"].crop((0, 0, 41, 41)).quantize(8)
    for name, image in images.items():
        image.save(folder / name)
    exif = Image.Exif()
    exif[0x0112] = 6
    images["wide.png"].save(folder / "turned.png", exif=exif)
    return [*images, "turned.png"]


def test_usage_of_features_runs(trained: Subject, folder: Path, tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (20, 30), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "image.png")
    lines = ONNX.usage(trained, str(folder / "model.onnx")).replace('"image.png"', repr(str(tmp_path / "image.png")))
    scope: dict[str, object] = {}
    exec(compile(lines, "usage", "exec"), scope)
    shapes = {name: np.shape(scope[name]) for name in ("cls", "patches", "cls_logits", "patch_logits")}  # type: ignore[arg-type]
    assert shapes == {"cls": (1, 16), "patches": (1, 16, 16), "cls_logits": (1, 16), "patch_logits": (1, 16, 12)}
    assert "patch_logits = outputs[3]  # [B, 16, 12]" in lines
    assert json.loads(json.dumps(scope["about"]))["which"] == "teacher"


def test_network_without_patches(tmp_path: Path) -> None:
    subject = subject_of(GREY)
    forward = subject.network.forward
    subject.network.forward = lambda images: forward(images) | {"patches": torch.zeros(len(images), 0, 24)}  # type: ignore[method-assign]
    assert onnx_graph.output_shapes(subject) == {"cls": (24,)}
    assert ONNX.usage(subject, "x.onnx").endswith("""outputs = session.run(['cls'], {"images": images})
cls = outputs[0]  # [B, 24]""")


def test_fewer_bits_are_explained(trained: Subject) -> None:
    assert ONNX.notes(trained, ExportOptions()) == ()
    assert "norms and softmax are computed in float32" in ONNX.notes(trained, ExportOptions(precision="fp16"))[0]
    assert "above 50% of the largest value" in ONNX.notes(trained, ExportOptions(precision="int8"))[0]


def test_weights_beyond_one_file_lie_beside_the_graph(
    trained: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(onnx_form, "onnx_graph", lambda subject: onnx.load(folder / "model.onnx"))
    monkeypatch.setattr(onnx_form, "LARGEST_FILE", 2000)
    images = comparison_images(trained)
    result = export(trained, ONNX, tmp_path / "out", ExportOptions(with_head=True), images)
    assert set(result.files) == {"model.onnx", "model.onnx.data", "README.md"}
    assert result.files["model.onnx.data"] > 2000
    with pytest.raises(ExportError, match=r"more than one file \(model\.onnx\.data\)") as refused:
        export(trained, ONNX, tmp_path / "single.onnx", ExportOptions(with_head=True), images)
    assert refused.value.hint == "Name a folder with --out instead."
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_fewer_bits_are_refused_beyond_one_file(trained: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_form, "LARGEST_FILE", 2000)
    with pytest.raises(UsageError, match=r"--fp16: .* GiB of float32 weights; conversion works up to 2 GiB"):
        ONNX.check(trained, ExportOptions(precision="fp16"))
    ONNX.check(trained, ExportOptions())


@pytest.mark.parametrize("name", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_package_is_named_with_what_to_install(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"--to onnx needs what is not installed: {name}\.") as refused:
        check_extra(FORMS["onnx"])
    assert refused.value.hint == "pip install 'ibot-cli[onnx]'"


def test_network_that_torch_cannot_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("step 1 of 3") from ValueError("no such layer\nand more")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ExportError, match=r"torch cannot write .* as ONNX: no such layer$") as refused:
        ONNX.write(subject_of(GREY), tmp_path, ExportOptions())
    assert refused.value.hint == "Export it with --to torch-export."
    assert not list(tmp_path.iterdir())


def test_network_with_a_fixed_number_of_images(
    tmp_path: Path, folder: Path, trained: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.load(folder / "model.onnx")
    model.graph.output[1].type.tensor_type.shape.dim[0].dim_value = 2
    monkeypatch.setattr(onnx_graph, "_traced", lambda *_: model)
    with pytest.raises(ExportError, match="computes with a fixed number of images"):
        ONNX.write(trained, tmp_path, ExportOptions())
    assert not list(tmp_path.iterdir())


def test_file_that_onnxruntime_cannot_open(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match=r"onnxruntime cannot open model\.onnx: "):
        ONNX.read_back(tmp_path)


def test_onnxruntime_keeps_no_identifier_and_sends_nothing(tmp_path: Path) -> None:
    """In a new process, because it is decided when the package is first imported."""
    code = "from ibot_cli.weights.export.silence import import_onnxruntime; import_onnxruntime()"
    places = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", code], env=kept | places, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "") and not list(tmp_path.iterdir())


@pytest.mark.slow
def test_round_trip_of_a_swin(narrow_swin: BackboneShape, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of(narrow_swin)
    model = onnx_graph.onnx_graph(subject)  # traced once, because that takes most of the time
    monkeypatch.setattr(onnx_form, "onnx_graph", lambda _: model)
    images = comparison_images(subject)
    for precision, tolerance in (("fp32", 1e-5), ("fp16", 1e-2), ("int8", 0.5)):
        options = ExportOptions(precision=precision)  # type: ignore[arg-type]
        result = export(subject, ONNX, tmp_path / precision, options, images)
        assert set(result.differences) == {"cls", "patches"} and max(result.differences.values()) <= tolerance
        opened = ONNX.read_back(tmp_path / precision)
        for size in (1, 5):
            assert max(compare(subject.network, opened, images(64)[:size]).values()) <= tolerance


@pytest.mark.slow
def test_round_trip_at_another_image_size(tmp_path: Path) -> None:
    subject = export_subject(loaded_classifier(GREY, "cls", projection=7), image_size=24)
    result = export(subject, ONNX, tmp_path / "out", ExportOptions(), comparison_images(subject))
    assert set(result.differences) == {"cls", "patches", "logits"} and max(result.differences.values()) <= 1e-5
