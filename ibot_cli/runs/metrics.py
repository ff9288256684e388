"""`metrics.jsonl`: one JSON object per line, each with an integer `step`.

NaN and infinities are written as `null`, because JSON has neither.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from ibot_cli.durable import finite, write_atomically
from ibot_cli.errors import RunError


class MetricsLog:
    """Append-only records of a run. A line that a kill cut in half is dropped at the next opening.

    Args:
        path: The file; it is made at the first `append`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def append(self, *records: Mapping[str, Any]) -> None:
        """Write records and flush once.

        Args:
            records: Plain values; each has an integer `step`.

        Raises:
            KeyError: A record has no `step`.
        """
        lines = []
        for record in records:
            if not isinstance(record["step"], int):
                raise TypeError(f"step must be an int, not {type(record['step']).__name__}")
            lines.append(json.dumps(finite(record), allow_nan=False, ensure_ascii=False) + "\n")
        if self._file is None:
            self._file = self._open()
        self._file.write("".join(lines))
        self._file.flush()

    def read(self) -> list[dict[str, Any]]:
        """All complete records, in the order they were written; a half-written last line is left out.

        Raises:
            RunError: A line before the last is not a JSON record.
        """
        return [record for record, _ in self._parse()]

    def truncate_after(self, step: int) -> int:
        """Keep only the records up to and including `step`, atomically; for resuming from a checkpoint.

        Returns:
            The number of records that were dropped.
        """
        if not self.path.exists():
            return 0
        parsed = self._parse()
        kept = [line for record, line in parsed if record["step"] <= step]
        self.close()
        write_atomically(self.path, lambda file: file.write("".join(kept).encode()))
        return len(parsed) - len(kept)

    def sync(self) -> None:
        """Force what was appended to the disk; call it before a checkpoint so that none is ahead of its metrics."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> TextIO:
        if self.path.exists():
            content = self.path.read_bytes()
            complete = content.rfind(b"\n") + 1
            if complete < len(content):
                os.truncate(self.path, complete)
        return self.path.open("a", encoding="utf-8")

    def _parse(self) -> list[tuple[dict[str, Any], str]]:
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        # split leaves "" after the last newline; anything else there is a line whose end was never written
        return [(_record(line, self.path, number), line + "\n") for number, line in _numbered(lines[:-1])]


def _numbered(lines: Iterable[str]) -> Iterable[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _record(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            return record
    except json.JSONDecodeError:
        pass
    raise RunError(f"{path}, line {number} is not a record with a step.", "Remove that line.")
