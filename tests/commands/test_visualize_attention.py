"""`ibot visualize-attention` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from ibot_cli.core import swin
from ibot_cli.core.backbone import build_backbone
from tests.commands.conftest import Command, Done, Ibot
from tests.visualize.attention.known import looking_at, spotted
from tests.weights.finetuned_files import write_run


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with images, a ViT whose first head sees what is bright, and a Swin."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(swin.SIZES, "swin_miniature", swin.Size(8, (2, 2, 2, 2), (1, 2, 2, 2)))
    torch.save(looking_at(["bright", "dark", "nothing"]).backbone.state_dict(), "weights.pth")
    with torch.random.fork_rng(devices=[]):
        torch.save(build_backbone(arch="swin_miniature", image_size=224, channels=1).state_dict(), "swin.pth")
    spotted([(1, 2)]).save("one.png")
    spotted([(0, 0)], columns=7).save("wide.png")
    return tmp_path


@pytest.fixture
def ibot(place: Path, ibot: Ibot) -> Command:
    def run(*args: str, weights: str = "weights.pth") -> Done:
        heads = ("--heads", "3") if weights == "weights.pth" else ()
        return ibot("visualize-attention", weights, *args, *heads, "--device", "cpu")

    return run


def test_figures_beside_the_data(ibot: Command, place: Path) -> None:
    code, out, err = ibot("one.png", "wide.png")
    assert (code, out) == (0, "") and "2 figures are in attention." in err
    assert sorted(file.name for file in (place / "attention").iterdir()) == ["attention.json", "one.png", "wide.png"]
    code, out, err = ibot("one.png", "--pca", "--threshold", "0.5", "--at", "5,5", "--size", "32", "--json")
    assert code == 0 and "2 figures are in attention, in place of the earlier ones." in err
    found = json.loads(out)
    assert found == json.loads((place / "attention" / "attention.json").read_text())
    assert found["images"][0]["grid"] == [8, 8] and found["images"][0]["queries"][0]["patch"] == [2, 2]
    assert found["pca"]["file"] == "pca.png" and found["threshold"] == found["mass"] == 0.5
    bright, dark, nothing = found["images"][0]["queries"][0]["heads"]
    assert bright["patches_for_mass"] < dark["patches_for_mass"] <= nothing["patches_for_mass"]
    assert sorted(file.name for file in (place / "attention").iterdir()) == ["attention.json", "one.png", "pca.png"]


def test_samples_of_data(ibot: Command, place: Path) -> None:
    code, _, err = ibot("builtin:digits", "--num", "3", "--out", "out")
    assert code == 0 and "3 figures are in out." in err
    first = sorted(file.name for file in (place / "out").iterdir())
    ibot("builtin:digits", "--num", "3", "--out", "out", "--seed", "1")
    assert len(first) == 4 and sorted(file.name for file in (place / "out").iterdir()) != first


def test_a_run_keeps_its_figures(ibot: Command, place: Path) -> None:
    write_run(place / "run")
    code, _, err = ibot("one.png", weights="run")
    assert code == 0 and (place / "run/figures/attention/one.png").exists()
    assert "1 figure is in run/figures/attention." in err


def test_swin(ibot: Command, place: Path) -> None:
    code, _, err = ibot("one.png", weights="swin.pth")
    assert code == 2 and "error: This network has no class token" in err and "hint: " in err and "--at X,Y" in err
    assert not (place / "attention").exists()
    assert ibot("one.png", "--at", "4,4", weights="swin.pth")[0] == 0
    assert (place / "attention" / "one.png").exists()
    code, _, err = ibot("one.png", "--pca", weights="swin.pth")
    assert code == 0 and "warning: This network has no class token" in err
    assert "1 figure is in attention, in place of the earlier ones." in err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["broken.png"], 1, "error: broken.png: not an image"),
        (["one.png", "broken.png"], 1, "error: broken.png: not an image"),
        (["missing.png"], 1, "error: There is no folder or file missing.png."),
        (["one.png", "--at", "16,3"], 2, "error: --at 16,3 lies outside one.png, which is 16 x 16 pixels."),
        (["one.png", "--at", "16"], 2, "error: --at 16 is not a point."),
        (["one.png", "--threshold", "1.5"], 2, "error: --threshold 1.5 is not a share of the attention."),
        (["one.png", "--threshold", "0"], 2, "error: --threshold 0 is not a share of the attention."),
        (["one.png", "--size", "3"], 2, "error: --size 3 is less than one patch of weights.pth, which is 4 pixels."),
        (["one.png", "--out", "taken"], 2, "error: --out taken is not empty"),
        (["one.png", "--out", "one.png"], 2, "error: --out one.png: one.png is a file."),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_written(
    ibot: Command, place: Path, args: list[str], code: int, message: str
) -> None:
    (place / "broken.png").write_bytes(b"no image")
    (place / "taken").mkdir()
    Image.new("L", (4, 4)).save("taken/holiday.png")
    before = sorted(str(path) for path in place.rglob("*"))
    assert ibot(*args)[0] == code
    _, out, err = ibot(*args)
    assert message in err and "hint: " in err and out == ""
    assert sorted(str(path) for path in place.rglob("*")) == before
