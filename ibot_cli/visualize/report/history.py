"""How a run began, each time that it went on, and with what."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ibot_cli.visualize.report.record import RunRecord

_NAMES = {"ibot": "ibot", "python": "Python", "cuda": "CUDA", "cpu": "processor", "threads": "threads",
          "devices": "GPUs"}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Session:
    """A stretch of training in one process.

    Attributes:
        time: When it began, as it was recorded; None where it was not.
        step: Updates done before.
        command: What was typed.
        changes: What is not as in the session before, in words.
    """

    time: str | None
    step: int
    command: str
    changes: tuple[str, ...]


def sessions(run: RunRecord) -> list[Session]:
    """All of them, oldest first."""
    known = [{**run.environment, "step": 0}, *run.resumes]
    return [_session(before, each) for before, each in zip([known[0], *known], known, strict=False)]


def _session(before: Mapping[str, Any], each: Mapping[str, Any]) -> Session:
    command = each.get("command")
    return Session(
        time=each.get("time"),
        step=each["step"],
        command=shlex.join(["ibot", *map(str, command[1:])]) if isinstance(command, list) else "",
        changes=tuple(_changes(before, each)),
    )


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    old, new = _flat(before), _flat(after)
    for name, value in new.items():
        if old.get(name, value) != value:
            yield f"{name} {old[name]} before, {value} now"


def _flat(environment: Mapping[str, Any]) -> dict[str, str]:
    """Versions and machine by name, as text."""
    found = {text: environment[name] for name, text in _NAMES.items() if name in environment}
    found |= environment.get("packages") or {}
    return {
        name: ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
        for name, value in found.items()
    }
