"""Where an export goes, and what an interruption leaves."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ibot_cli.errors import ExportError, UsageError
from ibot_cli.weights.export.forms import FORMS
from ibot_cli.weights.export.place import check_place, filled_place, same_mode

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


def test_everybody_may_read_what_they_may_read_the_card_of(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("")
    (tmp_path / "weights").write_text("")
    (tmp_path / "weights").chmod(0o600)
    same_mode(tmp_path)
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "README.md").stat().st_mode
