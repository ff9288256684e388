"""`ibot embed` as people type it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from tests.commands.conftest import Command, Done, Ibot
from tests.evaluate.images import write_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    backbone = build_backbone(arch="vit_tiny", image_size=16, channels=3, patch_size=4, width=16, depth=2, heads=2)
    torch.save(backbone.state_dict(), tmp_path / "weights.pth")
    write_folder(tmp_path / "images", {"a": 3, "b": 2})
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth", data: str = "images") -> Done:
        return ibot("embed", weights, data, "--heads", "2", "--device", "cpu", *args)

    return run


def test_what_people_see(ibot: Command) -> None:
    code, out, err = ibot("--out", "f.npy", "--pooling", "cls2+mean")
    assert (code, out) == (0, "")
    assert err.splitlines()[0] == ("5 images, 48 features each (cls2+mean), labels of 2 classes: f.npy and f.json")
    assert np.load("f.npy").shape == (5, 48)


def test_json(ibot: Command, place: Path) -> None:
    (place / "images" / "a" / "1.png").write_bytes(b"")
    code, out, err = ibot("--out", "f.safetensors", "--json", "--normalize", "--no-cache")
    assert code == 0 and "warning: " in err and "1.png: the file is empty" in err
    found = json.loads(out)
    assert (found["files"], found["shape"], found["normalized"]) == (["f.safetensors"], [4, 16], True)
    assert len(found["weights_hash"]) == len(found["fingerprint"]) == 64
    assert [Path(path).name for path in found["unreadable"]] == ["1.png"]


def test_files_are_not_replaced_unasked(ibot: Command) -> None:
    assert ibot("--out", "f.npy")[0] == 0
    code, out, err = ibot("--out", "f.npy")
    assert (code, out) == (2, "")
    assert err == "error: f.npy and f.json exist already.\nhint: --force replaces files; or choose another name.\n"
    assert ibot("--out", "f.npy", "--force", data="images/a")[0] == 0
    assert len(np.load("f.npy")) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--out", "f.csv"], "error: --out f.csv ends in .csv."),
        (["--out", "f.npy", "--pooling", "max"], "error: 'max' is not a pooling"),
        (["--out", "f.npy", "--precision", "fp8"], "error: There is no precision 'fp8'."),
        (["--out", "f.npy", "--split", "half"], "Invalid value for '--split'"),
        (["--out", "nowhere/f.npy"], "error: There is no folder nowhere for --out."),
    ],
)
def test_wrong_usage_leaves_nothing(ibot: Command, place: Path, args: list[str], message: str) -> None:
    before = sorted(place.iterdir())
    code, out, err = ibot(*args, weights="missing.pth")  # told before the weights are looked at
    assert (code, out) == (2, "")
    assert message in err
    assert sorted(place.iterdir()) == before
