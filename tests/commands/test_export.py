"""`ibot export` as people type it."""

import importlib.util
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from ibot_cli.commands.export import export
from ibot_cli.core.backbone import build_backbone
from ibot_cli.weights.export.forms import FORMS
from tests.commands.conftest import Command, Done, Ibot


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=2, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth") -> Done:
        return ibot("export", weights, "--heads", "2", *args)

    return run


def test_what_people_see(ibot: Command, place: Path) -> None:
    code, out, err = ibot("--to", "safetensors", "--out", "net.safetensors", "--licence", "CC0-1.0")
    assert (code, out) == (0, "")
    lines = [line.split() for line in err.splitlines()]
    assert err.startswith("Written to net.safetensors: safetensors in the names of ibot.\n")
    assert ["Output", "at", "16", "px", "Tolerance", "at", "24", "px"] in lines
    assert ["cls", "0", "1e-05", "0"] in lines and ["patches", "0", "1e-05", "0"] in lines
    assert "Largest difference over largest value, on 8 real images, read back with ibot.\n\nfrom ibot_cli" in err
    assert "weights = load_weights('net.safetensors')" in err
    assert sorted(path.name for path in place.iterdir()) == ["net.safetensors", "net.safetensors.md", "weights.pth"]
    assert "license: cc0-1.0" in (place / "net.safetensors.md").read_text()


def test_what_was_exported_is_weights(ibot: Command, place: Path) -> None:
    assert ibot("--to", "safetensors", "--out", "out", "--image-size", "24").code == 0
    code, out, _ = ibot("--to", "official", "--out", "again", "--json", weights="out/model.safetensors")
    found = json.loads(out)
    assert code == 0 and found["form"] == "official" and found["image_size"] == 24
    assert found["differences"] == {"cls": 0.0, "patches": 0.0} and set(found["files"]) == {
        "README.md", "checkpoint.pth"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (("--to", "timm", "--out", "weights.pth"), "weights.pth ends in .pth, which is not the form timm", "folder"),
        (("--to", "safetensors", "--out", "o", "--int8"), "--int8: the form safetensors has fp32 weights only", "onnx"),
        (("--to", "onnx", "--out", "o", "--int8", "--fp16"), "--fp16 and --int8 exclude each other", "Leave one"),
        (("--to", "safetensors", "--out", "o", "--with-head"), "there is no projection head in weights.pth", "Leave"),
        (("--to", "safetensors", "--out", "o", "--which", "student"), "weights.pth holds a single network", "Leave"),
        (("--to", "safetensors", "--out", "o", "--image-size", "18"), "--image-size 18 is no multiple of 4", "16"),
    ],
)
def test_wrong_usage_leaves_nothing(ibot: Command, place: Path, args: tuple[str, ...], message: str, hint: str) -> None:
    done = ibot(*args)
    assert done.code == 2 and message in done.err and hint in done.err.split("hint: ")[1]
    assert [path.name for path in place.iterdir()] == ["weights.pth"]


def test_too_few_images_of_ones_own(ibot: Command, place: Path) -> None:
    (place / "images").mkdir()
    done = ibot("--to", "safetensors", "--out", "o", "--data", "images")
    assert done.code == 1 and not (place / "o").exists()


def test_a_missing_package_is_named(ibot: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    done = ibot("--to", "hf", "--out", "o")
    assert done.code == 2 and done.err.endswith("hint: pip install 'ibot-cli[hf]'\n")


def test_every_form_can_be_asked_for() -> None:
    assert set(get_args(get_type_hints(export)["to"])) == set(FORMS)


@pytest.mark.parametrize("out", ["out", "out.safetensors"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_process_leaves_nothing(
    ibot: Command, place: Path, monkeypatch: pytest.MonkeyPatch, out: str, number: int, code: int
) -> None:
    form = FORMS["safetensors"]

    def stopped(*given: Any) -> None:
        form.write(*given)
        assert len(list(place.iterdir())) == 2  # the weights, and the hidden folder
        os.kill(os.getpid(), number)

    monkeypatch.setitem(FORMS, "safetensors", replace(form, write=stopped))  # type: ignore[arg-type]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
    try:
        assert ibot("--to", "safetensors", "--out", out).code == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in place.iterdir()] == ["weights.pth"]
