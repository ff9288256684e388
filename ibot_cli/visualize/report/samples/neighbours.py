"""The browser of nearest neighbours: images of the test part and the training images that the network finds alike."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from ibot_cli.evaluate.retrieval.duplicates import THRESHOLD
from ibot_cli.evaluate.retrieval.neighbours import Neighbour
from ibot_cli.visualize.lettering import short_name
from ibot_cli.visualize.report.samples.browse import Asked, Browse, browse_neighbours
from ibot_cli.visualize.report.samples.options import StageProgress
from ibot_cli.visualize.report.samples.subject import Subject
from ibot_cli.visualize.report.samples.thumbnails import Thumbnail, Thumbnails


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A neighbour as the page shows it.

    Attributes:
        thumbnail: None where the image cannot be read any more.
        name: Its file.
        label: Its class, or None.
        similarity: Cosine.
        wrong: Whether it is of another class than the image that was looked up; None without labels.
        same: Whether it is nearly the same image to the network.
    """

    thumbnail: Thumbnail | None
    name: str
    label: str | None
    similarity: float
    wrong: bool | None
    same: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """An image that was looked up, as the page shows it.

    Attributes:
        thumbnail: None where the image cannot be read any more.
        name: Its file.
        label: Its class, or None.
        number: Place of its class among the classes that are shown, or None.
        predicted: What its neighbours vote for, or None.
        wrong: Whether that is another class.
        neighbours: Nearest first.
    """

    thumbnail: Thumbnail | None
    name: str
    label: str | None
    number: int | None
    predicted: str | None
    wrong: bool
    neighbours: tuple[Shown, ...]


def neighbour_values(subject: Subject, progress: StageProgress | None = None) -> Mapping[str, object]:
    """What the template `report_neighbours.html` shows.

    Raises:
        DataError: No image can be read, or there is no other to find.
        WeightsError: Features are not finite.
    """
    return browser_values(subject, browse_neighbours(subject.loaded, subject.gallery, subject.options, progress))


def browser_values(subject: Subject, found: Browse) -> Mapping[str, object]:
    """As `neighbour_values`, for neighbours that are known."""
    copies = Thumbnails("neighbour")
    classes = _classes(subject, found)
    rows = [_row(subject, asked, classes, copies) for asked in found.asked]
    gone = [f"{path} can no longer be read: {reason}." for path, reason in copies.bad.items()]
    return {
        "rows": rows,
        "copies": copies.made,
        "classes": classes,
        "labelled": found.num_wrong is not None,
        "num_wrong": found.num_wrong,
        "shown_wrong": sum(row.wrong for row in rows),
        "some_shown": len(rows) < found.num_asked,
        "num_same": sum(near.same for row in rows for near in row.neighbours),
        "same": THRESHOLD,
        "found": found,
        "per_row": max((len(row.neighbours) for row in rows), default=0),
        "queries": subject.part,
        "searched": "other images" if subject.gallery.queries is None else "training images",
        "token": "class token" if subject.has_class_token else "mean of the patches",
        "num_gallery": len(subject.gallery.source),
        "num_source": len(subject.source),
        "some_searched": len(subject.gallery.source) > subject.options.most_gallery,
        "some_asked": len(subject.source) > _most_asked(subject),
        "command": shlex.join(
            ["ibot", "retrieve", str(subject.run), subject.data, "image.jpg", "--sheet", "neighbours.png"]
        ),
        "notes": [*found.notes, *gone],
    }


def _most_asked(subject: Subject) -> int:
    """Without a test part the images that are searched are those that are looked up."""
    options = subject.options
    return options.most_gallery if subject.gallery.queries is None else options.most_queries


def _classes(subject: Subject, found: Browse) -> list[str]:
    """Of the images that were looked up, in the order of the data."""
    shown = {asked.found.label for asked in found.asked}
    return [name for name in subject.gallery.classes or () if name in shown]


def _row(subject: Subject, asked: Asked, classes: list[str], copies: Thumbnails) -> Row:
    query = asked.found
    return Row(
        thumbnail=copies.of(subject.source, query.place),
        name=short_name(query.query),
        label=query.label,
        number=None if query.label is None else classes.index(query.label),
        predicted=asked.predicted,
        wrong=asked.wrong,
        neighbours=tuple(_shown(subject, asked, near, copies) for near in query.neighbours),
    )


def _shown(subject: Subject, asked: Asked, near: Neighbour, copies: Thumbnails) -> Shown:
    known = asked.predicted is not None
    return Shown(
        thumbnail=copies.of(subject.gallery.source, near.place),
        name=short_name(near.path),
        label=near.label,
        similarity=near.similarity,
        wrong=near.label != asked.found.label if known else None,
        same=near.similarity > THRESHOLD,
    )
