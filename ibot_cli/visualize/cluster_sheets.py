"""Picture sheets of clusters: what is at the centre of each, and all of them side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.durable import write_atomically
from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.cluster.result import Clustering, Grouping
from ibot_cli.visualize.sheets import picture_sheet

RIGHT, WRONG = "#2a9d5c", "#d1495b"
PER_SHEET = 36
PER_ROW = 10
MOST_ROWS = 30
_OVERVIEW_SIDE = 64


def check_figures(folder: Path) -> None:
    """Refuse, before anything is computed, a folder that could not hold figures.

    Raises:
        UsageError: It, or what should hold it, is a file.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise UsageError(f"--figures {folder}: {part} is a file.", "Name a folder; it is made if it is not there.")


def write_cluster_sheets(folder: Path, found: Clustering, *, most: int = 20) -> list[Path]:
    """Write an overview per method and a sheet for each of its largest clusters, as PNG.

    Images nearest to the centre (for prototypes: of the highest score) come first. With labels, the outline says
    whether an image is of its cluster's majority class. Other files in the folder are left alone.

    Args:
        folder: Made if it is not there.
        found: From `evaluate_clusters`.
        most: Sheets of single clusters per method.

    Returns:
        The files.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _written(folder, found, most)
    except OSError as error:
        raise DataError(
            f"The figures cannot be written to {folder}: {error.strerror or error}.", "Check its space and permissions."
        ) from error


def _written(folder: Path, found: Clustering, most: int) -> list[Path]:
    files = []
    for grouping in found.groupings:
        clusters = _largest_first(grouping)
        files.append(_write(folder / f"{grouping.name}_overview.png", _overview(found, grouping, clusters)))
        digits = len(str(grouping.k - 1))
        for number in clusters[:most]:
            name = f"{grouping.name}_cluster_{number:0{digits}d}.png"
            files.append(_write(folder / name, _sheet(found, grouping, number)))
    return files


@dataclass(frozen=True, eq=False)
class _Cluster:
    """One cluster: rows of its images, the most central first, and its majority class."""

    number: int
    rows: NDArray[np.int64]
    majority: int | None
    share: float


def _largest_first(grouping: Grouping) -> list[int]:
    counts = np.bincount(grouping.assignments, minlength=grouping.k)
    return [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]


def _cluster(found: Clustering, grouping: Grouping, number: int) -> _Cluster:
    rows = np.flatnonzero(grouping.assignments == number)
    order = np.argsort(-grouping.centrality.numpy()[rows], kind="stable")
    if found.labels is None:
        return _Cluster(number, rows[order], None, 0.0)
    counts = np.bincount(found.labels[rows])
    return _Cluster(number, rows[order], int(counts.argmax()), float(counts.max() / len(rows)))


def _sheet(found: Clustering, grouping: Grouping, number: int) -> Image.Image:
    """The most central images of one cluster."""
    cluster = _cluster(found, grouping, number)
    rows = cluster.rows[:PER_SHEET]
    shown = f"; the {len(rows)} most central" if len(rows) < len(cluster.rows) else ""
    return picture_sheet(
        [_image(found, row) for row in rows],
        captions=[_caption(found, row) for row in rows],
        outlines=_outlines(found, cluster, rows),
        title=f"{_summary(found, grouping, cluster)}{shown}",
    )


def _overview(found: Clustering, grouping: Grouping, clusters: Sequence[int]) -> Image.Image:
    """A row per cluster, the largest first."""
    images: list[Image.Image | None] = []
    outlines: list[str | None] = []
    titles: list[str] = []
    for number in clusters[:MOST_ROWS]:
        cluster = _cluster(found, grouping, number)
        rows = cluster.rows[:PER_ROW]
        empty = [None] * (PER_ROW - len(rows))
        images += [*(_image(found, row) for row in rows), *empty]
        outlines += [*(_outlines(found, cluster, rows) or [None] * len(rows)), *empty]
        titles.append(_summary(found, grouping, cluster))
    own = "Prototypes" if grouping.method == "prototypes" else f"k-means, K = {grouping.k:,}"
    shown = f"the {MOST_ROWS} largest of " if len(clusters) > MOST_ROWS else ""
    return picture_sheet(
        images,
        columns=PER_ROW,
        side=_OVERVIEW_SIDE,
        outlines=outlines,
        title=f"{own}: {shown}{len(clusters):,} clusters, the most central images first",
        row_titles=titles,
    )


def _summary(found: Clustering, grouping: Grouping, cluster: _Cluster) -> str:
    what = "Prototype" if grouping.method == "prototypes" else "Cluster"
    text = f"{what} {cluster.number:,}: {len(cluster.rows):,} image{'s' * (len(cluster.rows) > 1)}"
    if found.names is None or cluster.majority is None:
        return text
    return f"{text}, {cluster.share:.0%} of class {found.names[cluster.majority]} (green)"


def _outlines(found: Clustering, cluster: _Cluster, rows: NDArray[np.int64]) -> list[str | None] | None:
    if found.labels is None:
        return None
    return [RIGHT if found.labels[row] == cluster.majority else WRONG for row in rows]


def _caption(found: Clustering, row: int) -> str:
    if found.labels is not None and found.names is not None:
        return found.names[int(found.labels[row])]
    return Path(found.images.source.path(int(found.index[row]))).stem


def _image(found: Clustering, row: int) -> Image.Image | None:
    """The image, or None where it has become unreadable since."""
    try:
        return found.images.source.read(int(found.index[row]))
    except UnreadableImage:
        return None


def _write(path: Path, image: Image.Image) -> Path:
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    write_atomically(path, lambda file: file.write(content.getvalue()))
    return path
