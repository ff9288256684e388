"""DATA that are tar shards: one tar file, a pattern of names, or a folder of tar files."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.data.folders import TESTS, TRAIN
from ibot_cli.data.scan import EXTENSIONS, natural_key
from ibot_cli.data.shards.braces import expanded
from ibot_cli.errors import DataError

ENDING = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tar.lz4")
PATTERN = re.compile(r"[*?{]|\[.+\]")
SHOWN = 3


@dataclass(frozen=True)
class ShardFiles:
    """The tar files of DATA.

    Attributes:
        root: The folder that all of them lie in, absolute.
        names: Relative to it, with `/`, in the order in which their images are numbered.
    """

    root: Path
    names: tuple[str, ...]


def find_shards(data: str) -> ShardFiles | None:
    """The tar files that DATA name, or None where DATA are something else.

    A name with braces or wildcards is a pattern, unless a file or folder is called exactly so. Braces keep their
    order; what a wildcard matches, and what lies in a folder, is in natural order.

    Raises:
        DataError: A tar file that braces name is missing, a pattern matches no tar file, or they are compressed.
    """
    path = Path(data).expanduser()
    if path.is_dir():
        return _in_folder(path, data)
    if path.exists():
        _refuse_compressed([path.name], data)
        return _of([path]) if path.suffix.lower() == ENDING else None
    if "://" in data or not PATTERN.search(data):
        return None
    return _of(_matching(data))


def part_of(name: str) -> str | None:
    """`train`, `val`, `valid`, `validation` or `test`, where the name of a shard says which part of the data it is.

    A folder of that name says it first, else the first such word in the file name, as in `imagenet-train-0001.tar`.
    """
    *folders, file = name.lower().split("/")
    words = [*folders, *re.split("[^a-z]+", file)]
    return next((word for word in words if word in (TRAIN, *TESTS)), None)


def anywhere_pattern(pattern: str) -> str:
    """A pattern of names as it can be used from any working directory."""
    path = os.path.expanduser(pattern)  # noqa: PTH111  # no Path: it would tidy up the pattern
    if all(os.path.isabs(name) for name in expanded(path)):  # noqa: PTH117
        return path
    here = re.sub(r"([*?\[{}])", r"[\1]", str(Path.cwd()))
    return f"{here}/{path}"


def _of(paths: Sequence[Path]) -> ShardFiles:
    folders = {folder: folder.resolve() for folder in {path.parent for path in paths}}
    absolute = [str(folders[path.parent] / path.name) for path in paths]
    root = os.path.commonpath([str(folder) for folder in folders.values()])
    return ShardFiles(Path(root), tuple(dict.fromkeys(os.path.relpath(name, root) for name in absolute)))


def _in_folder(folder: Path, data: str) -> ShardFiles | None:
    found, compressed = [], []
    for path in _files(folder):
        name = path.name.lower()
        if name.rpartition(".")[2] in EXTENSIONS:
            return None
        if name.endswith(ENDING):
            found.append(path)
        elif name.endswith(COMPRESSED):
            compressed.append(path.name)
    if not found:
        _refuse_compressed(compressed, data)
        return None
    return _of(sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix())))


def _files(folder: Path) -> Iterator[Path]:
    """Visible files below a folder, one at a time: the first image ends the search among a million of them."""
    pending, seen = [folder], set()
    while pending:
        current = pending.pop()
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        pending.append(Path(entry.path))
                    else:
                        yield Path(entry.path)
        except OSError:  # the scan for images says which folders may not be listed
            continue


def _matching(data: str) -> list[Path]:
    names = expanded(os.path.expanduser(data))  # noqa: PTH111  # braces first, as a shell does
    found: list[Path] = []
    missing = []
    for name in names:
        hits = [name] if os.path.exists(name) else glob.glob(name, recursive=True)  # noqa: PTH110, PTH207
        found += sorted(map(Path, hits), key=lambda path: natural_key(str(path)))
        if not hits:
            missing.append(name)
    if missing:
        raise _missing(data, missing, len(names))
    shards = [shard for path in found for shard in _shards_of(path, data)]
    if not shards:
        _refuse_compressed([path.name for path in found], data)
        raise _no_shard(data, found)
    return shards


def _shards_of(path: Path, data: str) -> list[Path]:
    if path.is_dir():
        inside = _in_folder(path, data)
        return [] if inside is None else [inside.root / name for name in inside.names]
    return [path] if path.suffix.lower() == ENDING else []


def _refuse_compressed(names: Sequence[str], data: str) -> None:
    compressed = [name for name in names if name.lower().endswith(COMPRESSED)]
    if not compressed:
        return
    what = data if len(compressed) == 1 and data.endswith(compressed[0]) else f"{compressed[0]} of {data}"
    raise DataError(
        f"{what} is compressed: one image cannot be read from it without unpacking all that lies before.",
        hint="Unpack it once (gunzip, bunzip2, unxz or unzstd makes a .tar of it) and give the .tar; JPEG and PNG "
        "files take no more space so.",
    )


def _missing(data: str, missing: list[str], count: int) -> DataError:
    if count == 1:
        return DataError(
            f"Nothing is called as {data} says.", hint="Put the pattern in quotation marks, and look for typing errors."
        )
    if len(missing) == count:
        text = f"None of the {count:,} files that {data} names exists; the first is {missing[0]}."
        return DataError(text, hint="Check the folder and the digits of the range.")
    shown = ", ".join(missing[:SHOWN]) + (f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else "")
    verb = "is" if len(missing) == 1 else "are"
    return DataError(
        f"{shown} {verb} missing; {data} names {count:,} files.",
        hint="Fetch what is missing, or name a range that is there: {0000..0007} without the end, or a pattern with *.",
    )


def _no_shard(data: str, found: list[Path]) -> DataError:
    kinds = Counter(path.suffix.lower() or ("folder" if path.is_dir() else "without extension") for path in found)
    listed = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(5))
    return DataError(
        f"{data} matches no tar file ({listed}).",
        hint="Patterns are for tar shards; of image files give the folder, or a text file of paths.",
    )
