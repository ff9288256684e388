"""Errors that a user can act on.

Every error says what is wrong and where, and carries a `hint` that says what to do next. The command line prints
both and exits with `exit_code`; a library caller sees an ordinary exception.
"""

from __future__ import annotations


class IBotError(Exception):
    """A failure the user can fix; exit code 1.

    Args:
        message: What is wrong and where, as whole sentences.
        hint: What to do next, or None where the message already says it.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(IBotError):
    """The command line or the configuration is wrong; nothing was started; exit code 2."""

    exit_code = 2


class ConfigError(UsageError):
    """One or more configuration problems, all of them listed in the message."""


class DataError(IBotError):
    """The images cannot be used as asked."""


class RunError(IBotError):
    """A run directory or a checkpoint cannot be used as asked."""


class WeightsError(IBotError):
    """A weights file cannot be loaded as asked."""


class ExportError(IBotError):
    """An exported network is not the one it came from; nothing was written."""


class TrainingError(IBotError):
    """Training cannot go on, for example because losses stay non-finite."""
