import json
import os
from pathlib import Path

import pytest

from ibot_cli.errors import UsageError
from ibot_cli.visualize.figure_folder import check_figure_folder

MADE_BY = "ibot tests"


def check(folder: Path) -> None:
    check_figure_folder(folder, mark="mark.json", made_by=MADE_BY, names=("mark.json", "*.png"))


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Path]()

    def refused(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", refused)
    with pytest.raises(UsageError, match=r"--out .*figures: nothing can be written to ") as told:
        check(tmp_path / "deep" / "figures")
    assert told.value.hint == "Name a folder somewhere else." and asked == [tmp_path.resolve()]


def test_what_is_not_ours_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "inside"):
        with pytest.raises(UsageError, match=r"--out .*file is a file\."):
            check(folder)
    folder = tmp_path / "folder"
    check(folder)
    folder.mkdir()
    check(folder)
    (folder / "thesis.txt").write_text("")
    with pytest.raises(UsageError, match=r"is not empty: it holds thesis\.txt, which is not of `ibot tests`"):
        check(folder)
    (folder / "thesis.txt").unlink()
    (folder / "holiday.png").write_text("")  # could be ours by its name
    for mark in (None, "{", "[]", "{}", '{"made_by": "someone else"}'):
        if mark is not None:
            (folder / "mark.json").write_text(mark)
        with pytest.raises(UsageError, match="is not empty, and not a folder that `ibot tests` has filled"):
            check(folder)
    (folder / "mark.json").write_text(json.dumps({"made_by": MADE_BY}))
    check(folder)


def test_the_current_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"--out \. is the current folder\.") as told:
        check(Path())
    assert told.value.hint == "Name a new folder inside it."
