from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.cluster.result import Clustering
from ibot_cli.visualize import cluster_sheets
from ibot_cli.visualize.cluster_sheets import RIGHT, WRONG, check_figures, write_cluster_sheets
from tests.evaluate.clusterings import clustering


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What was asked of `picture_sheet`, in the order of the files."""
    asked: list[dict[str, Any]] = []
    real = cluster_sheets.picture_sheet

    def record(images: list[Image.Image | None], **options: Any) -> Image.Image:
        asked.append({"images": images, **options})
        return real(images, **options)

    monkeypatch.setattr(cluster_sheets, "picture_sheet", record)
    return asked


def pictures(found: Clustering, rows: list[int]) -> list[bytes]:
    return [found.images.source.read(row).tobytes() for row in rows]


def test_most_central_first_and_outlined_by_the_majority(tmp_path: Path, sheets: list[dict[str, Any]]) -> None:
    found = clustering([0, 0, 0, 1, 2, 2, 1], [[3, 3, 3, 3, 5, 5, 1]])
    files = write_cluster_sheets(tmp_path / "new" / "figures", found)
    names = ["kmeans_8_overview.png", "kmeans_8_cluster_3.png", "kmeans_8_cluster_5.png", "kmeans_8_cluster_1.png"]
    assert [file.name for file in files] == names and sorted(names) == sorted(
        file.name for file in (tmp_path / "new" / "figures").iterdir()
    )
    assert all(Image.open(file).mode == "RGB" for file in files)
    overview, largest, *_ = sheets
    assert [image.tobytes() for image in largest["images"]] == pictures(found, [3, 2, 1, 0])
    assert largest["outlines"] == [WRONG, RIGHT, RIGHT, RIGHT]
    assert largest["captions"] == ["colour 1", "colour 0", "colour 0", "colour 0"]
    assert largest["title"] == "Cluster 3: 4 images, 75% of class colour 0 (green)"
    assert overview["row_titles"] == [sheet["title"] for sheet in sheets[1:]]
    assert overview["row_titles"][2] == "Cluster 1: 1 image, 100% of class colour 1 (green)"
    shown = [None if image is None else image.tobytes() for image in overview["images"]]
    assert shown[:4] == pictures(found, [3, 2, 1, 0]) and shown[4:10] == [None] * 6
    assert overview["outlines"][10:13] == [RIGHT, RIGHT, None]
    assert overview["title"] == "k-means, K = 8: 3 clusters, the most central images first"


def test_prototypes_and_k_means_side_by_side(tmp_path: Path, sheets: list[dict[str, Any]]) -> None:
    found = clustering(None, [[0, 0, 7], [1, 2, 2]], methods=("prototypes", "kmeans"))
    files = write_cluster_sheets(tmp_path, found, most=1)
    assert [file.name for file in files] == [
        "prototypes_overview.png",
        "prototypes_cluster_0.png",
        "kmeans_8_overview.png",
        "kmeans_8_cluster_2.png",
    ]
    assert sheets[1]["title"] == "Prototype 0: 2 images" and sheets[1]["outlines"] is None
    assert sheets[1]["captions"] == ["image 1", "image 0"]
    assert sheets[0]["title"].startswith("Prototypes: 2 clusters")


def test_limits(tmp_path: Path, sheets: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_sheets, "PER_SHEET", 4)
    monkeypatch.setattr(cluster_sheets, "MOST_ROWS", 2)
    found = clustering(None, [[0] * 12 + [1] * 3 + [2] * 2])
    assert len(write_cluster_sheets(tmp_path, found, most=0)) == 1
    assert len(sheets[0]["images"]) == 20 and None not in sheets[0]["images"][:10]
    assert sheets[0]["title"] == "k-means, K = 8: the 2 largest of 3 clusters, the most central images first"
    write_cluster_sheets(tmp_path, found, most=1)
    assert len(sheets[2]["images"]) == 4 and sheets[2]["title"] == "Cluster 0: 12 images; the 4 most central"


def test_an_image_that_has_become_unreadable_leaves_a_gap(tmp_path: Path, sheets: list[dict[str, Any]]) -> None:
    write_cluster_sheets(tmp_path, clustering([0, 1, 1], [[0, 0, 0]], bad=(1,)))
    assert sheets[1]["images"][1] is None and sheets[1]["images"][0] is not None


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    check_figures(tmp_path)
    write_cluster_sheets(tmp_path, clustering(None, [[0, 1]]))
    first = {file.name: np.asarray(Image.open(file)) for file in tmp_path.glob("*.png")}
    write_cluster_sheets(tmp_path, clustering(None, [[0, 1]]))
    assert all((np.asarray(Image.open(tmp_path / name)) == levels).all() for name, levels in first.items())
    assert (tmp_path / "mine.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 4


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "deeper" / "figures"):
        with pytest.raises(UsageError, match=rf"--figures {folder}: {tmp_path / 'file'} is a file\."):
            check_figures(folder)
        with pytest.raises(DataError, match="cannot be written"):
            write_cluster_sheets(folder, clustering(None, [[0, 1]]))
    check_figures(tmp_path / "not" / "there" / "yet")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
