"""The one place that writes: data to stdout, everything for people to stderr.

Colour only on a terminal and never under `NO_COLOR`; every message reads the same without it. rich is imported when
something is drawn, so that `ibot --help` and `import ibot_cli` stay quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ibot_cli.errors import IBotError

PIPE_WIDTH = 10_000  # a pipe has no width: a row stays a line, for grep and awk
INDENT = 4
_quiet = False


def speaks() -> bool:
    """Whether this process writes: of those that `torchrun` starts, the first does; errors are written by each."""
    return os.environ.get("RANK", "0") == "0"


def keep_quiet(quiet: bool) -> None:
    """Whether notes and tables for people are left out; data, warnings and errors are always written."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """See `keep_quiet`."""
    return _quiet


def console(*, data: bool = False) -> Console:
    """A rich console on stderr, or on stdout for `data`; made anew, since tests and redirections swap the streams."""
    from rich.console import Console

    stream = sys.stdout if data else sys.stderr
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False)


def print_error(error: IBotError) -> None:
    """Write `error: ...` and, if there is one, `hint: ...` to stderr."""
    say("error", error.message, "bold red")
    if error.hint:
        say("hint", error.hint, "bold cyan")


def warn(text: str) -> None:
    """Write `warning: ...` to stderr."""
    if speaks():
        say("warning", text, "bold yellow")


def note(text: str) -> None:
    """Write a plain line to stderr, unless kept quiet."""
    if speaks() and not _quiet:
        console().print(text, soft_wrap=True)


def say(label: str, text: str, style: str) -> None:
    """Write `label: text` to stderr, the label in `style`; text is never read as markup."""
    from rich.text import Text

    console().print(Text.assemble((f"{label}:", style), f" {text}"), soft_wrap=True)


def emit_json(value: object) -> None:
    """Write `value` as one JSON document to stdout; dataclasses become objects, tuples lists, paths text."""
    if speaks():
        sys.stdout.write(json.dumps(value, indent=2, default=_plain) + "\n")


def emit_text(text: str) -> None:
    """Write lines that are data to stdout, wrapped on a terminal only."""
    if speaks():
        console(data=True).print(text)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    title: str | None = None,
    right: Sequence[str] = (),
    keep: Sequence[str] = (),
    data: bool = False,
) -> None:
    """Draw a table.

    Args:
        columns: The headings.
        rows: The cells.
        title: A line above it.
        right: Headings of the columns that are right-aligned, for numbers.
        keep: Headings of the columns that are never wrapped or cut.
        data: Whether the table is the data (stdout) or for people only (stderr, unless kept quiet).
    """
    if not speaks() or (_quiet and not data):
        return
    from rich import box
    from rich.table import Table

    drawn = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    for name in columns:
        drawn.add_column(name, justify="right" if name in right else "left", no_wrap=name in keep, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console(data=data).print(drawn)


def definitions(entries: Iterable[tuple[str, Sequence[str]]]) -> None:
    """Write data as entries: a line each, and below it, indented, the lines that explain it."""
    from rich.padding import Padding
    from rich.text import Text

    out = console(data=True)
    for head, lines in entries:
        out.print(Text(head, style="bold"), soft_wrap=True)
        for line in lines:
            out.print(Padding(line, (0, 0, 0, INDENT), expand=False))


def _plain(value: object) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form.")
