"""Classes of the images in tar files: from their `.cls` members, else from the folders inside the tar files."""

from __future__ import annotations

import re
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
    from 0, where there are such; what `ibot data pack` wrote are always numbers, and where it wrote none
    there were no labels. Without a list the classes are the numbers or names that occur, in natural order. Labels are
    left away where one of the chosen images has none, or where there are fewer than two classes.

    Args:
        index: Of all tar files.
        chosen: int64, places in the index.
        about: What lies beside the tar files.

    Raises:
        DataError: A member names or numbers a class that the list of classes does not have, or classes are called by
            numbers so that members can mean the one or the other.
    """
    codes = index.labels.astype(np.int64)
    by_folder = np.repeat([bool(shard.met.get("folders")) for shard in index.shards], np.diff(index.first))
    if by_folder.all():
        return Labels() if about.is_pack else _by_folder(index, codes[chosen])
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
    count, place = len(about.classes), {name: number for number, name in enumerate(about.classes)}
    counted = [int(word) for word in words if numbers and int(word) < count]
    named = [place[word] for word in words if word in place]
    if len(counted) == len(named) == len(words) and counted != named and not about.is_pack:
        raise _ambiguous(words, about)
    if len(counted) == len(words):
        return counted, list(about.classes)
    if len(named) == len(words):
        return named, list(about.classes)
    strange = [word for word in words if word not in place]
    raise _not_in_list(next((word for word in strange if not numbers or int(word) >= count), strange[0]), about)


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


def _not_in_list(word: str, about: Description) -> DataError:
    return DataError(
        f"A .cls member says {word}, which is none of the {len(about.classes or ()):,} classes of {about.told_by}.",
        hint="Members hold the name of a class, or its number counted from 0.",
    )


def _ambiguous(words: list[str], about: Description) -> DataError:
    return DataError(
        f"The .cls members ({', '.join(words[:3])}, ...) can be names of classes in {about.told_by} and numbers of its "
        "lines.",
        hint=f"Rename {about.told_by}: without it the classes are what the members say.",
    )
