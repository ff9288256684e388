from pathlib import Path

import pytest

from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.output_file import check_output, write_output


def test_writes_whole_files(tmp_path: Path) -> None:
    check_output(tmp_path / "a.CSV", "--out", ".csv")
    write_output(tmp_path / "a.csv", b"one")
    write_output(tmp_path / "a.csv", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.csv", b"two")]


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "is a folder"), ("a.txt", r"a\.txt does not end in \.csv"), ("no/a.csv", r"no/a\.csv: there is no folder")],
)
def test_refuses_before_anything_is_computed(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"--out .*{message}") as caught:
        check_output(tmp_path / name, "--out", ".csv")
    assert caught.value.hint is not None


def test_a_folder_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv cannot be written: No such file or directory"):
        write_output(tmp_path / "gone" / "a.csv", b"")
