"""Where every image of a set of tar files lies, in flat buffers that a cache keeps and processes share."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ibot_cli.cache_folder import cache_folder, cache_limit, remove_old, used
from ibot_cli.data.indexing.array_file import DamagedFile, read_arrays, write_arrays
from ibot_cli.data.indexing.shared_buffer import SharedBuffer
from ibot_cli.data.shards.headers import Member
from ibot_cli.data.shards.samples import Shard, read_shard
from ibot_cli.errors import DataError

KINDS = (("names", "|u1"), ("ends", "<i8"), ("offsets", "<i8"), ("sizes", "<i8"), ("labels", "<i4"))
ALIGNMENT = 8
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
    """

    def __init__(self, shards: Sequence[ShardState], words: Sequence[str], arrays: Mapping[str, np.ndarray]) -> None:
        content = b"".join(
            arrays[key].astype(kind).tobytes().ljust(_aligned(arrays[key]), b"\0") for key, kind in KINDS
        )
        self._set(shards, words, SharedBuffer(content), {key: len(arrays[key]) for key, _ in KINDS})

    def _set(
        self, shards: Sequence[ShardState], words: Sequence[str], buffer: SharedBuffer, lengths: dict[str, int]
    ) -> None:
        self.shards = tuple(shards)
        self.words = list(words)
        self.first = [0, *np.cumsum([shard.images for shard in shards]).tolist()]
        self._buffer, self._lengths = buffer, lengths
        self.arrays, offset = {}, 0
        for key, kind in KINDS:
            self.arrays[key] = np.frombuffer(buffer.view, dtype=kind, count=lengths[key], offset=offset)
            offset += _aligned(self.arrays[key])

    def __len__(self) -> int:
        return int(self.first[-1])

    def __reduce__(self) -> tuple[object, ...]:
        """Other processes see the same memory instead of a copy."""
        return _attached, (self.shards, self.words, self._buffer, self._lengths)

    @property
    def labels(self) -> np.ndarray:
        """int32 `[n]`, places in `words`; -1 without a `.cls` member."""
        return self.arrays["labels"]

    def member(self, index: int) -> Member:
        """Name and place of an image in its tar file."""
        ends, arrays = self.arrays["ends"], self.arrays
        name = arrays["names"][ends[index] : ends[index + 1]].tobytes()
        return Member(os.fsdecode(name), int(arrays["offsets"][index]), int(arrays["sizes"][index]))

    def digest(self, shard: int) -> bytes:
        """SHA-256 over names and places of one tar file's images."""
        start, stop = self.first[shard], self.first[shard + 1]
        ends = self.arrays["ends"]
        digest = hashlib.sha256(np.diff(ends[start : stop + 1]).tobytes())
        digest.update(self.arrays["names"][ends[start] : ends[stop]].tobytes())
        for key in ("offsets", "sizes"):
            digest.update(self.arrays[key][start:stop].tobytes())
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
        used(file)
        return known
    index = _built(now, known)
    if cache_limit():
        with contextlib.suppress(OSError):
            about = {"shards": [astuple(shard) for shard in index.shards], "words": index.words}
            write_arrays(file, about, index.arrays)
            remove_old(file.parent)
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


def _load(file: Path) -> ShardIndex | None:
    """The cached index, or None where there is none that can be used."""
    try:
        about, arrays = read_arrays(file)
        return ShardIndex([ShardState(*shard) for shard in about["shards"]], about["words"], arrays)
    except (OSError, DamagedFile, KeyError, TypeError):
        return None


def _attached(
    shards: Sequence[ShardState], words: Sequence[str], buffer: SharedBuffer, lengths: dict[str, int]
) -> ShardIndex:
    index = ShardIndex.__new__(ShardIndex)
    index._set(shards, words, buffer, lengths)
    return index


def _aligned(array: np.ndarray) -> int:
    """Bytes of an array in the buffer, so that the next one begins where its numbers may."""
    return -(-array.nbytes // ALIGNMENT) * ALIGNMENT
