"""`ibot data pack` as people type it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ibot_cli import pack_view
from tests.commands.conftest import Ibot
from tests.data_pipeline.packing.packs import photograph, photographs, samples, stored, write


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_tells_sizes_labels_splits_and_times(ibot: Ibot, here: Path) -> None:
    photographs(here / "data" / "train", 4)
    photographs(here / "data" / "val", 2)
    done = ibot("data", "pack", "data", "out", "--short-side", "24", "--workers", "0", "--json")
    assert done.code == 0
    assert "out packed: train 4 images in 1 shard, val 2 images in 1 shard, labels of 2 classes." in done.words
    assert "of shards (" in done.words and "0 of 6 files kept their bytes" in done.words
    assert "Decoding an image takes" in done.words and "The parts are train and val" in done.words
    result = json.loads(done.out)
    assert (result["out"], result["images"], result["classes"]) == ("out", {"train": 4, "val": 2}, 2)
    assert result["packed_bytes"] == sum(path.stat().st_size for path in (here / "out").glob("*.tar"))
    again = ibot("data", "pack", "data", "out", "--short-side", "24", "--workers", "0")
    assert again.code == 0 and "out was packed before: train 4 images" in again.words and again.out == ""


def test_unreadable_files_are_named_on_the_screen(ibot: Ibot, here: Path) -> None:
    photographs(here / "data", 4)
    write(here / "data" / "china" / "bad.jpg", b"<html>")
    done = ibot("data", "pack", "data", "out", "--copy", "--workers", "0")
    assert done.code == 0
    assert "warning: 1 unreadable file left out; out/pack.json lists it" in done.words
    assert "bad.jpg: it is a web page (HTML), not an image" in done.words
    assert "4 of 4 files kept their bytes" in done.words


def test_deep_files_are_told(ibot: Ibot, here: Path) -> None:
    write(here / "data" / "a.png", stored(photograph(30, 20).convert("I;16"), "PNG"))
    done = ibot("data", "pack", "data", "out", "--workers", "0")
    assert "1 file with more than 8 bits, or TIFF of other than 1 or 3 bands, kept its bytes." in done.words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--copy", "--quality", "80"], "--copy keeps the images as they are."),
        (["--copy", "--short-side", "80"], "--copy keeps the images as they are."),
        (["--shard-size", "big"], "--shard-size big is not a size."),
        (["--shard-size", "9KB"], "--shard-size 9KB is too small for a shard."),
    ],
)
def test_wrong_options_exit_2(ibot: Ibot, here: Path, options: list[str], message: str) -> None:
    done = ibot("data", "pack", "builtin:digits", "out", *options)
    assert (done.code, done.out) == (2, "")
    assert message in done.words and "hint: " in done.words
    assert not (here / "out").exists()


def test_an_interruption_says_how_to_go_on(ibot: Ibot, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(here / "data", 6)
    command = ("data", "pack", "data", "out", "--copy", "--shard-size", "10KB", "--workers", "0")

    def interrupt(bar: object, split: str, done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pack_view.Progress, "__call__", interrupt)
        done = ibot(*command)
    assert done.code == 130
    assert "Stopped with 2 complete shards in out; the same command goes on from there." in done.words
    assert ibot(*command).code == 0
    assert len(samples(here / "out")) == 6
