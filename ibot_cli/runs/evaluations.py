"""`evaluations.jsonl`: one JSON object per evaluation of a run, with everything that a later comparison needs.

Several processes may append at once. NaN and infinities are written as `null`, because JSON has neither.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli import __version__, console
from ibot_cli.durable import append_json, finite
from ibot_cli.errors import RunError
from ibot_cli.runs.directory import is_run

NAME = "evaluations.jsonl"
MAX_CORRECT = 1_000_000
_CHECKPOINT = re.compile(r"\bstep-(\d+)(?:\.keep)?\.pt\b")
_STEP = re.compile(r", step (\d+)$")
_KINDS = {"command": str, "result": dict, "step": int | None}
_IDENTITY = ("weights", "weights_hash", "data", "fingerprint")


def run_of(weights: str) -> Path | None:
    """The run directory that WEIGHTS belong to: a run, or the run of a file inside its `checkpoints/`; else None."""
    path = Path(weights)
    if path.is_dir():
        return path if is_run(path) else None
    folder = path.parent if path.parent.name else path.absolute().parent
    return folder.parent if path.is_file() and folder.name == "checkpoints" and is_run(folder.parent) else None


def record_evaluation(
    weights: str,
    command: str,
    *,
    settings: Mapping[str, Any],
    result: object,
    correct: NDArray[np.bool_] | None = None,
) -> Path | None:
    """Append one line to the run's `evaluations.jsonl`; only the first of several processes writes.

    Args:
        weights: WEIGHTS as given.
        command: The command's name.
        settings: The exact options of the call; plain values.
        result: A dataclass of plain values with `weights`, `weights_hash`, `data` and `fingerprint`.
        correct: Whether each test image is right, bool `[n]`, for paired comparisons; left out above a million.

    Returns:
        The file; None where WEIGHTS belong to no run, or the run cannot be written (which is a warning).

    Raises:
        TypeError: `result` is no such dataclass.
    """
    run = run_of(weights)
    if run is None or os.environ.get("RANK", "0") != "0":
        return None
    record = _record(weights, command, settings, result, correct)
    path = run / NAME
    try:
        append_json(path, record)
    except OSError as error:
        console.warn(f"The result is not recorded: {path} cannot be written ({error.strerror or error}).")
        return None
    return path


def read_evaluations(run: Path) -> list[dict[str, Any]]:
    """All complete records of a run, oldest first; a half-written last line is left out.

    Raises:
        RunError: A line before the last is not a record, or the file cannot be read.
    """
    path = run / NAME
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}.", "Check its permissions.") from error
    # split leaves "" after the last newline; anything else there is a line whose end was never written
    return [_parsed(line, path, number) for number, line in enumerate(lines[:-1], start=1) if line.strip()]


def correctness(record: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Whether each test image is right, bool `[n]`; None where a record does not hold it."""
    packed = record.get("correct")
    if packed is None:
        return None
    bits = np.frombuffer(base64.b64decode(packed["packed"]), dtype=np.uint8)
    return np.unpackbits(bits, count=int(packed["count"])).astype(np.bool_)


def _record(
    weights: str,
    command: str,
    settings: Mapping[str, Any],
    result: object,
    correct: NDArray[np.bool_] | None,
) -> Any:
    if not is_dataclass(result) or isinstance(result, type):
        raise TypeError(f"{type(result).__name__} is not the dataclass of a result")
    content = asdict(result)
    missing = [name for name in _IDENTITY if name not in content]
    if missing:
        raise TypeError(f"{type(result).__name__} has no {', '.join(missing)}")
    packed = None
    if correct is not None and len(correct) <= MAX_CORRECT:
        bits = np.packbits(np.asarray(correct, dtype=np.bool_))
        packed = {"count": len(correct), "packed": base64.b64encode(bits.tobytes()).decode()}
    return _plain(
        {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": __version__,
            "command": command,
            "weights": weights,
            **_checkpoint(weights, str(content["weights"])),
            **{name: content[name] for name in _IDENTITY[1:]},
            "settings": settings,
            "result": content,
            "correct": packed,
        }
    )


def _checkpoint(weights: str, description: str) -> dict[str, Any]:
    """Which file of the run it was and after how many steps; None where neither text says it."""
    named = _CHECKPOINT.search(Path(weights).name) or _CHECKPOINT.search(description)
    step = named or _STEP.search(description)
    return {"checkpoint": named and named.group(), "step": step and int(step.group(1))}


def _plain(value: Any) -> Any:
    """What JSON can hold, from plain values and the scalars of numpy; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return finite(value.item() if isinstance(value, np.generic) else value)


def _parsed(line: str, path: Path, number: int) -> dict[str, Any]:
    with contextlib.suppress(json.JSONDecodeError):
        record = json.loads(line)
        if isinstance(record, dict) and all(isinstance(record.get(name), kind) for name, kind in _KINDS.items()):
            return record
    raise RunError(f"{path}, line {number} is not the record of an evaluation.", "Remove that line.")
