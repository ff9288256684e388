"""Images in tar shards by index."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ibot_cli.data.decode import PixelFormat, UnreadableImage
from ibot_cli.data.encoded import EncodedSource
from ibot_cli.data.files import Split, no_test_split
from ibot_cli.data.folders import CHOSEN
from ibot_cli.data.picture import Encoded
from ibot_cli.data.shards.description import Description, describe
from ibot_cli.data.shards.headers import Member
from ibot_cli.data.shards.index import ShardIndex, ShardState, index_shards
from ibot_cli.data.shards.labels import Labels, labels_of
from ibot_cli.data.shards.names import find_shards
from ibot_cli.data.shards.notes import no_image, notes_of
from ibot_cli.data.shards.random_file import OpenFiles, RandomFile
from ibot_cli.errors import DataError

CHANGED = "the tar file changed since the data were opened"


class ShardSource(EncodedSource):
    """Images in tar files, in the order of the files and of the members in them.

    Args:
        name: What people call it.
        root: Folder of the tar files.
        index: Of all tar files of DATA.
        parts: Places in `index.shards` of those whose images these are, by the part of DATA that they belong to.
        pixels: What the images become.
        labels: Of these images.
        notes: Sentences for the user.
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        index: ShardIndex,
        parts: Mapping[str, Sequence[int]],
        pixels: PixelFormat,
        labels: Labels,
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(pixels)
        self.name = name
        self.labels = labels.numbers
        self.classes = labels.classes
        self.notes = [*notes, *([labels.note] if labels.note else [])]
        self._root = root
        self._index = index
        self._parts = parts
        self._shards = [shard for part in parts.values() for shard in part]
        self._first = [0, *np.cumsum([index.shards[shard].images for shard in self._shards]).tolist()]
        self._files = OpenFiles()

    def __len__(self) -> int:
        return int(self._first[-1])

    def encoded(self, index: int) -> Encoded:
        """The stored file; see `ibot_cli.data.sources.Source`."""
        shard, member = self._find(index)
        content = self._read(shard, member, index)
        return Encoded(content, member.name.rpartition(".")[2].lower())

    def path(self, index: int) -> str:
        """The tar file, a slash and the member, with bytes that are not UTF-8 replaced."""
        shard, member = self._find(index)
        name = member.name.removeprefix("./").lstrip("/")
        return f"{shard.path}/{name}".encode(errors="surrogateescape").decode(errors="replace")

    @property
    def parts(self) -> list[str]:
        """The part of DATA that each image is in."""
        sizes = {
            part: sum(self._index.shards[shard].images for shard in shards) for part, shards in self._parts.items()
        }
        return [part for part, size in sizes.items() for _ in range(size)]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over relative names, sizes and modification times of the tar files, and what lies where in them."""
        digest = hashlib.sha256(b"tar shards\n")
        for shard in sorted(self._shards, key=lambda place: self._index.shards[place].path):
            state = self._index.shards[shard]
            name = Path(state.path).relative_to(self._root).as_posix()
            digest.update(f"{name}\0{state.size}\0{state.mtime}\n".encode(errors="surrogateescape"))
            digest.update(self._index.digest(shard))
        return digest.hexdigest()

    def _find(self, index: int) -> tuple[ShardState, Member]:
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(index)
        number = bisect.bisect_right(self._first, place) - 1
        shard = self._shards[number]
        return self._index.shards[shard], self._index.member(self._index.first[shard] + place - self._first[number])

    def _read(self, shard: ShardState, member: Member, index: int) -> bytes:
        try:
            file = self._files.get(shard.path)
            content = self._unchanged(file, shard, index).read(member.size, member.offset)
        except OSError as error:
            raise UnreadableImage(self.path(index), f"cannot be read ({error.strerror or error})") from error
        if len(content) != member.size:
            raise UnreadableImage(self.path(index), CHANGED)
        return content

    def _unchanged(self, file: RandomFile, shard: ShardState, index: int) -> RandomFile:
        if file.state() != (shard.size, shard.mtime):
            raise UnreadableImage(self.path(index), CHANGED)
        return file


def shard_parts(data: str) -> list[str]:
    """Parts of tar files that say themselves what is for training, that one first; empty where they do not.

    Raises:
        DataError: As `open_shards`.
    """
    return list(_described(data).parts)


def open_shards(data: str, *, pixels: PixelFormat, split: Split = "train") -> ShardSource:
    """Open tar shards: a tar file, a pattern such as `train-{0000..0012}.tar` or `*.tar`, or a folder of tar files.

    They have parts where `pack.json` says so, or where the name of each, or of its folder, has one of the words train,
    val, valid, validation and test in it. Tar files without parts are all for training.

    Raises:
        DataError: One is missing, cannot be read or is no tar file; no image in them; no test part; labels that the
            list of classes does not have.
    """
    about = _described(data)
    chosen = _choose(about, split, data)
    index = index_shards([str(about.files.root / name) for name in about.files.names])
    shards = [shard for part in chosen.values() for shard in part]
    states = [index.shards[shard] for shard in shards]
    if not any(state.images for state in states):
        raise no_image(data, states)
    return ShardSource(
        name=f"{data} ({', '.join(chosen)})" if about.parts else data,
        root=about.files.root,
        index=index,
        parts=chosen,
        pixels=pixels,
        labels=labels_of(index, _rows(index, shards), about),
        notes=[*_choice_note(about, chosen), *notes_of(states)],
    )


def _described(data: str) -> Description:
    files = find_shards(data)
    if files is None:
        raise DataError(f"{data} names no tar files.", hint="Give a .tar file, a pattern or a folder of them.")
    return describe(files, whole_folder=Path(data).expanduser().is_dir())


def _choose(about: Description, split: Split, data: str) -> dict[str, list[int]]:
    parts = about.parts
    if not parts:
        if split == "test":
            raise no_test_split(data, "Call the tar files train-... and val-..., or put them into train/ and val/.")
        return {"": list(range(len(about.files.names)))}
    if split == "all":
        return parts
    name = list(parts)[0 if split == "train" else 1]
    return {name: parts[name]}


def _choice_note(about: Description, chosen: dict[str, list[int]]) -> list[str]:
    if not about.parts:
        return []
    rest = [part for part in about.parts if part not in chosen]
    unused = f"; {', '.join(rest)} not used" if rest else ""
    return [f"{CHOSEN}{', '.join(chosen)}{unused}."]


def _rows(index: ShardIndex, shards: Sequence[int]) -> np.ndarray:
    """The places in the index of the images of these tar files, in their order, int64."""
    return np.concatenate([np.arange(index.first[shard], index.first[shard + 1]) for shard in shards])
