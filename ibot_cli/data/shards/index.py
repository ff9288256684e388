"""Where every image of a set of tar files lies, in flat buffers that a cache keeps and processes share."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibot_cli.cache_folder import cache_folder, cache_limit
from ibot_cli.data.shards.headers import Member
from ibot_cli.data.shards.samples import Shard, read_shard
from ibot_cli.durable import write_atomically
from ibot_cli.errors import DataError

FORMAT = b"ibot shards 1\n"
ARRAYS = {"names": "|u1", "ends": "<i8", "offsets": "<i8", "sizes": "<i8", "labels": "<i4"}
ALIGNMENT = 64
READERS = 8  # their waiting for the disk or the network overlaps


@dataclass(frozen=True)
class ShardState:
    """One tar file as it was indexed.

    Attributes:
        path: Absolute.
        size: Bytes.
        mtime: Nanoseconds.
        images: Their number.
        met: See `Shard`.
    """

    path: str
    size: int
    mtime: int
    images: int
    met: dict[str, Any]


class ShardIndex:
    """The images of tar files, in the order of the files and of their members.

    Args:
        shards: The tar files.
        words: Texts of the `.cls` members, each once.
        arrays: `names` uint8, all names in one; `ends` int64 `[n + 1]` in it; `offsets` and `sizes` int64 `[n]` in the
            tar file; `labels` int32 `[n]`, places in `words` or -1.
        file: The cached file that the arrays are mapped from, or None.
    """

    def __init__(
        self, shards: Sequence[ShardState], words: list[str], arrays: dict[str, np.ndarray], file: Path | None = None
    ) -> None:
        self.shards = tuple(shards)
        self.words = words
        self.first = [0, *np.cumsum([shard.images for shard in shards]).tolist()]
        self._arrays = arrays
        self._file = file

    def __len__(self) -> int:
        return int(self.first[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process maps the same file, so that its pages are shared, instead of getting a copy."""
        if self._file is None:
            return ShardIndex, (self.shards, self.words, self._arrays)
        return _reopened, (self.shards, self._file)

    @property
    def labels(self) -> np.ndarray:
        """int32 `[n]`, places in `words`; -1 without a `.cls` member."""
        return self._arrays["labels"]

    def member(self, index: int) -> Member:
        """Name and place of an image in its tar file."""
        ends, arrays = self._arrays["ends"], self._arrays
        name = arrays["names"][ends[index] : ends[index + 1]].tobytes()
        return Member(os.fsdecode(name), int(arrays["offsets"][index]), int(arrays["sizes"][index]))

    def digest(self, shard: int) -> bytes:
        """SHA-256 over names and places of one tar file's images."""
        start, stop = self.first[shard], self.first[shard + 1]
        ends = self._arrays["ends"]
        digest = hashlib.sha256(np.diff(ends[start : stop + 1]).tobytes())
        digest.update(self._arrays["names"][ends[start] : ends[stop]].tobytes())
        for key in ("offsets", "sizes"):
            digest.update(self._arrays[key][start:stop].tobytes())
        return digest.digest()

    def shard(self, number: int) -> Shard:
        """One tar file as `read_shard` gave it."""
        rows = range(self.first[number], self.first[number + 1])
        labels = [None if label < 0 else self.words[label] for label in self.labels[rows.start : rows.stop].tolist()]
        return Shard([self.member(row) for row in rows], labels, self.shards[number].met)


def index_shards(paths: Sequence[str]) -> ShardIndex:
    """The index of these tar files: from the cache where they are as they were, else read and cached.

    Args:
        paths: Absolute.

    Raises:
        DataError: One cannot be read, or is no tar file.
    """
    now = [_state(path) for path in paths]
    file = cache_folder("shards") / f"{hashlib.sha256(os.fsencode(chr(0).join(paths))).hexdigest()[:32]}.index"
    known = _load(file) if cache_limit() else None
    if known is not None and [(shard.path, shard.size, shard.mtime) for shard in known.shards] == now:
        return known
    index = _built(now, known)
    if cache_limit():
        with contextlib.suppress(OSError):
            _store(index, file)
            return _load(file) or index
    return index


