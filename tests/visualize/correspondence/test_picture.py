"""Where pictures of matches are written."""

import os
from pathlib import Path

import pytest
from PIL import Image

from ibot_cli.errors import DataError, UsageError
from ibot_cli.visualize.correspondence.picture import picture_path, write_picture
from tests.evaluate.records import new_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return new_run(Path("run"), 10)


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        ("left.png", "right.jpg", "correspondence_left_right.png"),
        ("a/0.png", "b/0.png", "correspondence_a-0_b-0.png"),
        ("../my photos/0.png", None, "correspondence_views_my-photos-0.png"),
        ("builtin:photos", None, "correspondence_views_builtin-photos.png"),
        ("photos/", None, "correspondence_views_photos.png"),
        ("été.v2.png", None, "correspondence_views_été.v2.png"),
        ("..", None, "correspondence_views_image.png"),
        ("é" * 90, None, f"correspondence_views_{'é' * 40}.png"),
    ],
)
def test_calls_with_other_images_have_other_pictures(run: Path, first: str, second: str | None, name: str) -> None:
    assert picture_path(None, "run", first, second) == Path("run/figures") / name
    assert not (run / "figures").exists()


def test_names_that_are_not_utf8(run: Path) -> None:
    assert picture_path(None, "run", os.fsdecode(b"caf\xe9.png"), None).name == "correspondence_views_caf.png"


def test_without_a_run_or_by_name(run: Path) -> None:
    assert picture_path(None, "weights.pth", "a.png", None) == Path("correspondence.png")
    assert picture_path(Path("mine.png"), "run", "a.png", None) == Path("mine.png")


def test_what_cannot_be_written_is_refused_at_once(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--out mine\.jpg does not end in \.png"):
        picture_path(Path("mine.jpg"), "run", "a.png", None)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda *_: False)
        with pytest.raises(UsageError, match="Nothing can be written to run"):
            picture_path(None, "run", "a.png", None)
    (run / "figures").write_text("")
    with pytest.raises(UsageError, match="run/figures is a file"):
        picture_path(None, "run", "a.png", None)


def test_the_folder_is_made_with_the_picture(run: Path) -> None:
    path = picture_path(None, "run", "a.png", None)
    for _ in range(2):
        write_picture(path, Image.new("RGB", (4, 3)))
    assert Image.open(path).size == (4, 3) and len(list(path.parent.iterdir())) == 1
    with pytest.raises(DataError, match="absent/run/figures cannot be made: No such file or directory"):
        write_picture(Path("absent/run/figures/a.png"), Image.new("RGB", (4, 3)))
