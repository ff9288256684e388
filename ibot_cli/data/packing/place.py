"""The folder that a pack is written into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ibot_cli.data.huggingface.address import PREFIX, parse_address
from ibot_cli.data.shards.description import PACK, UNFINISHED
from ibot_cli.durable import TEMPORARY_SUFFIX, remove_leftovers
from ibot_cli.errors import DataError
from ibot_cli.lock import FolderLock

LOCK = ".lock"


@contextlib.contextmanager
def claimed(out: Path, data: str) -> Iterator[None]:
    """Inside, this process alone writes into the folder, which is new, empty, or a pack of ours.

    Args:
        out: The folder; missing parents are made.
        data: What is packed; its folder cannot hold the pack, which would change the data.

    Raises:
        DataError: It holds something else, lies in the data, or cannot be made.
        RunError: Another process writes into it.
    """
    _check_apart(out, data)
    _check_content(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(out / LOCK)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {error.strerror or error}.", hint="Name another folder.") from error
    with lock:
        _check_content(out)
        remove_leftovers(out)
        try:
            yield
        finally:
            _tidy(out)


def _check_apart(out: Path, data: str) -> None:
    source = parse_address(data).path if data.startswith(PREFIX) else Path(data).expanduser()
    if source is not None and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out} lies in the data, {data}.", hint="Pack into a folder beside it.")


def _check_content(out: Path) -> None:
    """Raise where something else lies there."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file.", hint="Name a new folder for the shards.")
    if not out.is_dir() or (out / UNFINISHED).is_file() or (out / PACK).is_file():
        return
    others = [entry.name for entry in out.iterdir() if not _is_ours(entry.name)]
    if others:
        raise DataError(
            f"{out} holds other things, such as {min(others)}.", hint="Name a new or an empty folder for the shards."
        )


def _is_ours(name: str) -> bool:
    return name == LOCK or (name.startswith(".") and name.endswith(TEMPORARY_SUFFIX))


def _tidy(out: Path) -> None:
    """Leave no lock in a finished pack, and no folder where nothing was begun; called with the lock held."""
    if (out / UNFINISHED).exists():
        return
    with contextlib.suppress(OSError):
        (out / LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        out.rmdir()  # which only an empty one allows
