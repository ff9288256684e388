"""SIGINT and SIGTERM end training after the current step, with everything saved."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from ibot_cli.errors import IBotError
from ibot_cli.runs.directory import RunDirectory

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


class Interrupted(IBotError):
    """A signal ended training; everything is saved."""

    def __init__(self, signal_number: int, step: int, run: RunDirectory, command: str = "pretrain") -> None:
        super().__init__(
            f"Stopped after step {step:,} by a signal; everything is saved in {run.path}.",
            f"Continue with: {resume_command(run.path, command)}",
        )
        self.exit_code = EXIT_CODES.get(signal_number, 1)  # type: ignore[call-overload]


def resume_command(run: Path, command: str = "pretrain") -> str:
    """What to type to go on with a run of `ibot COMMAND`."""
    return f"ibot {command} --out {shlex.quote(str(run))} --resume"


class StopRequest:
    """A context in which the two signals set `signal_number` instead of killing the process.

    A second SIGINT raises KeyboardInterrupt, for people who do not want to wait. Outside the main thread signals
    cannot be caught and nothing changes.

    Args:
        tell: Called from the signal handler at the first signal, for the person who waits.
    """

    def __init__(self, tell: Callable[[], None] = lambda: None) -> None:
        self.signal_number: int | None = None
        self._tell = tell
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in EXIT_CODES}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """Whether training should stop after this step."""
        return self.signal_number is not None

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        first = self.signal_number is None
        self.signal_number = number
        if first:
            self._tell()
