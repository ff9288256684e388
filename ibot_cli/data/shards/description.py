"""What lies beside tar shards and says more about them: `pack.json` of `ibot data pack`, or `classes.txt`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ibot_cli.data.folders import TESTS, TRAIN
from ibot_cli.data.shards.names import ShardFiles, part_of
from ibot_cli.errors import DataError

PACK, UNFINISHED = "pack.json", "unfinished.json"
CLASSES = "classes.txt"


@dataclass(frozen=True)
class Description:
    """What is known of tar files before they are read.

    Attributes:
        files: The tar files; those that a pack lists, where it does.
        parts: Places in `files` of each part of the data, the one for training first; empty without such parts.
        classes: Class names, which `.cls` members name or number, or None.
        told_by: `pack.json` or `classes.txt`, or None without either.
    """

    files: ShardFiles
    parts: dict[str, list[int]] = field(default_factory=dict)
    classes: list[str] | None = None
    told_by: Path | None = None

    @property
    def is_pack(self) -> bool:
        """Whether `ibot data pack` wrote them."""
        return self.told_by is not None and self.told_by.name == PACK


def describe(files: ShardFiles, whole_folder: bool) -> Description:
    """Read what lies beside the tar files.

    Args:
        files: The tar files of DATA.
        whole_folder: Whether DATA name the folder, not files in it: only then a pack says which belong to it.

    Raises:
        DataError: `pack.json` is damaged or lists a file that is missing, or the pack is not finished; `classes.txt`
            cannot be read.
    """
    pack = files.root / PACK
    if whole_folder and (files.root / UNFINISHED).is_file() and not pack.is_file():
        raise DataError(
            f"{files.root} is a pack that was interrupted: images are missing.",
            hint="Run the same `ibot data pack` again, which goes on where it stopped.",
        )
    if pack.is_file():
        return _of_pack(files, pack, whole_folder)
    names = _names_file(files.root)
    classes = None if names is None else _class_names(names)
    return Description(files, _parts_by_name(files.names), classes, names)


def _of_pack(files: ShardFiles, pack: Path, whole_folder: bool) -> Description:
    try:
        content = json.loads(pack.read_text(encoding="utf-8"))
        listed = {name: [str(shard["file"]) for shard in shards] for name, shards in content["splits"].items()}
        classes = content.get("classes")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{pack} cannot be read as what `ibot data pack` writes.", hint="Pack the images again, or remove the file."
        ) from error
    classes = None if classes is None else [str(name) for name in classes]
    if not whole_folder:
        return Description(files, _parts_by_name(files.names), classes, pack)
    names = [name for part in listed.values() for name in part]
    missing = [name for name in names if not (files.root / name).is_file()]
    if missing:
        raise DataError(
            f"{files.root} lacks {missing[0]}"
            + (f" and {len(missing) - 1:,} more shards" if missing[1:] else "")
            + ".",
            hint="Copy the pack again, or make it again with `ibot data pack`.",
        )
    place = {name: number for number, name in enumerate(names)}
    parts = {part: [place[name] for name in shards] for part, shards in listed.items()}
    return Description(replace(files, names=tuple(names)), _ordered(parts), classes, pack)


def _parts_by_name(names: Sequence[str]) -> dict[str, list[int]]:
    """Parts as the names of all tar files tell them; one name that tells none speaks for another meaning."""
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        part = part_of(name)
        if part is None:
            return {}
        found.setdefault(part, []).append(place)
    return _ordered(found)


def _ordered(parts: dict[str, list[int]]) -> dict[str, list[int]]:
    """The training part first; nothing where there is no other beside it."""
    order = [part for part in (TRAIN, *TESTS) if part in parts]
    return {part: parts[part] for part in order} if TRAIN in parts and len(order) > 1 else {}


def _names_file(root: Path) -> Path | None:
    """Beside the shards, or beside the folders of the parts when DATA are one of them."""
    folders = [root, root.parent] if root.name.lower() in (TRAIN, *TESTS) else [root]
    return next((folder / CLASSES for folder in folders if (folder / CLASSES).is_file()), None)


def _class_names(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} cannot be read as text.", hint="It holds the name of one class per line, in UTF-8."
        ) from error
    return [line.strip() for line in lines if line.strip()]
