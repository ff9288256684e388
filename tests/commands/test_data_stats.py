"""`ibot data stats` as people type it."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.conftest import Command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for part in ("train/cat", "train/dog", "val/cat", "val/dog"):
        (folder / part).mkdir(parents=True)
        levels = np.random.default_rng(len(part)).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / part / "0.png")
    (folder / "train/dog/1.jpg").write_bytes(b"")
    return folder


def test_the_tables_tell_what_is_there(ibot: Command, photos: Path) -> None:
    done = ibot("data", "stats", photos, "--workers", "0")
    assert done.code == 0
    assert done.out == ""
    for text in (
        "5: train 3, val 2",
        "2, of 2 (cat) to 3 (dog) images",
        "4 PNG",
        "the file is empty",
        "same file",
        "2 groups of duplicates with several classes",
        "--set data.mean=0.",
    ):
        assert text in done.words


def test_json_is_complete(ibot: Command, photos: Path) -> None:
    done = ibot("data", "stats", photos, "--workers", "0", "--json")
    found = json.loads(done.out)
    assert found["parts"] == {"train": 3, "val": 2}
    assert found["unreadable"] == {str(photos / "train/dog/1.jpg"): "the file is empty"}
    assert found["sizes"]["width"]["median"] == 30
    assert len(found["channels"]["std"]) == 3
    group = found["duplicates"]["groups"][0]
    assert {copy["same"] for copy in group} == {None, "file"}


def test_a_sample_says_so(ibot: Command, photos: Path) -> None:
    done = ibot("data", "stats", photos, "--workers", "0", "--limit", "4")
    assert "a random sample of 4" in done.words


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("nowhere",), "There is no folder or file nowhere."),
        (("builtin:digits", "--bits", "16"), "builtin:digits has images of 8 bits, not of 16."),
    ],
)
def test_what_cannot_be_is_said(ibot: Command, args: tuple[str, ...], message: str) -> None:
    done = ibot("data", "stats", *args)
    assert done.code in (1, 2)
    assert message in done.words
