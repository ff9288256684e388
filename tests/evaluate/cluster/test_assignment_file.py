import csv
from pathlib import Path

import pytest

from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.cluster.assignment_file import check_assignment_file, write_assignments
from tests.evaluate.clusterings import clustering


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_line_per_image(tmp_path: Path) -> None:
    found = clustering([2, 0, 1, 1], [[7, 7, 0], [1, 0, 1]], methods=("prototypes", "kmeans"), index=[0, 1, 3])
    path = tmp_path / "clusters.csv"
    path.write_text("old")
    write_assignments(path, found)
    assert rows(path) == [
        {"path": "image 0", "label": "colour 2", "prototype": "7", "kmeans_8": "1"},
        {"path": "image 1", "label": "colour 0", "prototype": "7", "kmeans_8": "0"},
        {"path": "image 3", "label": "colour 1", "prototype": "0", "kmeans_8": "1"},
    ]
    assert [entry.name for entry in tmp_path.iterdir()] == ["clusters.csv"]


def test_without_labels_the_column_is_empty(tmp_path: Path) -> None:
    write_assignments(tmp_path / "c.csv", clustering(None, [[0, 1]], methods=("kmeans",)))
    assert (tmp_path / "c.csv").read_text() == "path,label,kmeans_8\nimage 0,,0\nimage 1,,1\n"


def test_awkward_names(tmp_path: Path) -> None:
    found = clustering([0, 1], [[0, 1]], methods=("kmeans",))
    found.images.source.path = lambda index: 'a "b",\n\udcffä'  # type: ignore[method-assign]
    write_assignments(tmp_path / "c.csv", found)
    text = (tmp_path / "c.csv").read_bytes().decode(errors="surrogateescape")
    assert '"a ""b"",\n\udcffä",colour 0,0' in text


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder") as caught:
        check_assignment_file(tmp_path)
    assert caught.value.hint is not None and "clusters.csv" in caught.value.hint
    with pytest.raises(UsageError, match=f"there is no folder {tmp_path}/none"):
        check_assignment_file(tmp_path / "none" / "c.csv")
    check_assignment_file(tmp_path / "c.csv")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="cannot be written: "):
        write_assignments(tmp_path / "none" / "c.csv", clustering(None, [[0]], methods=("kmeans",)))
