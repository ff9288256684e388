import json
import math
import os
from pathlib import Path

import pytest

from ibot_cli import durable


def test_replaces_the_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"old", b"new"):
        durable.write_atomically(path, lambda file, content=content: file.write(content))
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(file) -> None:
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        durable.write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".step-00000001.pt.123.tmp").write_bytes(b"half")
    (tmp_path / "kept").write_bytes(b"")
    durable.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_json_never_holds_nan(tmp_path: Path) -> None:
    durable.write_json(tmp_path / "a.json", {"x": math.nan, "y": [math.inf, 1.5], 3: {"z": (1, "é")}})
    text = (tmp_path / "a.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"x": None, "y": [None, 1.5], "3": {"z": [1, "é"]}}


def test_file_names_that_are_no_text_come_back_as_they_were(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xff \xc3\xa9")
    durable.write_json(tmp_path / "a.json", {"data": name})
    durable.append_json(tmp_path / "b.jsonl", {"data": name})
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"data": name}
    assert json.loads((tmp_path / "b.jsonl").read_text(encoding="utf-8")) == {"data": name}


def test_a_line_is_added_in_place_of_a_half_one(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    durable.append_line(path, b"one")
    with path.open("ab") as file:
        file.write(b"ha")
    durable.append_line(path, b"two")
    assert path.read_bytes() == b"one\ntwo\n"
