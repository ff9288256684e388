"""A folder of images: flat, nested, with class folders, or with `train/` and `val/`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.files import FileSource, Split, no_test_split
from ibot_cli.data.indexing.folder_index import FolderIndex, open_index
from ibot_cli.data.indexing.name_table import NameTable
from ibot_cli.data.scan import Scan, natural_order, visible_folders
from ibot_cli.errors import DataError

TRAIN = "train"
CHOSEN = "The images are those in "  # begins the note on which sub-folders are used
TESTS = ("val", "valid", "validation", "test")


def open_folder(folder: Path, data: str, *, pixels: PixelFormat, split: Split) -> FileSource:
    """Open a folder; see `ibot_cli.data.sources.open_source`.

    Labels are the names of the first-level folders, when every image lies in one and there are at least two.

    Raises:
        DataError: No image in it, it may not be listed, or it has no test part.
    """
    try:
        parts = split_folders(folder)
        chosen = _choose(parts, split, data)
        indices = {part: open_index(folder, part) for part in chosen}
    except OSError as error:
        raise DataError(
            f"{data} cannot be listed: {error.strerror or error}.", hint="Check the permissions of the folder."
        ) from error
    scans = [index.found for index in indices.values()]
    names, only = _names(list(indices.values()))
    if not len(names):
        raise _no_image(data, chosen, scans)
    notes = [note for scan in scans for note in scan.notes()]
    if parts:
        rest = [f"{part}/" for part in parts if part not in chosen]
        unused = f"; {', '.join(rest)} not used" if rest else ""
        notes.insert(0, f"{CHOSEN}{', '.join(f'{part}/' for part in chosen)}{unused}.")
    labels, classes = _labels(scans, len(names), _split_classes(folder, parts) if parts else None)
    title = f"{data} ({', '.join(chosen)})" if parts else data
    root = folder.resolve()
    return FileSource(
        name=title, root=root, names=names, pixels=pixels, labels=labels, classes=classes, notes=notes, index=only
    )


def split_folders(folder: Path) -> list[str]:
    """The sub-folders that split the data, the one for training first; empty where the folder has no such split.

    They count only when nothing else lies beside them: `train` can be the name of a class too.

    Raises:
        OSError: The folder cannot be listed.
    """
    names = visible_folders(folder)
    lower = [name.lower() for name in names]
    if TRAIN not in lower or not set(lower) <= {TRAIN, *TESTS}:
        return []
    return sorted(names, key=lambda name: (TRAIN, *TESTS).index(name.lower()))


def _choose(parts: list[str], split: Split, data: str) -> list[str]:
    """Sub-folders to scan; `[""]` is the folder itself."""
    if split == "test":
        if len(parts) < 2:
            raise no_test_split(data)
        return parts[1:2]
    if not parts:
        return [""]
    return parts[:1] if split == "train" else parts


def _split_classes(folder: Path, parts: list[str]) -> list[str]:
    """Class names over all parts, so that a label means the same in each of them."""
    return natural_order(list({name for part in parts for name in visible_folders(folder / part)}))


def _names(indices: list[FolderIndex]) -> tuple[NameTable, FolderIndex | None]:
    """All names, and the index if one holds them all."""
    if len(indices) == 1:
        return indices[0].names, indices[0]
    return NameTable(name for index in indices for name in index.names), None


def _labels(
    scans: list[Scan], num_images: int, classes: list[str] | None
) -> tuple[np.ndarray | None, list[str] | None]:
    """int64 labels and class names, or None and None."""
    groups = [(name, count) for scan in scans for name, count in scan.groups if count]
    counts = [count for _, count in groups]
    if sum(counts) < num_images:
        return None, None
    classes = natural_order(list({name for name, _ in groups})) if classes is None else classes
    if len(classes) < 2:
        return None, None
    number = {name: index for index, name in enumerate(classes)}
    return np.repeat(np.array([number[name] for name, _ in groups], dtype=np.int64), counts), classes


def _no_image(data: str, chosen: list[str], scans: list[Scan]) -> DataError:
    where = data if chosen == [""] else ", ".join(f"{data.rstrip('/')}/{part}" for part in chosen)
    others = sum((scan.others for scan in scans), start=type(scans[0].others)())
    if not others:
        text = f"{where} holds no files."
    else:
        most = sorted(others.items(), key=lambda each: (-each[1], each[0]))[:5]
        kinds = ", ".join(f"{count} {'.' + kind if kind else 'without extension'}" for kind, count in most)
        text = f"{where} holds no image: {others.total():,} other files ({kinds})."
    notes = " ".join(note for scan in scans for note in scan.notes())
    return DataError(
        f"{text} {notes}".strip(),
        hint="Images are jpg, png, webp, bmp, tiff, gif, ppm or pgm files, at any depth; hidden files do not count.",
    )