def _state(path: str) -> tuple[str, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check the file and its permissions."
        ) from error
    return path, status.st_size, status.st_mtime_ns


def _built(now: Sequence[tuple[str, int, int]], known: ShardIndex | None) -> ShardIndex:
    """Reads the tar files that the known index does not have as they are now."""
    places = {} if known is None else {(s.path, s.size, s.mtime): place for place, s in enumerate(known.shards)}

    def found(state: tuple[str, int, int]) -> Shard:
        return known.shard(places[state]) if known is not None and state in places else read_shard(state[0])

    with ThreadPoolExecutor(READERS) as readers:
        return _joined(now, list(readers.map(found, now)))


def _joined(now: Sequence[tuple[str, int, int]], shards: list[Shard]) -> ShardIndex:
    states = [ShardState(*state, len(shard.members), shard.met) for state, shard in zip(now, shards, strict=True)]
    names = [os.fsencode(member.name) for shard in shards for member in shard.members]
    words = dict.fromkeys(label for shard in shards for label in shard.labels if label is not None)
    number: dict[str | None, int] = {**{word: place for place, word in enumerate(words)}, None: -1}
    arrays = {
        "names": np.frombuffer(b"".join(names), dtype="|u1"),
        "ends": np.cumsum([0, *map(len, names)], dtype="<i8"),
        "offsets": _column((member.offset for shard in shards for member in shard.members), "<i8"),
        "sizes": _column((member.size for shard in shards for member in shard.members), "<i8"),
        "labels": _column((number[label] for shard in shards for label in shard.labels), "<i4"),
    }
    return ShardIndex(states, list(words), arrays)


def _column(values: Iterable[int], kind: str) -> np.ndarray:
    return np.fromiter(values, dtype=kind)


def _store(index: ShardIndex, file: Path) -> None:
    arrays = index._arrays
    head = {
        "shards": [[shard.path, shard.size, shard.mtime, shard.images, shard.met] for shard in index.shards],
        "words": index.words,
        "lengths": {key: len(array) for key, array in arrays.items()},
    }
    text = json.dumps(head).encode()
    begin = FORMAT + len(text).to_bytes(8, "little") + text
    file.parent.mkdir(parents=True, exist_ok=True)

    def write(out: Any) -> None:
        out.write(begin.ljust(_aligned(len(begin)), b"\0"))
        for array in arrays.values():
            content = array.tobytes()
            out.write(content.ljust(_aligned(len(content)), b"\0"))

    write_atomically(file, write)


def _load(file: Path) -> ShardIndex | None:
    """The index in a file, its arrays mapped; None where there is none, or a damaged one."""
    try:
        mapped = np.memmap(file, mode="r", dtype=np.uint8)
        prefix = len(FORMAT) + 8
        if mapped[: len(FORMAT)].tobytes() != FORMAT:
            return None
        length = int.from_bytes(mapped[len(FORMAT) : prefix].tobytes(), "little")
        head = json.loads(mapped[prefix : prefix + length].tobytes())
        place, arrays = _aligned(prefix + length), {}
        for key, kind in ARRAYS.items():
            size = head["lengths"][key] * np.dtype(kind).itemsize
            arrays[key] = np.asarray(mapped[place : place + size]).view(kind)
            place += _aligned(size)
        if place != len(mapped):
            return None
        return ShardIndex([ShardState(*shard) for shard in head["shards"]], head["words"], arrays, file)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _reopened(shards: tuple[ShardState, ...], file: Path) -> ShardIndex:
    """The same index in another process; made again where the cache was emptied meanwhile."""
    found = _load(file)
    if found is None or found.shards != shards:
        found = index_shards([shard.path for shard in shards])
    if found.shards != shards:
        raise DataError("The tar files changed while they were read.", hint="Start again when they are complete.")
    return found


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
