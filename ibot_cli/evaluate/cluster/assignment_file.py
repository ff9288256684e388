"""The clusters of all images as one CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from ibot_cli.durable import write_atomically
from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.cluster.images import class_names
from ibot_cli.evaluate.cluster.result import Clustering


def check_assignment_file(path: Path) -> None:
    """Refuse, before anything is computed, a file that could not be written.

    Raises:
        UsageError: The path is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder.", f"Name a file, for example --out {path / 'clusters.csv'}.")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: there is no folder {path.parent}.", "Make it first, or name another one.")


def write_assignments(path: Path, found: Clustering) -> None:
    """Write a line per readable image, atomically: path, label and its cluster by each method.

    Columns are `path`, `label` (empty without labels), `prototype` (only where there are prototypes), and `kmeans_K`
    for each K. A file that exists is replaced.

    Raises:
        DataError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ["prototype" if each.method == "prototypes" else each.name for each in found.groupings]
    writer.writerow(["path", "label", *columns])
    writer.writerows(_lines(found))
    content = text.getvalue().encode(errors="surrogateescape")
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}.", "Check the folder's space and permissions."
        ) from error


def _lines(found: Clustering) -> Iterator[tuple[object, ...]]:
    names = class_names(found.images.source)
    columns = [each.assignments.tolist() for each in found.groupings]
    for row, place in enumerate(found.index.tolist()):
        label = "" if names is None else names[place]
        yield found.images.source.path(place), label, *(column[row] for column in columns)
