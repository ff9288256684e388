"""The images of one split, encoded by worker processes and written in order by this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from ibot_cli.config.schema import DataConfig
from ibot_cli.data.bad_files import list_bad
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.packing.encode import Packed, pack_image
from ibot_cli.data.packing.journal import Journal, Shard
from ibot_cli.data.packing.member_names import MemberNames
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.packing.shard_writer import ShardWriter, entry
from ibot_cli.data.sources import Source
from ibot_cli.data.workers import Key, in_order
from ibot_cli.errors import DataError

BATCH = 4  # images that a worker hands over at a time


class Unreadable(NamedTuple):
    """A file that is left out."""

    path: str
    reason: str


Outcome = tuple[int, Packed | Unreadable]


@dataclass(frozen=True)
class Packing:
    """What is packed, how, and what of it is done.

    Attributes:
        parts: Images by split.
        options: What they become.
        journal: The complete shards.
    """

    parts: Mapping[str, Source]
    options: PackOptions
    journal: Journal

    @property
    def num_images(self) -> int:
        """Over all splits."""
        return sum(map(len, self.parts.values()))

    def file(self, split: str, number: int) -> str:
        """Name of a shard: that of its split, where there are several."""
        return f"{split if len(self.parts) > 1 else 'images'}-{number:06d}.tar"


class Encoder:
    """Encodes the images of (index, 0) keys; sent to the worker processes.

    Args:
        source: The images.
        options: What they become.
    """

    def __init__(self, source: Source, options: PackOptions) -> None:
        self._source = source
        self._options = options

    def __call__(self, keys: list[Key]) -> list[Outcome]:
        """Index with the encoded image, or with why there is none."""
        return [(index, self._one(index)) for index, _ in keys]

    def _one(self, index: int) -> Packed | Unreadable:
        try:
            return pack_image(self._source, index, self._options)
        except UnreadableImage as error:
            return Unreadable(error.path, error.reason)
        except Exception as error:
            what = f"{self._source.path(index)} cannot be packed: {type(error).__name__}: {error}."
            raise DataError(what, hint="Please report this, with the image.") from error


@dataclass
class _Open:
    """The shard on its way, and what goes into its record."""

    writer: ShardWriter
    stored: int = 0
    kept: int = 0
    deep: int = 0


@dataclass
class _Split:
    """Writes the images of a split as they come."""

    packing: Packing
    split: str
    open: _Open | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    stop: int = 0

    def add(self, packed: Packed, members: bytes) -> None:
        """Append an image, to a new shard where it would not fit."""
        limit = self.packing.options.shard_bytes
        if self.open is not None and self.open.writer.size + len(members) > limit:
            self.close()
        if self.open is None:
            folder, done = self.packing.journal.folder, len(self.packing.journal.of(self.split))
            self.open = _Open(ShardWriter(folder / self.packing.file(self.split, done)))
        self.open.writer.add(members)
        self.open.stored += packed.stored
        self.open.kept += packed.kept
        self.open.deep += packed.deep

    def close(self) -> None:
        """Complete the shard, and take note of it."""
        if self.open is None:
            return
        now, writer = self.open, self.open.writer
        writer.close()
        self.open = None
        self.packing.journal.add(
            Shard(
                split=self.split,
                file=writer.path.name,
                images=writer.images,
                bytes=writer.size,
                stop=self.stop,
                stored=now.stored,
                kept=now.kept,
                deep=now.deep,
                unreadable=self.unreadable,
            )
        )
        self.unreadable = {}

    def abandon(self) -> None:
        """Remove what is half-written."""
        if self.open is not None:
            self.open.writer.abandon()


def pack_split(
    packing: Packing, split: str, *, workers: int, report: Callable[[str, int, int], None]
) -> dict[str, str]:
    """Write the shards of a split that are not there yet.

    Args:
        packing: What is packed.
        split: Which part.
        workers: Processes that decode and encode; 0 is this one.
        report: Takes split, images done, and images in all.

    Returns:
        Reason by path, of unreadable files behind the last shard.

    Raises:
        DataError: Too many unreadable files.
        OSError: The disk is full or not writable.
    """
    source = packing.parts[split]
    start = packing.journal.stop(split)
    report(split, start, len(source))
    names = MemberNames(source)
    writing = _Split(packing, split, stop=start)
    outcomes = _outcomes(source, packing.options, start, workers)
    try:
        for index, outcome in outcomes:
            if isinstance(outcome, Unreadable):
                writing.unreadable[outcome.path] = outcome.reason
                _check_bad(packing, writing.unreadable)
            else:
                label = None if source.labels is None else int(source.labels[index])
                writing.add(outcome, entry(names[index], outcome, label))
            writing.stop = index + 1
            report(split, index + 1, len(source))
        writing.close()
    finally:
        writing.abandon()
    if not packing.journal.of(split):
        raise DataError(f"No readable image in {source.name}:\n{list_bad(writing.unreadable)}", hint="Check the files.")
    return writing.unreadable


def _outcomes(source: Source, options: PackOptions, start: int, workers: int) -> Iterator[Outcome]:
    """The encoded images from `start` on, in order."""
    indices = iter(range(start, len(source)))
    keys = iter(lambda: [(index, 0) for index in islice(indices, BATCH)], [])
    for outcomes in in_order(Encoder(source, options), keys, workers=workers, pin_memory=False):
        yield from outcomes


def _check_bad(packing: Packing, latest: Mapping[str, str]) -> None:
    """Raise when there are too many unreadable files, by the limits of training."""
    limits = DataConfig()
    found = {path: why for shard in packing.journal.shards for path, why in shard.unreadable.items()} | dict(latest)
    if len(found) > limits.max_bad_files and len(found) > limits.max_bad_ratio * packing.num_images:
        raise DataError(
            f"{len(found):,} of {packing.num_images:,} files cannot be read; packing stops above "
            f"{limits.max_bad_files} files and {limits.max_bad_ratio:.3g} of all:\n{list_bad(found)}",
            hint="Remove or repair the files, or give a text file of the paths to pack; then pack into a new folder.",
        )
