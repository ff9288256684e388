"""What the training loop tells whoever watches; `ibot_cli.progress` renders it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Reporter(Protocol):
    """Receives progress; called by one process only."""

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """Training begins or goes on after `step` updates."""

    def advance(self, step: int) -> None:
        """Update number `step` was started; its numbers come later."""

    def progress(self, record: Mapping[str, Any]) -> None:
        """The newest step's record, every `log_every` steps."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """An epoch is complete."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def warn(self, text: str) -> None:
        """Something the user should act on."""

    def stopping(self) -> None:
        """A signal came; training stops after the current step. Called from a signal handler."""

    def stop(self) -> None:
        """No more calls follow."""


class Silent:
    """A reporter for other processes and for library use."""

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `Reporter`."""

    def advance(self, step: int) -> None:
        """See `Reporter`."""

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `Reporter`."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `Reporter`."""

    def say(self, text: str) -> None:
        """See `Reporter`."""

    def warn(self, text: str) -> None:
        """See `Reporter`."""

    def stopping(self) -> None:
        """See `Reporter`."""

    def stop(self) -> None:
        """See `Reporter`."""
