import json
import os
from pathlib import Path

import pytest

from ibot_cli.errors import DataError, UsageError
from ibot_cli.runs.filled_folder import filled_folder
from ibot_cli.visualize.figure_folder import check_figure_folder

MADE_BY = "ibot tests"


def check(folder: Path) -> None:
    check_figure_folder(folder, mark="mark.json", made_by=MADE_BY, names=("mark.json", "*.png"))


def fill(folder: Path, name: str = "a.png") -> None:
    with filled_folder(folder) as place:
        (place / name).write_text("drawn")
        (place / "mark.json").write_text(json.dumps({"made_by": MADE_BY}))


def content(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_everything_is_there_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "figures"
    with filled_folder(folder) as place:
        (place / "a.png").write_text("drawn")
        assert not folder.exists() and place.parent == folder.parent
    assert content(tmp_path) == {"new", "new/figures", "new/figures/a.png"}


def test_a_second_call_replaces_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "figures"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        check(folder)
        fill(folder, name)
    assert content(tmp_path) == {"figures", "figures/b.png", "figures/mark.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
@pytest.mark.parametrize("there", [True, False])
def test_an_interruption_leaves_everything_as_it_was(tmp_path: Path, error: type[BaseException], there: bool) -> None:
    folder = tmp_path / "deep" / "figures"
    if there:
        fill(folder)
    before = content(tmp_path)
    with pytest.raises(error), filled_folder(folder) as place:
        (place / "half.png").write_text("drawn")
        raise error
    assert content(tmp_path) == before


def test_an_interruption_while_moving_keeps_the_old_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "figures"
    fill(folder)
    before, rename, renamed = content(tmp_path), Path.rename, list[Path]()

    def interrupted(self: Path, target: Path) -> Path:
        renamed.append(self)
        if len(renamed) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(folder, "new.png")
    assert content(tmp_path) == before and len(renamed) == 3


@pytest.mark.parametrize("stopped", [0, 1])
def test_an_interruption_right_after_a_move_keeps_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped: int
) -> None:
    folder = tmp_path / "figures"
    fill(folder)
    rename, renamed = Path.rename, list[Path]()

    def interrupted(self: Path, target: Path) -> Path:
        done = rename(self, target)
        renamed.append(self)
        if len(renamed) == stopped + 1:
            raise KeyboardInterrupt
        return done

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fill(folder, "new.png")
    assert content(folder) == {("a.png", "new.png")[stopped], "mark.json"} and list(tmp_path.iterdir()) == [folder]


def test_what_a_kill_left_goes_once_it_is_old(tmp_path: Path) -> None:
    for name in (".figures.7.unfinished", ".figures.8.unfinished", ".figures.x.unfinished", ".others.7.unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half.png").write_text("")
        if "8" not in name:
            os.utime(tmp_path / name, (0, 0))
    fill(tmp_path / "figures")
    assert {path.name for path in tmp_path.iterdir()} == {
        "figures", ".figures.8.unfinished", ".figures.x.unfinished", ".others.7.unfinished"
    }  # fmt: skip


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Path]()

    def refused(path: Path, mode: int) -> bool:
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", refused)
    with pytest.raises(UsageError, match=r"--out .*figures: nothing can be written to ") as told:
        check(tmp_path / "deep" / "figures")
    assert told.value.hint == "Name a folder somewhere else." and asked == [tmp_path.resolve()]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    fill(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and content(tmp_path / "real") == {"a.png", "mark.json"}


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(
            DataError, match=r"The figures cannot be written to .*figures: No space left on device\."
        ) as told,
        filled_folder(tmp_path / "figures"),
    ):
        raise OSError(28, os.strerror(28))
    assert told.value.hint == "Check its space and permissions." and content(tmp_path) == set()


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
