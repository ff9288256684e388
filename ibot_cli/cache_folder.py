"""Where the user's caches lie, and how much they may take."""

from __future__ import annotations

import math
import os
from pathlib import Path

from ibot_cli.errors import UsageError

DEFAULT_GIB = 20.0
_LIMIT = "IBOT_CACHE_GIB"


def cache_folder(*parts: str) -> Path:
    """`$XDG_CACHE_HOME/ibot`, or `~/.cache/ibot`, or a folder in it; it is not made.

    Whoever fills it works without when it cannot be written, and when `cache_limit` is 0.

    Args:
        parts: Names of folders below, one per level.
    """
    stated = os.environ.get("XDG_CACHE_HOME")
    return Path(stated or Path("~/.cache").expanduser(), "ibot", *parts)


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
