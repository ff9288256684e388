"""What of a pack is finished, so that the same command goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ibot_cli.data.shards.description import UNFINISHED
from ibot_cli.durable import write_json
from ibot_cli.errors import DataError

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A complete shard.

    Attributes:
        split: `train` or `val`.
        file: Its name.
        images: Number of them in it.
        bytes: Its length.
        stop: Index of the image after its last, in the source.
        stored: Bytes of the files that its images come from.
        kept: Images whose file kept its bytes.
        deep: Those of them that kept it because of their bits or bands.
        unreadable: Reason by path, of the files before `stop` that no earlier shard names.
    """

    split: str
    file: str
    images: int
    bytes: int
    stop: int
    stored: int
    kept: int
    deep: int
    unreadable: dict[str, str] = field(default_factory=dict)


class Journal:
    """The complete shards of a pack, on the disk after each.

    Args:
        folder: Of the pack.
        request: What it is to be, and of which images; see `load`.
        shards: The complete ones.
    """

    def __init__(self, folder: Path, request: Mapping[str, Any], shards: list[Shard]) -> None:
        self.folder = folder
        self.request = dict(request)
        self.shards = shards

    @classmethod
    def load(cls, folder: Path, request: Mapping[str, Any]) -> Journal:
        """The journal of an interrupted pack, or a new one.

        Raises:
            DataError: The folder holds a pack of something else, or a shard is not as it was.
        """
        path = folder / UNFINISHED
        if not path.exists():
            return cls(folder, request, [])
        try:
            content = json.loads(path.read_bytes())
            shards = [Shard(**shard) for shard in content["shards"]]
            found = dict(content["request"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} cannot be read: {error}.", hint=f"Delete {folder} and pack again.") from error
        if found != request:
            raise differs(folder, found, request, "the interrupted pack")
        for shard in shards:
            place = folder / shard.file
            if not place.is_file() or place.stat().st_size != shard.bytes:
                raise DataError(
                    f"{place} is not the shard that was written there.", hint=f"Delete {folder} and pack again."
                )
        return cls(folder, request, shards)

    def add(self, shard: Shard) -> None:
        """Take note of a complete shard."""
        self.shards.append(shard)
        self.save()

    def save(self) -> None:
        """Write it.

        Raises:
            OSError: The disk is full or not writable.
        """
        content = {"version": VERSION, "request": self.request, "shards": [asdict(shard) for shard in self.shards]}
        write_json(self.folder / UNFINISHED, content)

    def of(self, split: str) -> list[Shard]:
        """The complete shards of a split, in order."""
        return [shard for shard in self.shards if shard.split == split]

    def stop(self, split: str) -> int:
        """Index of the first image of a split that no complete shard has dealt with."""
        return max((shard.stop for shard in self.of(split)), default=0)


def differs(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any], what: str) -> DataError:
    """The error for a folder that holds a pack of other images or with other options."""
    options = [
        f"{name.replace('_', ' ')}: {found.get('options', {}).get(name)} there, {value} now"
        for name, value in wanted["options"].items()
        if found.get("options", {}).get(name) != value
    ]
    why = f"other options ({'; '.join(options)})" if options else "other images, or they changed since"
    return DataError(
        f"{folder} holds {what} of {why}.",
        hint=f"Pack into another folder, or delete {folder} and start anew"
        + (", or give the same options." if options else "."),
    )
