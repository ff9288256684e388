"""Where an export goes, and what an interruption leaves."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ibot_cli.errors import ExportError, UsageError
from ibot_cli.weights.export.forms import FORMS, ExportOptions
from ibot_cli.weights.export.place import check_place, filled_place
from tests.weights.export.networks import VIT, subject_of

ONE, FOLDER = FORMS["safetensors"], FORMS["hf"]


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def fill(out: Path) -> None:
    with filled_place(ONE, out) as place:
        (place / "model.safetensors").write_text("weights")
        (place / "README.md").write_text("card")


def test_a_folder_and_a_file_with_its_card(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "folder")
    fill(tmp_path / "v1.2.safetensors")
    assert content(tmp_path) == {
        "deep", "deep/folder", "deep/folder/model.safetensors", "deep/folder/README.md",
        "v1.2.safetensors", "v1.2.safetensors.md",
    }  # fmt: skip
    assert (tmp_path / "v1.2.safetensors").read_text() == "weights"


@pytest.mark.parametrize("name", ["folder", "one.safetensors"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ExportError])
def test_an_interruption_leaves_nothing(tmp_path: Path, name: str, error: type[BaseException]) -> None:
    with pytest.raises(error), filled_place(ONE, tmp_path / name) as place:
        (place / "model.safetensors").write_text("half")
        raise error("stop")
    assert content(tmp_path) == set()


def test_an_interruption_between_file_and_card_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    move, moved = shutil.move, list[Path]()

    def interrupted(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        move(source, target)

    monkeypatch.setattr(shutil, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "one.safetensors")
    assert moved and content(tmp_path) == set()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    for name in ("one.safetensors", "folder"):
        with (
            pytest.raises(ExportError, match=r"The export cannot be written to .*: No space left") as told,
            filled_place(ONE, tmp_path / name),
        ):
            raise OSError(28, "No space left on device")
        assert told.value.hint == "Check its space and permissions." and content(tmp_path) == set()


def test_several_files_need_a_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(ExportError, match=r"more than one file \(more\.data\)") as told,
        filled_place(ONE, tmp_path / "one.safetensors") as place,
    ):
        (place / "more.data").write_text("")
    assert told.value.hint == "Name a folder with --out instead." and content(tmp_path) == set()


def test_what_is_taken_or_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("")
    (tmp_path / "one.safetensors.md").write_text("")
    monkeypatch.chdir(tmp_path)
    for form, out, message, hint in (
        (ONE, "full", "is a folder with files in it", "or a file NAME.safetensors. Nothing is overwritten."),
        (FOLDER, "full", "is a folder with files in it", "Name a new or an empty folder. Nothing is overwritten."),
        (ONE, "one.safetensors", r"one\.safetensors\.md exists already", "Remove it first, or choose another name."),
        (ONE, "deep/one.safetensors", "There is no folder deep for --out", "Make it first"),
        (ONE, "one.safetensors.md/x", r"one\.safetensors\.md is a file", "Name a new or an empty folder"),
        (ONE, "one.pth", r"one\.pth ends in \.pth, which is not the form safetensors", "NAME.safetensors"),
        (FOLDER, "one.safetensors", r"ends in \.safetensors, which is not the form hf", "Name a new or an empty"),
    ):
        with pytest.raises(UsageError, match=message) as told:
            check_place(form, Path(out))
        assert hint in str(told.value.hint)
    (tmp_path / "empty").mkdir()
    check_place(ONE, Path("empty"))
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(UsageError, match=r"--out \. is the current folder"):
        check_place(ONE, Path())


def test_places_that_cannot_be_written_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os.path, "ismount", lambda path: path == tmp_path)
        with pytest.raises(UsageError, match="is the top of a file system") as told:
            check_place(ONE, tmp_path)
        assert told.value.hint == "Name a new folder inside it."
    monkeypatch.setattr(os, "access", lambda *_: False)
    for name in ("one.safetensors", "new/folder"):
        with pytest.raises(UsageError, match=f"there is no permission to write in {tmp_path}"):
            check_place(ONE, tmp_path / name)


@pytest.mark.parametrize(("name", "taken"), [("one.safetensors", "one.safetensors.md"), ("folder", "folder/notes.txt")])
def test_what_others_wrote_meanwhile_stays(tmp_path: Path, name: str, taken: str) -> None:
    with pytest.raises(ExportError, match=r"meanwhile|not empty"), filled_place(ONE, tmp_path / name) as place:
        (place / "model.safetensors").write_text("weights")
        (place / "README.md").write_text("card")
        (tmp_path / taken).parent.mkdir(exist_ok=True)
        (tmp_path / taken).write_text("theirs")
    assert (tmp_path / taken).read_text() == "theirs" and content(tmp_path) == {taken, *taken.split("/")[:-1]}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("name", ["hf", "timm", "safetensors", "torch-export", "official"])
def test_a_disk_that_fills_up_while_a_form_is_written_is_told(tmp_path: Path, name: str) -> None:
    form = FORMS[name]
    with (
        pytest.raises(ExportError, match="No space left on device"),
        filled_place(form, tmp_path / "out") as place,
    ):
        (place / (form.file or "model.safetensors")).symlink_to("/dev/full")
        form.write(subject_of(VIT), place, ExportOptions())
    assert content(tmp_path) == set()
