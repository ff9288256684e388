"""`ibot visualize-views` as people type it."""

import json
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from tests.commands.conftest import Command, Ibot
from tests.data_pipeline.images import write_images

SMALL = ("--preset", "ibot_vits16", "--set", "views.num_local=3", "--set", "views.global_size=64")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", 5)
    return tmp_path


@pytest.fixture
def ibot(ibot: Ibot) -> Command:
    return partial(ibot, "visualize-views")


def test_what_people_see(ibot: Command, place: Path) -> None:
    code, out, err = ibot("images", *SMALL, "--num", "2", "--set", "mask.kind=random")
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert lines[0] == "Views of 2 images of images (5 images) in epoch 0, seed 0, preset ibot_vits16"
    assert lines[-2].startswith("Masks (random): ") and "of the 4 x 4 patches on average" in lines[-2]
    assert lines[-1] == "The picture is views.png." and Image.open(place / "views.png").width > 600
    table = [line.split() for line in lines if line.startswith(("global", "local"))]
    assert [row[:7] for row in table] == [
        ["global", "2", "64", "px", "25%", "to", "100%"], ["local", "3", "96", "px", "5%", "to", "25%"]
    ]  # fmt: skip


def test_json(ibot: Command, place: Path) -> None:
    code, out, _ = ibot("images", *SMALL, "--seed", "3", "--epoch", "5", "--json", "--out", "x.png")
    found = json.loads(out)
    assert code == 0 and (found["seed"], found["epoch"], len(found["samples"])) == (3, 5, 4)
    views = found["samples"][0]["views"]
    assert [view["kind"] for view in views] == ["global"] * 2 + ["local"] * 3
    assert views[2]["mask_ratio"] is None and len(views[0]["box"]) == 4 and isinstance(views[0]["flip"], bool)
    assert (place / "x.png").is_file() and not (place / "views.png").exists()
    other = json.loads(ibot("images", *SMALL, "--set", "train.seed=3", "--epoch", "5", "--json")[1])
    assert other["samples"] == found["samples"]
    assert json.loads(ibot("images", *SMALL, "--seed", "4", "--epoch", "5", "--json")[1])["samples"] != found["samples"]


def test_unreadable_files_are_named(ibot: Command, place: Path) -> None:
    (place / "images" / "2.png").write_bytes(b"")
    code, _, err = ibot("images", *SMALL, "--num", "5")
    assert code == 0
    assert "images/2.png could not be read and is replaced by another image: the file is empty." in err


def test_nothing_is_masked(ibot: Command) -> None:
    assert (
        "Nothing is masked: the recipe has no patch target."
        in ibot("images", *SMALL, "--set", "objective.patch=none")[2]
    )
    assert "Nothing is masked before epoch 9." in ibot("images", *SMALL, "--set", "mask.start_epoch=9")[2]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["nowhere"], 1, "There is no folder or file nowhere."),
        (["images", "--num", "0"], 2, "--num 0: there is nothing to show."),
        (["images", "--epoch", "800", "--preset", "ibot_vits16"], 2, "--epoch 800: the run has the epochs 0 to 799."),
        (["images", "--out", "views.gif"], 2, "--out views.gif does not end in .png."),
    ],
)
def test_errors(ibot: Command, args: list[str], code: int, message: str) -> None:
    found, out, err = ibot(*args)
    assert (found, out) == (code, "") and f"error: {message}" in err and "hint: " in err
    assert not Path("views.png").exists()


def test_settings_are_checked_as_for_a_run(ibot: Command) -> None:
    code, _, err = ibot("images", "--set", "views.num_global=0", "--set", "views.nothing=1")
    assert code == 2 and "views.num_global" in err and "views.nothing" in err
