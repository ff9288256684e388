"""Folders that a command fills with figures: complete or as they were before, and never someone else's."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from ibot_cli.errors import DataError, UsageError
from ibot_cli.runs.durable import sync_directory

MADE_BY = "made_by"
_ABANDONED = 24 * 60 * 60  # seconds


def check_figure_folder(folder: Path, *, mark: str, made_by: str, names: Sequence[str], option: str = "--out") -> None:
    """Refuse, before anything is computed, a folder that could not hold figures or holds something else.

    Args:
        folder: What is to be filled.
        mark: The JSON file by which a folder of this command is known.
        made_by: What stands in it under `made_by`.
        names: Patterns of all file names that the command writes; these are replaced.
        option: For the message.

    Raises:
        UsageError: It, or what should hold it, is a file; what should hold it cannot be written to; it is the current
            folder; or something else is in it.
    """
    for part in (folder, *folder.parents):
        if part.exists() and not part.is_dir():
            raise UsageError(f"{option} {folder}: {part} is a file.", "Name a folder; it is made if it is not there.")
    holder = next(part for part in folder.resolve().parents if part.exists())  # where it is written beside and moved
    if not os.access(holder, os.W_OK | os.X_OK):
        raise UsageError(f"{option} {folder}: nothing can be written to {holder}.", "Name a folder somewhere else.")
    if not folder.is_dir():
        return
    if folder.resolve() == Path.cwd():
        raise UsageError(f"{option} {folder} is the current folder.", "Name a new folder inside it.")
    entries = sorted(entry.name for entry in folder.iterdir())
    others = [name for name in entries if not any(fnmatch(name, pattern) for pattern in names)]
    if others:
        raise UsageError(
            f"{option} {folder} is not empty: it holds {others[0]}, which is not of `{made_by}`.",
            "Name a new or an empty folder, or one that this command has filled.",
        )
    if entries and not _is_marked(folder / mark, made_by):
        raise UsageError(
            f"{option} {folder} is not empty, and not a folder that `{made_by}` has filled: {mark} does not say so.",
            "Name a new or an empty folder.",
        )


@contextlib.contextmanager
def filled_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to write into; afterwards it takes that one's place with everything in it.

    After an error or an interruption `folder` is as it was before, and nothing else is left. Only a kill leaves the
    hidden folder beside it; a later call removes it once nothing was written into it for a day.

    Raises:
        DataError: The disk is full or not writable.
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
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        for parent in missing:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise DataError(
                f"The figures cannot be written to {folder}: {error.strerror or error}.",
                "Check its space and permissions.",
            ) from error
        raise
    sync_directory(target.parent)


def _is_marked(path: Path, made_by: str) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get(MADE_BY) == made_by


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
