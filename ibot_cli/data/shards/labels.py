"""Classes of the images in tar files: from their `.cls` members, else from the folders inside the tar files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ibot_cli.data.folders import TESTS, TRAIN
from ibot_cli.data.scan import natural_key
from ibot_cli.data.shards.description import Description
from ibot_cli.data.shards.index import ShardIndex
from ibot_cli.errors import DataError


class Labels(NamedTuple):
    """Classes of some images.

    Attributes:
        numbers: int64 `[n]`, places in `classes`, or None.
        classes: Class names, the same for each part of the data, or None.
        note: A sentence for the user, or None.
    """

    numbers: np.ndarray | None = None
    classes: list[str] | None = None
    note: str | None = None


def labels_of(index: ShardIndex, chosen: np.ndarray, about: Description) -> Labels:
    """The classes of the chosen images; the classes themselves are those of all images, so that a label means the
    same in each part.

    A `.cls` member holds a number or a name. Numbers count the lines of `classes.txt` or the classes of `pack.json`
    from 0, where there are such; otherwise the classes are the numbers or names that occur, in natural order. Labels
    are left away where one of the chosen images has none, or where there are fewer than two classes.

    Args:
        index: Of all tar files.
        chosen: int64, places in the index.
        about: What lies beside the tar files.

    Raises:
        DataError: A member names or numbers a class that the list of classes does not have.
    """
    codes = index.labels.astype(np.int64)
    by_folder = np.repeat([bool(shard.met.get("folders")) for shard in index.shards], np.diff(index.first))
    if by_folder.all():
        return _by_folder(index, codes[chosen])
    codes[by_folder] = -1
    used = np.unique(codes[codes >= 0])
    without = int((codes[chosen] < 0).sum())
    if without == len(chosen):
        return Labels()
    if without:
        return Labels(note=f"{without:,} of {len(chosen):,} images have no .cls member with a class: no labels.")
    number, classes = _numbered([index.words[word] for word in used.tolist()], about)
    if len(classes) < 2:
        return Labels()
    translation = np.full(len(index.words), -1, dtype=np.int64)
    translation[used] = number
    return Labels(translation[codes[chosen]], classes)


def _numbered(words: list[str], about: Description) -> tuple[list[int], list[str]]:
    """The class number of each word, and the class names."""
    numbers = all(word.isdecimal() for word in words)
    if about.classes is None:
        names = [str(int(word)) for word in words] if numbers else words
        classes = sorted(set(names), key=natural_key)
        place = {name: number for number, name in enumerate(classes)}
        return [place[name] for name in names], classes
    known = {name: number for number, name in enumerate(about.classes)}
    if numbers and not all(word in known for word in words):
        known |= {word: int(word) for word in words if int(word) < len(about.classes)}
    unknown = next((word for word in words if word not in known), None)
    if unknown is not None:
        raise _not_in_list(unknown, about.told_by or Path(), len(about.classes))
    return [known[word] for word in words], list(about.classes)


def _by_folder(index: ShardIndex, codes: np.ndarray) -> Labels:
    """Classes from the first folders that differ, where each image is in one.

    A folder for each tar file, called by a number, counts the images, it does not sort them.
    """
    folders = [word.strip("/").removeprefix("./").split("/") for word in index.words]
    if len(folders) < 2:
        return Labels()
    depth = next((d for d, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), None)
    if depth is None:
        return Labels()
    classes = sorted({folder[depth] for folder in folders}, key=natural_key)
    if len({re.sub("[0-9]+", "", name) for name in classes}) == 1 and _one_per_shard(index):
        return Labels()
    if "" in classes:
        return Labels()
    if TRAIN in classes and set(classes) <= {TRAIN, *TESTS}:
        return Labels(
            note=f"Folders {', '.join(classes)} inside the tar files are not told apart; unpack them for that."
        )
    place = {name: number for number, name in enumerate(classes)}
    translation = np.array([place[folder[depth]] for folder in folders], dtype=np.int64)
    return Labels(translation[codes], classes, "The classes are the folders inside the tar files.")


def _one_per_shard(index: ShardIndex) -> bool:
    pairs = list(zip(index.first, index.first[1:], strict=False))
    seen = [set(np.unique(index.labels[start:stop]).tolist()) for start, stop in pairs if stop > start]
    return len(seen) > 1 and all(len(codes) == 1 for codes in seen) and len(set().union(*seen)) == len(seen)


def _not_in_list(word: str, told_by: Path, count: int) -> DataError:
    return DataError(
        f"A .cls member says {word}, which is none of the {count:,} classes of {told_by}.",
        hint="Members hold the name of a class, or its number counted from 0.",
    )
