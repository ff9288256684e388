"""One image in a tar file by the path that people are shown: `shard.tar/folder/name.jpg`."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from ibot_cli.data.shards.headers import Member, Walk, members
from ibot_cli.data.shards.random_file import RandomFile


def is_member(place: str | Path) -> bool:
    """Whether a path leads into a tar file that is there."""
    return _parts(str(place)) is not None


def tar_of(place: str) -> str | None:
    """The tar file that a path leads into, or None."""
    parts = _parts(place)
    return None if parts is None else parts[0]


def member_content(place: str | Path) -> bytes:
    """The bytes of a file in a tar file.

    Raises:
        OSError: It is not there, or cannot be read.
    """
    parts = _parts(str(place))
    if parts is None:
        raise FileNotFoundError(2, "no such file", str(place))
    tar, name = parts
    file = RandomFile(tar)
    found = _members(tar, *file.state()).get(name)
    if found is None:
        raise FileNotFoundError(2, f"{os.path.basename(tar)} holds no member of this name", str(place))  # noqa: PTH119
    return file.read(found.size, found.offset)


def _parts(place: str) -> tuple[str, str] | None:
    """Tar file and name of the member."""
    at = place.lower().find(".tar/")
    while at >= 0:
        tar = os.path.expanduser(place[: at + 4])  # noqa: PTH111
        if os.path.isfile(tar):  # noqa: PTH113
            return tar, place[at + 5 :]
        at = place.lower().find(".tar/", at + 1)
    return None


@lru_cache(maxsize=4)
def _members(tar: str, size: int, mtime: int) -> dict[str, Member]:
    """By the name that people are shown; `mtime` tells one state of the file from another."""
    file = RandomFile(tar)
    return {member.name.removeprefix("./").lstrip("/"): member for member in members(file, Walk(size=size))}
