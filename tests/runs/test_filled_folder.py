"""Folders that are complete or as they were before."""

import os
from pathlib import Path

import pytest

from ibot_cli.errors import DataError, ExportError
from ibot_cli.runs.filled_folder import filled_folder


def fill(folder: Path, name: str = "a.png") -> None:
    with filled_folder(folder) as place:
        (place / name).write_text("drawn")
        (place / "mark.json").write_text("{}")


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


def test_the_message_says_what_could_not_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(ExportError, match=r"The export cannot be written to .*folder: No space left on device\."),
        filled_folder(tmp_path / "folder", "The export", ExportError),
    ):
        raise OSError(28, os.strerror(28))
