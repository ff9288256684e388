from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from ibot_cli.errors import DataError
from ibot_cli.evaluate.retrieval.duplicate_result import DuplicateImage, certain_first
from ibot_cli.evaluate.retrieval.gallery import open_gallery
from ibot_cli.evaluate.retrieval.neighbours import Neighbour, QueryNeighbours
from ibot_cli.visualize.cluster_sheets import RIGHT, WRONG
from ibot_cli.visualize.retrieval_sheets import QUERY, write_duplicate_sheet, write_neighbour_sheet

COLOURS = ["#101080", "#108010", "#801010", "#808010"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for place, colour in enumerate(COLOURS):
        path = tmp_path / "images" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), colour).save(path)
    return tmp_path / "images"


def found(label: str | None, *neighbours: tuple[int, str | None], query: int = 0) -> QueryNeighbours:
    near = tuple(Neighbour(path=f"{place}.png", place=place, similarity=0.5, label=name) for place, name in neighbours)
    return QueryNeighbours(query=f"{query}.png", place=query, label=label, neighbours=near)


def left_edge(path: Path, colour: str) -> int:
    """The first column of the sheet with that colour."""
    found = (np.asarray(Image.open(path)) == ImageColor.getrgb(colour)).all(axis=2)
    return int(np.flatnonzero(found.any(axis=0)).min())


def share(path: Path, colour: str) -> float:
    pixels = np.asarray(Image.open(path))
    return float((pixels == ImageColor.getrgb(colour)).all(axis=2).mean())


def test_query_first_then_right_and_wrong_neighbours(folder: Path) -> None:
    gallery = open_gallery(str(folder), channels=3)  # places: a/0, a/2, b/1, b/3
    path = folder / "sheet.png"
    assert write_neighbour_sheet(path, gallery, [found("a", (1, "a"), (2, "b"))], rows=5) == 1
    query, wrong, right = (left_edge(path, colour) for colour in COLOURS[:3])
    edges = [left_edge(path, colour) for colour in (QUERY, RIGHT, WRONG)]
    assert edges[0] < query < edges[1] < right < edges[2] < wrong  # the outline of each image around it
    assert share(path, COLOURS[3]) == 0


def test_unknown_classes_are_neither_right_nor_wrong(folder: Path) -> None:
    gallery = open_gallery(str(folder), channels=3)
    path = folder / "sheet.png"
    write_neighbour_sheet(path, gallery, [found(None, (1, "a"), (2, "b"))], rows=5)
    assert share(path, RIGHT) == share(path, WRONG) == 0 < share(path, QUERY)


def test_queries_spread_over_all(folder: Path) -> None:
    gallery = open_gallery(str(folder), channels=3)
    path = folder / "sheet.png"
    queries = [found("a", (0, "a"), query=place) for place in range(4)]
    assert write_neighbour_sheet(path, gallery, queries, rows=2) == 2
    assert share(path, COLOURS[3]) > 0 and share(path, COLOURS[2]) == 0 == share(path, COLOURS[1])  # first and last


def test_duplicates_a_row_for_each_group(folder: Path) -> None:
    gallery = open_gallery(str(folder), channels=3)

    def image(place: int) -> DuplicateImage:
        path = gallery.source.path(place)
        return DuplicateImage(path=path, place=place, part=None, label="a", similarity=1.0, identical_to=None)

    groups = [[image(0), image(1)], [image(2), image(3)]]
    path = folder / "sheet.png"
    assert write_duplicate_sheet(path, gallery.source, groups, rows=5) == 2
    assert min(share(path, colour) for colour in COLOURS) > 0
    whole = Image.open(path).height
    assert write_duplicate_sheet(path, gallery.source, groups, rows=1) == 1
    assert Image.open(path).height < whole and share(path, COLOURS[1]) == 0  # place 2 is b/1


def test_identical_images_come_first() -> None:
    def image(path: str, identical_to: str | None) -> DuplicateImage:
        return DuplicateImage(path=path, place=0, part=None, label=None, similarity=1.0, identical_to=identical_to)

    near = [image(name, None) for name in "xy"]
    mixed = [image("a", None), image("b", None), image("c", "b")]
    ordered = certain_first([near, mixed])
    assert [(number, [each.path for each in group]) for number, group in ordered] == [
        (2, ["b", "c", "a"]),
        (1, ["x", "y"]),
    ]


def test_images_that_went_away_leave_a_gap_and_folders_an_error(folder: Path) -> None:
    gallery = open_gallery(str(folder), channels=3)
    (folder / "a" / "2.png").unlink()
    path = folder / "sheet.png"
    write_neighbour_sheet(path, gallery, [found("a", (1, "a"), (2, "b"))], rows=5)
    assert share(path, COLOURS[2]) == 0 < share(path, COLOURS[1])
    with pytest.raises(DataError, match="cannot be written"):
        write_neighbour_sheet(folder / "gone" / "x.png", gallery, [found("a", (2, "b"))], rows=5)
