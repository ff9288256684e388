"""The processes of an evaluation that `torchrun` started."""

from __future__ import annotations

import atexit
import contextlib

from ibot_cli import distributed

_connections = contextlib.ExitStack()
atexit.register(_connections.close)


def connect() -> None:
    """Connect the processes of a parallel run until they end; a single process has nothing to do.

    Not for each feature pass: connections that are closed and opened again in quick succession fail now and then.
    """
    if distributed.world() > 1:
        _connections.enter_context(distributed.process_group())
