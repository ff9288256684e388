"""Folders that a command fills with figures: never someone else's."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from ibot_cli.errors import UsageError

MADE_BY = "made_by"


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


def _is_marked(path: Path, made_by: str) -> bool:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.get(MADE_BY) == made_by
