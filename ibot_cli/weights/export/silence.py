"""Libraries that talk about their own workings, kept quiet."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from types import ModuleType

_ERRORS_ONLY = 3  # of onnxruntime's log levels


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


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Neither log lines nor progress bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with silence():
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def import_onnxruntime() -> ModuleType:
    """The package, quiet: without telemetry and without warnings.

    Its builds since 1.31 send usage data to Microsoft and keep an identifier in the user's cache unless
    `ORT_DISABLE_TELEMETRY` is set before the first import; a value that the user has set stays. Its warnings are about
    a missing GPU and about nodes that it does not optimise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    onnxruntime.set_default_logger_severity(_ERRORS_ONLY)
    module: ModuleType = onnxruntime
    return module
