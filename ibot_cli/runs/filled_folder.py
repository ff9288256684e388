"""Folders that are either complete or as they were before."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from ibot_cli.errors import DataError, IBotError
from ibot_cli.runs.durable import sync_directory

_ABANDONED = 24 * 60 * 60  # seconds


@contextlib.contextmanager
def filled_folder(folder: Path, what: str = "The figures", error: type[IBotError] = DataError) -> Iterator[Path]:
    """An empty folder beside `folder` to write into; afterwards it takes that one's place with everything in it.

    After an error or an interruption `folder` is as it was before, and nothing else is left. Only a kill leaves the
    hidden folder beside it; a later call removes it once nothing was written into it for a day.

    Args:
        folder: What is to be there afterwards; missing parents are made.
        what: What it holds, for the message.
        error: What is raised.

    Raises:
        IBotError: The disk is full or not writable; of the kind `error`.
    """
    target = folder.resolve()
    missing = [parent for parent in target.parents if not parent.exists()]
    temporary = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
    try:
        _remove_leftovers(target)
        shutil.rmtree(temporary, ignore_errors=True)  # of a killed process with the same number
        temporary.mkdir(parents=True)
        yield temporary
        sync_directory(temporary)
        _replace(target, temporary)
    except BaseException as problem:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(problem, OSError):
            raise error(
                f"{what} cannot be written to {folder}: {problem.strerror or problem}.",
                "Check its space and permissions.",
            ) from problem
        raise
    sync_directory(target.parent)


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
