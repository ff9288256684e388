"""Silence around libraries that talk about their own workings."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silence(level: int = logging.ERROR) -> Iterator[None]:
    """No warnings and no log lines up to `level`, as it was before afterwards."""
    disabled = logging.root.manager.disable
    logging.disable(level)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
