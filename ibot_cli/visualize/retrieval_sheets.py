"""Picture sheets of a retrieval: each row a query and its neighbours, or the images of a group of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.sources import Source
from ibot_cli.evaluate.retrieval.duplicate_result import DuplicateImage, certain_first
from ibot_cli.evaluate.retrieval.gallery import Gallery
from ibot_cli.evaluate.retrieval.neighbours import Neighbour, QueryNeighbours
from ibot_cli.visualize.cluster_sheets import RIGHT, WRONG
from ibot_cli.visualize.png import write_png
from ibot_cli.visualize.sheets import picture_sheet

QUERY = "#3d5a80"
MOST_COLUMNS = 12


def write_neighbour_sheet(path: Path, gallery: Gallery, found: Sequence[QueryNeighbours], *, rows: int) -> int:
    """Write some queries, spread evenly over all, each with its neighbours, as PNG.

    Neighbours of the query's class are outlined green, others red; nothing where a class is not known.

    Args:
        path: The file; one that exists is replaced.
        gallery: Where the images are.
        found: At least one query with its neighbours.
        rows: At most so many queries.

    Returns:
        Queries on the sheet.

    Raises:
        DataError: The file cannot be written.
    """
    chosen = np.unique(np.linspace(0, len(found) - 1, min(rows, len(found))).round().astype(int))
    columns = 1 + min(MOST_COLUMNS, max(len(query.neighbours) for query in found))
    asked = gallery.source if gallery.queries is None else gallery.queries
    pictures: list[Image.Image | None] = []
    captions: list[str] = []
    outlines: list[str | None] = []
    for query in (found[place] for place in chosen):
        nearest = query.neighbours[: columns - 1]
        pictures += [_read(asked, query.place), *(_read(gallery.source, near.place) for near in nearest)]
        captions += [f"query {query.label or Path(query.query).name}", *map(_caption, nearest)]
        outlines += [QUERY, *(_outline(query, near) for near in nearest)]
    _save(path, pictures, captions, outlines, columns, "Queries and their nearest images")
    return len(chosen)


def write_duplicate_sheet(path: Path, source: Source, groups: Sequence[Sequence[DuplicateImage]], *, rows: int) -> int:
    """Write some groups, a row each, as PNG; those with identical images come first, also within a group.

    Args:
        path: The file; one that exists is replaced.
        source: What the places of the images refer to.
        groups: At least one.
        rows: At most so many groups.

    Returns:
        Groups on the sheet.

    Raises:
        DataError: The file cannot be written.
    """
    shown = certain_first(groups)[:rows]
    columns = min(MOST_COLUMNS, max(len(group) for _, group in shown))
    pictures: list[Image.Image | None] = []
    captions: list[str] = []
    for _, group in shown:
        empty = max(0, columns - len(group))
        pictures += [*(_read(source, image.place) for image in group[:columns]), *[None] * empty]
        captions += [*map(_described, group[:columns]), *[""] * empty]
    titles = [_title(number, group) for number, group in shown]
    _save(path, pictures, captions, None, columns, "Duplicates", titles)
    return len(shown)


def _save(
    path: Path,
    pictures: Sequence[Image.Image | None],
    captions: Sequence[str],
    outlines: Sequence[str | None] | None,
    columns: int,
    title: str,
    row_titles: Sequence[str] | None = None,
) -> None:
    sheet = picture_sheet(
        pictures, columns=columns, captions=captions, outlines=outlines, title=title, row_titles=row_titles
    )
    write_png(path, sheet)


def _read(source: Source, place: int) -> Image.Image | None:
    """The image, or nothing where it went away since its features were computed."""
    try:
        return source.read(place)
    except UnreadableImage:
        return None


def _caption(near: Neighbour) -> str:
    return f"{near.similarity:.3f} {near.label or ''}".strip()


def _outline(query: QueryNeighbours, near: Neighbour) -> str | None:
    if query.label is None or near.label is None:
        return None
    return RIGHT if near.label == query.label else WRONG


def _described(image: DuplicateImage) -> str:
    name = Path(image.path).name
    return f"{name}\n{'identical' if image.identical_to is not None else f'{image.similarity:.4f}'}"


def _title(number: int, group: Sequence[DuplicateImage]) -> str:
    parts = dict.fromkeys(image.part for image in group if image.part is not None)
    labels = dict.fromkeys(f"class {image.label}" for image in group if image.label is not None)
    return ", ".join([f"{number}: {len(group)} images", *parts, *labels])
