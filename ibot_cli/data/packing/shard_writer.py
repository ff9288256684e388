"""Tar files in the layout of WebDataset, the same bytes for the same images, and complete or absent."""

from __future__ import annotations

import contextlib
import os
import tarfile
from pathlib import Path
from typing import BinaryIO

from ibot_cli.data.packing.encode import Packed
from ibot_cli.durable import TEMPORARY_SUFFIX, rename, sync_directory

END = bytes(2 * tarfile.BLOCKSIZE)
LABEL = "cls"


class ShardWriter:
    """One shard on its way; under a temporary name until `close`.

    Args:
        path: What it will be.

    Raises:
        OSError: Here and in all methods, when the disk is full or not writable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = 0
        self.size = len(END)
        self._temporary = path.with_name(f".{path.name}{TEMPORARY_SUFFIX}")
        self._file = open_file(self._temporary)

    def add(self, entry: bytes) -> None:
        """Append the members of one image; see `entry`."""
        self._file.write(entry)
        self.size += len(entry)
        self.images += 1

    def close(self) -> None:
        """Put it on the disk and give it its name; from here on it counts."""
        try:
            self._file.write(END)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            rename(self._temporary, self.path)
        except BaseException:
            self.abandon()
            raise
        sync_directory(self.path.parent)

    def abandon(self) -> None:
        """Remove what is written so far."""
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)


def open_file(path: Path) -> BinaryIO:
    """A new file to write to."""
    return path.open("wb")


def entry(name: str, packed: Packed, label: int | None) -> bytes:
    """The tar members of one image: the file, and its class where it has one.

    Args:
        name: Without extension.
        packed: The image.
        label: Index of its class, written as digits into a member `.cls`.
    """
    members = _member(f"{name}.{packed.extension}", packed.content)
    return members if label is None else members + _member(f"{name}.{LABEL}", str(label).encode())


def _member(name: str, content: bytes) -> bytes:
    """A header without owner and time, the content, and zeros to the next block."""
    header = tarfile.TarInfo(name)
    header.size = len(content)
    padding = -len(content) % tarfile.BLOCKSIZE
    return header.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") + content + bytes(padding)
