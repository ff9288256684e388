"""Safetensors files as WEIGHTS, whole and damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ibot_cli.core.backbone import build_backbone
from ibot_cli.errors import WeightsError
from ibot_cli.weights.files import metadata_of, read_weights_file, tensors_in
from ibot_cli.weights.load import load_weights, weights_hash

SHAPE = {"arch": "vit_tiny", "image_size": 16, "patch_size": 8, "width": 16, "depth": 1, "heads": 2}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save_file({"a": torch.ones(3, 4), "b": torch.zeros(5)}, tmp_path / "a.safetensors", {"note": "text"})
    return tmp_path / "a.safetensors"


def test_tensors_and_metadata(file: Path) -> None:
    content = read_weights_file(file)
    assert metadata_of(content) == {"note": "text"}
    tensors = tensors_in(content)
    assert tensors.keys() == {"a", "b"} and torch.equal(tensors["a"], torch.ones(3, 4))


def test_a_backbone_also_under_another_name(tmp_path: Path) -> None:
    backbone = build_backbone(**SHAPE)
    save_file(backbone.state_dict(), tmp_path / "teacher.bin")
    loaded = load_weights(str(tmp_path / "teacher.bin"), heads=2)
    assert loaded.weights_hash == weights_hash(backbone) and loaded.unused == ()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (4, "it is no safetensors file, only 4 bytes"),
        (30, r"it is truncated inside its header \(30 bytes\)"),
        (-30, r"it is truncated, \d+ of \d+ bytes"),
        (-1, r"it is truncated, \d+ of \d+ bytes"),
    ],
)
def test_truncated(file: Path, keep: int, message: str) -> None:
    size = file.stat().st_size
    os.truncate(file, keep if keep > 0 else size + keep)
    with pytest.raises(WeightsError, match=f"cannot be read: {message}") as caught:
        load_weights(str(file))
    assert caught.value.hint == "Download or copy it again."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x10\x00\x00\x00\x00\x00\x00\x00not a header....", "it is no safetensors file"),
        (b"\x08\x00\x00\x00\x00\x00\x00\x00{broken}", "its header is damaged"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff" + b"x" * 90, "it is no safetensors file"),
        (b"\x02\x00\x00\x00\x00\x00\x00\x00{}" + b"left over", "it has 19 bytes, of which its header knows 10"),
    ],
)
def test_wrong_header(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match=f"cannot be read: {message}"):
        load_weights(str(tmp_path / "a.safetensors"))


def test_a_web_page_saved_under_this_name(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"<!DOCTYPE html><html></html>")
    with pytest.raises(WeightsError, match="is a web page, not weights"):
        load_weights(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize("length", [0x80, 0x8B1F, 0x227B], ids=["pickle", "gzip", "JSON"])
def test_the_length_of_the_header_is_no_magic_number(length: int, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{suffix}"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).ljust(length).encode()
    path.write_bytes(length.to_bytes(8, "little") + header + torch.tensor([1.0, 2.0]).numpy().tobytes())
    assert read_weights_file(path)["state_dict"]["a"].tolist() == [1.0, 2.0]
