"""Small results that are worth keeping between calls, and where caches lie."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ibot_cli import __version__, distributed
from ibot_cli.durable import finite, write_json
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.processes import connect

DEFAULT_GIB = 20.0
_LIMIT = "IBOT_CACHE_GIB"


def cached_value(kind: str, key: str, measure: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """`measure()` as JSON gives it back, or what it gave for the same `key` before.

    A cache that cannot be read or written is ignored; so is one that another version of the package filled. All
    processes of a parallel run must call it; the first one's cache decides, so that all of them measure or none.

    Args:
        kind: What is measured, a word.
        key: Says everything else that the result depends on.
        measure: Called when the cache has no answer; gives plain data.
    """
    digest = hashlib.sha256(f"{__version__}\n{key}".encode()).hexdigest()
    path = cache_directory() / kind / f"{digest}.json"
    enabled = cache_limit() > 0
    connect()
    value: dict[str, Any] | None = distributed.agree(_stored(path, key) if enabled else None)
    if value is None:
        value = distributed.agree(json.loads(json.dumps(finite(measure()))))
        if enabled and distributed.rank() == 0:
            with contextlib.suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"key": key, "value": value})
    return value


def _stored(path: Path, key: str) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        stored = json.loads(path.read_text())
        if stored["key"] == key and isinstance(stored["value"], dict):
            return dict(stored["value"])
    return None


def cache_directory() -> Path:
    """`$XDG_CACHE_HOME/ibot`, or `~/.cache/ibot`."""
    stated = os.environ.get("XDG_CACHE_HOME")
    return (Path(stated) if stated else Path.home() / ".cache") / "ibot"


def cache_limit() -> int:
    """Bytes that the cache of features may take, from `$IBOT_CACHE_GIB`; 0 is no cache at all.

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
