import contextlib
import pickle
import random
import re
from pathlib import Path

import numpy as np
import pytest

from ibot_cli.data.indexing.array_file import DamagedFile, read_arrays, write_arrays
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.indexing.shared_buffer import SharedBuffer
from ibot_cli.data.scan import natural_key, natural_order

NAMES = [["a.png", "é/ü.png", "x\udcff", "", "b"], ["one"], [], ["", ""], [str(number) for number in range(70_000)]]


@pytest.mark.parametrize("names", NAMES, ids=len)
def test_names_come_back(names: list[str]) -> None:
    table = NameTable(iter(names))
    for found in (table, NameTable.of(table.blob), pickle.loads(pickle.dumps(table))):
        assert list(found) == names and len(found) == len(names)
        assert [found[index] for index in range(min(len(names), 10))] == names[:10]
        assert found.some(1, 3) == names[1:3] and found.some(5, 3) == []
        for index in (-1, len(names)):
            with pytest.raises(IndexError):
                found[index]


def test_a_zero_byte_is_no_part_of_a_name() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        NameTable(["a", "b\0c"])
    with pytest.raises(ValueError, match="zero byte"):
        NameTable.of(np.frombuffer(b"a\0b", dtype=np.uint8))


def test_a_buffer_is_read_only_and_sent_by_its_place() -> None:
    buffer = SharedBuffer(b"x" * 10_000)
    assert buffer.view.readonly and len(pickle.dumps(buffer)) < 200
    copy = pickle.loads(pickle.dumps(buffer))
    del buffer
    assert bytes(copy.view) == b"x" * 10_000 and bytes(pickle.loads(pickle.dumps(copy)).view) == bytes(copy.view)


@pytest.mark.parametrize("error", [AttributeError, OSError])
def test_a_buffer_without_anonymous_files(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> int:
        raise error

    monkeypatch.setattr("os.memfd_create", refused)
    assert bytes(pickle.loads(pickle.dumps(SharedBuffer(b"abc"))).view) == b"abc"
    assert list(NameTable(["a", "b"])) == ["a", "b"]


def test_arrays_come_back(tmp_path: Path) -> None:
    arrays = {"a": np.arange(5, dtype=np.int64), "b": np.array([1, 2, 3], np.uint8), "c": np.empty(0, np.float32)}
    write_arrays(tmp_path / "new/x", {"name": "\udcff", "n": [1, None]}, arrays)
    about, found = read_arrays(tmp_path / "new/x")
    assert about == {"name": "\udcff", "n": [1, None]} and list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_a_damaged_file_of_arrays_never_gives_others(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_arrays(path, {"b": 1}, {"a": np.arange(3)})
    content = path.read_bytes()
    survived = 0
    places = range(0, len(content), 7)
    for place in places:
        path.write_bytes(content[:place])
        with pytest.raises(DamagedFile):
            read_arrays(path)
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        with contextlib.suppress(DamagedFile):
            about, arrays = read_arrays(path)
            assert about == {"b": 1} and list(arrays) == ["a"] and arrays["a"].tolist() == [0, 1, 2]
            survived += 1
    assert survived < len(places) / 2  # dates and versions of the zip format


def slow_key(name: str) -> tuple[list[str | int], str]:
    """The order by its definition: words and numbers in turn, the name itself last."""
    parts: list[str | int] = list(re.split("([0-9]+)", name))
    parts[1::2] = [int(part) for part in parts[1::2]]
    return parts, name


def test_natural_order() -> None:
    assert natural_order(["img10", "img9", "img01", "img1", "b"]) == ["b", "img01", "img1", "img9", "img10"]
    rng = random.Random(0)
    for _ in range(1500):
        start = rng.choice(["", "x", "n00", "a-1"])
        names = [start + "".join(rng.choices("a1029-._Z \x01é\udc80", k=rng.randrange(6))) for _ in range(8)]
        assert natural_order(names) == sorted(names, key=natural_key) == sorted(names, key=slow_key)


def test_numbers_of_any_length_are_compared() -> None:
    names = ["9" * 200, "1" + "0" * 200, "0" * 230 + "1"]
    assert natural_order(names) == [names[2], names[0], names[1]]
