"""IMAGES as the user names them: image files, which all have to be readable, and samples of DATA."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.places import is_here
from ibot_cli.data.single import is_image_file, read_levels
from ibot_cli.data.sources import Source, open_source
from ibot_cli.evaluate.feature_cache.table import nothing_readable
from ibot_cli.visualize.whole_image import OverlongImage, WholeImage

Prepare = Callable[[np.ndarray], WholeImage]
_LONGEST_NAME = 100  # bytes; file systems take 255, with what is added to it


@dataclass(frozen=True, eq=False, kw_only=True)
class Picture:
    """One image.

    Attributes:
        path: Where it is.
        name: Unlike those of the others, and fit for a file.
        whole: What the network sees of it; the source, which may be far larger, is not kept.
    """

    path: str
    name: str
    whole: WholeImage


@dataclass(frozen=True, eq=False, kw_only=True)
class Pictures:
    """All images of a call.

    Attributes:
        pictures: In the order in which they were named.
        unreadable: Of DATA: path -> reason.
        notes: About how DATA were read, as sentences.
    """

    pictures: tuple[Picture, ...]
    unreadable: dict[str, str]
    notes: tuple[str, ...]


def open_pictures(
    places: Sequence[str],
    prepare: Prepare,
    *,
    channels: int,
    bits: int = 8,
    num: int,
    seed: int,
    taken: Sequence[str] = (),
) -> Pictures:
    """Read all images.

    Args:
        places: Image files and DATA, mixed at will.
        prepare: Makes of each image what the network sees.
        channels: Of the network.
        bits: Of a level.
        num: Images of each DATA, drawn with `seed`; those that cannot be read or are too long are replaced by others.
        seed: Of the drawing.
        taken: Names that no image may get.

    Raises:
        DataError: A file cannot be read or is too long, no image of DATA can be read, or as `open_source`.
    """
    found: list[tuple[str, WholeImage]] = []
    unreadable: dict[str, str] = {}
    notes: list[str] = []
    for place in places:
        if is_image_file(place) and is_here(place):
            found.append((place, prepare(read_levels(place, channels, bits))))
            continue
        source = open_source(place, channels=channels, bits=bits, split="all")
        found += _sample(source, prepare, num, seed, unreadable)
        notes += source.notes
    names = _names([path for path, _ in found], taken)
    pictures = [Picture(path=path, name=name, whole=whole) for (path, whole), name in zip(found, names, strict=True)]
    return Pictures(pictures=tuple(pictures), unreadable=unreadable, notes=tuple(dict.fromkeys(notes)))


def _sample(
    source: Source, prepare: Prepare, num: int, seed: int, unreadable: dict[str, str]
) -> list[tuple[str, WholeImage]]:
    """Some images in the order of the source; adds those that cannot be used to `unreadable`."""
    images: dict[int, WholeImage] = {}
    for index in np.random.default_rng(seed).permutation(len(source)).tolist():
        if len(images) == num:
            break
        try:
            images[index] = prepare(source.levels(index))
        except UnreadableImage as error:
            unreadable[error.path] = error.reason
        except OverlongImage as error:
            unreadable[source.path(index)] = error.reason
    if not images:
        raise nothing_readable(source.name, unreadable)
    return [(source.path(index), images[index]) for index in sorted(images)]


def _names(paths: Sequence[str], taken: Sequence[str]) -> list[str]:
    """The stems in characters that every file system has, numbered where they would be alike in a case-blind one."""
    names: list[str] = []
    used = {name.lower() for name in taken}
    for path in paths:
        stem = "".join(character if character.isalnum() or character in "-_" else "_" for character in Path(path).stem)
        stem = stem.encode()[:_LONGEST_NAME].decode(errors="ignore") or "image"
        name, number = stem, 1
        while name.lower() in used:
            number += 1
            name = f"{stem}-{number}"
        used.add(name.lower())
        names.append(name)
    return names
