import hashlib
import os
from pathlib import Path

import pytest

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.indexing import file_states
from ibot_cli.data.indexing.file_states import (
    MISSING,
    FileStates,
    data_fingerprint,
    file_state,
    stat_files,
    states_fingerprint,
)
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.sources import open_source
from tests.data_pipeline.shards.tars import write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(20):
        (tmp_path / f"{index}.png").write_bytes(b"x" * index)
        os.utime(tmp_path / f"{index}.png", ns=(0, 10**18 + index))
    return tmp_path


@pytest.mark.parametrize("slow", [0.0, 1.0])
def test_states_of_files_one_by_one_and_side_by_side(folder: Path, slow: float, monkeypatch) -> None:
    monkeypatch.setattr(file_states, "_CHUNK", 3)
    monkeypatch.setattr(file_states, "_seconds_per_file", lambda *_: slow)
    states = stat_files(folder, NameTable([*(f"{index}.png" for index in range(20)), "no.png", str(folder / "7.png")]))
    assert states.sizes.tolist() == [*range(20), MISSING, 7]
    assert states.mtimes.tolist() == [*range(10**18, 10**18 + 20), MISSING, 10**18 + 7]
    assert states[3] == (3, 10**18 + 3) and states.settled


def test_time_per_file(folder: Path) -> None:
    names = NameTable([f"{index}.png" for index in range(20)] * 20)
    assert 0 < file_states._seconds_per_file(str(folder), names) < 1


def test_no_files(tmp_path: Path) -> None:
    states = stat_files(tmp_path, NameTable([]))
    assert len(states.sizes) == 0 and states.settled


def test_what_was_just_written_may_change_unseen(folder: Path) -> None:
    (folder / "new.png").write_bytes(b"")
    assert not stat_files(folder, NameTable(["0.png", "new.png"])).settled


def test_equal_states(folder: Path) -> None:
    names = NameTable(["1.png", "2.png"])
    first, second = stat_files(folder, names), stat_files(folder, names)
    assert first == second and first != stat_files(folder, NameTable(["1.png", "3.png"])) and first != "states"
    os.utime(folder / "2.png", ns=(0, 1))
    assert first != stat_files(folder, names)
    assert isinstance(first, FileStates)


def test_the_fingerprint_is_that_of_the_sorted_entries(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(file_states, "_CHUNK", 2)
    names = NameTable(["9.png", "é\udcff.png", str(folder / "10.png"), "2.png", "/elsewhere/x.png"])
    entries = [
        f"{name}\0{size}\0{mtime}\n"
        for name, size, mtime in [
            ("/elsewhere/x.png", -1, -1),
            ("10.png", 10, 10**18 + 10),
            ("2.png", 2, 10**18 + 2),
            ("9.png", 9, 10**18 + 9),
            ("é\udcff.png", -1, -1),
        ]
    ]
    expected = hashlib.sha256("".join(entries).encode(errors="surrogateescape")).hexdigest()
    assert states_fingerprint(folder, names, stat_files(folder, names)) == expected
    assert data_fingerprint(["b", "a"], [1, 2], [3, 4]) == hashlib.sha256(b"a\x002\x004\nb\x001\x003\n").hexdigest()


def test_a_file_in_a_tar_file_changes_with_it(tmp_path: Path) -> None:
    """Or features of a list with such paths would be those of an older tar file."""
    place = str(write_tar(tmp_path / "s.tar", {"a/1.png": 1}) / "a/1.png")
    os.utime(tmp_path / "s.tar", ns=(0, 10**18))
    assert file_state(place) == ((tmp_path / "s.tar").stat().st_size, 10**18)
    assert file_state(f"{tmp_path}/no.tar/1.png") == (MISSING, MISSING)
    (tmp_path / "list.txt").write_text("s.tar/a/1.png\n")
    before = open_source(str(tmp_path / "list.txt"), channels=3)
    assert before.levels(0).shape == (16, 20, 3) and before.fingerprint
    write_tar(tmp_path / "s.tar", {"a/1.png": 2})
    with pytest.raises(UnreadableImage, match="changed since"):
        before.levels(0)
    assert open_source(str(tmp_path / "list.txt"), channels=3).fingerprint != before.fingerprint
