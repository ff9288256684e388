"""`ibot ...` as people type it, run in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ibot_cli import cli


class Done(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Everything on the screen, free of the width of a table."""
        return " ".join((self.out + self.err).split())


class Ibot:
    """Runs `ibot ...` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *args: str | Path) -> Done:
        self._monkeypatch.setattr("sys.argv", ["ibot", *map(str, args)])
        self._capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *self._capsys.readouterr())


Command = Callable[..., Done]
"""One command with its default arguments, as a test file's own `ibot` has it."""


@pytest.fixture
def ibot(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ibot:
    return Ibot(monkeypatch, capsys)
