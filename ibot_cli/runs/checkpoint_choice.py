"""Several checkpoints of a run, as the user names them."""

from __future__ import annotations

from pathlib import Path

from ibot_cli.errors import RunError, UsageError
from ibot_cli.runs import checkpoint
from ibot_cli.runs.directory import is_run

_HINT = "Write all, last:N, or steps such as 1000,2000."


def choose_checkpoints(run: str, text: str) -> list[Path]:
    """Checkpoint files of a run, oldest first, one for each step.

    Args:
        run: The run directory.
        text: `all`, `last:N`, or steps that are separated by commas.

    Raises:
        UsageError: `run` is no run, or `text` says none of these, or a step that has no checkpoint.
        RunError: The run has no checkpoint.
    """
    if not is_run(Path(run)):
        raise UsageError(
            f"--checkpoints {text} chooses among the checkpoints of a run, and {run} is not a run directory.",
            "Name the directory that `ibot pretrain` made.",
        )
    wanted = _parsed(text)
    found: dict[int, Path] = {}
    for path in checkpoint.paths(Path(run) / "checkpoints"):
        found.setdefault(_step(path), path)  # of two files of a step, the lasting one comes first
    if not found:
        raise RunError(f"The run {run} has no checkpoint yet.", "Continue it with `ibot pretrain --resume`.")
    if isinstance(wanted, int):
        return list(found.values())[-wanted:] if wanted else list(found.values())
    absent = sorted(wanted - found.keys())
    if absent:
        raise UsageError(
            f"--checkpoints {text}: {run} has no checkpoint of step {', '.join(map(str, absent))}.",
            f"It has {', '.join(map(str, found))}.",
        )
    return [path for step, path in found.items() if step in wanted]


def _parsed(text: str) -> int | set[int]:
    """How many of the last ones, 0 for all; or which steps."""
    if text == "all":
        return 0
    if text.startswith("last:"):
        number = text.removeprefix("last:")
        if number.isdecimal() and int(number) > 0:
            return int(number)
        raise UsageError(f"--checkpoints {text}: {number!r} is not a positive whole number.", _HINT)
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal()]
    if wrong:
        raise UsageError(f"--checkpoints {text}: {wrong[0]!r} is not a step.", _HINT)
    return {int(part) for part in parts}


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").split(".")[0])
