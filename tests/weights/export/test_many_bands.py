"""Exports of a network for 5 channels of 16 bits: what they say about images, and that their own lines prepare one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ibot_cli.data.decode import PixelFormat, open_bytes
from ibot_cli.data.transform import eval_transform
from ibot_cli.weights.assembly import assemble
from ibot_cli.weights.export.card import _preparation
from ibot_cli.weights.export.compare import compare, comparison_images
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.forms import FORMS
from ibot_cli.weights.export.subject import Subject, export_subject
from ibot_cli.weights.layouts.found import Found, Preparation
from ibot_cli.weights.load import load_weights
from ibot_cli.weights.origin import Origin
from ibot_cli.weights.shapes import BackboneShape
from tests.weights.export.networks import built

tifffile = pytest.importorskip("tifffile")
SHAPE = BackboneShape(arch="vit_tiny", image_size=16, channels=5, patch_size=4, width=24, depth=2, heads=2)
MEAN, STD = (0.01, 0.02, 0.03, 0.04, 0.05), (0.02, 0.02, 0.03, 0.03, 0.04)


@pytest.fixture(scope="module")
def subject() -> Subject:
    prepared = Preparation(mean=MEAN, std=STD, image_size=16, crop_ratio=0.8, bits=16)
    tensors = {f"backbone.{name}": value for name, value in built(SHAPE).state_dict().items()}
    origin = Origin(layout="a test", path="memory", method="iBOT", which="teacher", step=3)
    return export_subject(assemble(Found(network=SHAPE, tensors=tensors, origin=origin, preparation=prepared)))


def written(subject: Subject, form: Form, folder: Path) -> Path:
    form.check(subject, ExportOptions())
    form.write(subject, folder, ExportOptions())
    return folder if form.file is None else folder / form.file


@pytest.mark.parametrize("name", ["safetensors", "timm", "hf"])
def test_it_comes_back_with_channels_bits_and_statistics(subject: Subject, name: str, tmp_path: Path) -> None:
    found = load_weights(str(written(subject, FORMS[name], tmp_path)))
    assert (found.channels, found.bits) == (5, 16)
    assert found.preparation == subject.loaded.preparation
    images = comparison_images(subject)(16)
    assert images.shape[1:] == (5, 16, 16) and torch.equal(images[:, 3:], images[:, :2])
    assert max(compare(subject.network, FORMS[name].read_back(tmp_path), images).values()) <= 1e-5


@pytest.mark.parametrize(("name", "dtype"), [("safetensors", "uint16"), ("timm", "uint16"), ("timm", "uint8")])
def test_its_own_lines_prepare_an_image(
    subject: Subject, name: str, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(subject, FORMS[name], tmp_path)
    top = {"uint8": 255, "uint16": 4095}[dtype]
    array = np.random.default_rng(0).integers(0, top + 1, (25, 31, 5)).astype(dtype)
    tifffile.imwrite(tmp_path / "image.tif", array, photometric="minisblack", planarconfig="contig")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with torch.no_grad():
        exec(FORMS[name].usage(subject, str(path)), names)
    content = (tmp_path / "image.tif").read_bytes()
    levels = open_bytes(content, "image.tif", PixelFormat(channels=5, bits=16)).levels()
    expected = eval_transform(*subject.loaded.preparation)(levels)
    torch.testing.assert_close(names["images"][0], expected, atol=1e-3, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(names["tokens"][0], subject.network.backbone(expected[None])[0], atol=1e-2, rtol=0)


def test_cards_and_processors_say_it(subject: Subject, tmp_path: Path) -> None:
    assert _preparation(subject).startswith("1. Take all 5 channels, as levels from 0 to 65,535.\n")
    told = FORMS["hf"].notes(subject, ExportOptions())
    assert told[0].startswith("The library's own transforms do not read 5-channel 16-bit images")
    FORMS["hf"].write(subject, tmp_path, ExportOptions())
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert config["rescale_factor"] == 1 / 65535 and config["image_mean"] == list(MEAN)
    assert json.loads((tmp_path / "config.json").read_text())["num_channels"] == 5
