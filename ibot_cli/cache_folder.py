"""Where the user's caches lie, and how much they may take."""

from __future__ import annotations

import contextlib
import math
import os
import time
from pathlib import Path

from ibot_cli.errors import UsageError

DEFAULT_GIB = 20.0
LARGEST_INDICES = 2 * 2**30
UNUSED_DAYS = 90
_LIMIT = "IBOT_CACHE_GIB"


def cache_folder(*parts: str) -> Path:
    """`$XDG_CACHE_HOME/ibot`, or `~/.cache/ibot`, or a folder in it; it is not made.

    Whoever fills it works without when it cannot be written, and when `cache_limit` is 0. Users without a home, as in
    some containers, have none unless `$XDG_CACHE_HOME` says where.

    Args:
        parts: Names of folders below, one per level.
    """
    stated = os.environ.get("XDG_CACHE_HOME")
    try:
        root = Path(stated) if stated else Path.home() / ".cache"
    except RuntimeError:
        root = Path(os.devnull)  # in which nothing can be written
    return root.joinpath("ibot", *parts)


def cache_limit() -> int:
    """Bytes that the cache of features may take, from `$IBOT_CACHE_GIB`; 0 is no cache at all, of anything.

    Raises:
        UsageError: It is not a number of at least 0.
    """
    text = os.environ.get(_LIMIT, "").strip()
    try:
        gib = float(text) if text else DEFAULT_GIB
    except ValueError:
        gib = -1.0
    if not (math.isfinite(gib) and gib >= 0):
        raise UsageError(
            f"{_LIMIT}={text} is not a number of GiB.", f"The default is {DEFAULT_GIB:.0f}; 0 is no cache."
        )
    return round(gib * 2**30)


def used(path: Path) -> None:
    """Note that an index was of use now; see `remove_old`."""
    with contextlib.suppress(OSError):
        os.utime(path)


def remove_old(folder: Path, limit: int = LARGEST_INDICES) -> None:
    """Remove indices that nobody used for long, then the least recently used until the rest takes `limit` bytes.

    What cannot be removed stays.

    Args:
        folder: Holds files only, whose modification times say when they were used.
        limit: Bytes, or less if the cache of features may take less.
    """
    now, total = time.time(), 0
    with contextlib.suppress(OSError):
        entries = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda entry: -entry[0].st_mtime)
        for status, path in entries:
            total += status.st_size
            if total > min(limit, cache_limit()) or now - status.st_mtime > UNUSED_DAYS * 86400:
                path.unlink(missing_ok=True)
