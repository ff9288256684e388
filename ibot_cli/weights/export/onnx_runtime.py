"""onnxruntime, which by itself talks to its makers and to the screen."""

from __future__ import annotations

import os
from types import ModuleType

_ERRORS_ONLY = 3


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
