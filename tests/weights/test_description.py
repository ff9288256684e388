"""The text inside exported files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibot_cli.config.schema import Config
from ibot_cli.errors import WeightsError
from ibot_cli.weights.description import VERSION, as_text, describe, parse
from ibot_cli.weights.loaded import LoadedBackbone
from tests.weights.export.networks import CLASSES, VIT, loaded_backbone, loaded_classifier


def with_config(config: Config) -> LoadedBackbone:
    loaded = loaded_backbone(VIT)
    return replace(loaded, origin=replace(loaded.origin, config=config))


def changed(**fields: Any) -> str:
    return json.dumps(describe(loaded_backbone(VIT)) | fields)


def test_what_is_described_comes_back() -> None:
    loaded = with_config(Config())
    found = parse(as_text(describe(loaded)))
    assert found.shape == loaded.shape and found.config == Config()
    images = found.preparation
    assert (images.image_size, images.crop_ratio, images.channels, images.mean, images.std) == loaded.preparation
    assert (found.method, found.which, found.epoch, found.step) == ("iBOT", "teacher", None, 3)
    assert found.classes is None and found.native_image_size == 32


def test_a_classifier_with_its_layers() -> None:
    found = parse(as_text(describe(loaded_classifier(VIT, "cls", projection=5))))
    assert (found.classes, found.pooling, found.projection, found.activation) == (CLASSES, "cls", 5, "gelu")


def test_another_image_size_is_that_of_shape_and_preparation() -> None:
    found = parse(as_text(describe(loaded_backbone(VIT), image_size=48)))
    assert found.shape is not None
    assert (found.shape.image_size, found.preparation.image_size, found.native_image_size) == (48, 48, 32)


@pytest.mark.parametrize(
    ("weights", "told"),
    [("/home/someone/secret/run", "run"), ("timm:vit_small_patch16_224.dino", "timm:vit_small_patch16_224.dino")],
)
def test_folders_of_a_machine_stay_there(weights: str, told: str) -> None:
    config = replace(Config(), init=replace(Config().init, weights=weights))
    text = as_text(describe(with_config(config)))
    assert f'"{told}"' in text and "someone" not in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"The description inside the file \(`ibot`\) cannot be read: JSONDecodeError"),
        ("[]", r"cannot be read: TypeError"),
        ("{}", r"cannot be read: KeyError: 'version'"),
        (changed(shape={"arch": "vit_tiny", "sides": 3}), r"cannot be read: TypeError: .*'sides'"),
        (changed(preparation={"channels": 3}), r"cannot be read: KeyError: 'mean'"),
        (changed(version=VERSION + 1), rf"has version {VERSION + 1}; this version of ibot reads up to {VERSION}\."),
    ],
)
def test_what_cannot_be_read_is_told(text: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as told:
        parse(text)
    assert told.value.hint in ("Export the weights again with `ibot export`.", "Upgrade ibot.")


def test_no_path_of_a_run_is_inside(tmp_path: Path) -> None:
    loaded = loaded_backbone(VIT)
    loaded = replace(loaded, origin=replace(loaded.origin, path=str(tmp_path / "run"), run=tmp_path))
    assert str(tmp_path) not in as_text(describe(loaded))
