"""Small results that are worth keeping between calls."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ibot_cli import __version__, distributed
from ibot_cli.cache_folder import cache_folder, cache_limit
from ibot_cli.durable import finite, write_json
from ibot_cli.evaluate.processes import connect


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
    path = cache_folder(kind) / f"{digest}.json"
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
