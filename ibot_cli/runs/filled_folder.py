"""Folders that are either complete or as they were before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ibot_cli.durable import sync_directory, sync_files
from ibot_cli.errors import DataError, IBotError

_ABANDONED = 24 * 60 * 60  # seconds


@contextlib.contextmanager
def filled_folder(
    folder: Path, what: str = "The figures", error: type[IBotError] = DataError, *, overwrite: bool = True
) -> Iterator[Path]:
    """An empty folder beside `folder` to write into; afterwards it takes that one's place with everything in it.

    Args:
        folder: What is to be there afterwards; missing parents are made. After an error or an interruption it is as
            it was before.
        what: What it holds, for the message.
        error: What is raised.
        overwrite: Whether it takes the place of a folder with something in it.

    Raises:
        IBotError: The disk is full or not writable, or the place is taken; of the kind `error`.
    """
    target = folder.resolve()
    with unfinished_folder(folder, what, error) as temporary:
        yield temporary
        sync_files(temporary)
        if not overwrite and target.is_dir():
            target.rmdir()  # which only an empty one allows
        _replace(target, temporary)
    sync_directory(target.parent)


@contextlib.contextmanager
def unfinished_folder(place: Path, what: str, error: type[IBotError]) -> Iterator[Path]:
    """A hidden folder beside a place, for what will be moved there; it is gone afterwards, whatever happens.

    Only a kill leaves it; a later call removes it once nothing was written into it for a day.

    Args:
        place: A file or a folder; missing parents are made, and removed after an error.
        what: What it holds, for the message.
        error: What is raised.

    Raises:
        IBotError: The disk is full or not writable; of the kind `error`.
    """
    target = place.resolve()
    missing = [parent for parent in target.parents if not parent.exists()]
    temporary = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        _remove_leftovers(target)
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same number
        temporary.mkdir(parents=True)
        yield temporary
    except BaseException as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(problem, OSError):
            raise error(
                f"{what} cannot be written to {place}: {problem.strerror or problem}.",
                "Check its space and permissions.",
            ) from problem
        raise
    shutil.rmtree(temporary, ignore_errors=True)


def _remove_leftovers(target: Path) -> None:
    """Unfinished folders of killed processes; the age tells them from those of processes that still draw."""
    ours = re.compile(re.escape(f".{target.name}.") + r"\d+\.unfinished")
    for entry in target.parent.glob(".*.unfinished"):
        if ours.fullmatch(entry.name) and time.time() - entry.stat().st_mtime > _ABANDONED:
            shutil.rmtree(entry, ignore_errors=True)


def _replace(target: Path, temporary: Path) -> None:
    """Between the two renames nothing but a kill can stop it, and then the old folder lies beside."""
    if not target.exists():
        temporary.rename(target)
        return
    old = temporary.with_suffix(".old")
    try:
        target.rename(old)
        temporary.rename(target)
    finally:
        if target.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(target)
