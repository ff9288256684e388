"""Unreadable files: counted, named, and a reason to stop when there are too many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ibot_cli.errors import DataError

SHOWN = 20


@dataclass(frozen=True)
class BadLimits:
    """How many unreadable files a run tolerates; it stops when both limits are exceeded.

    Attributes:
        num_images: Images in the source.
        max_ratio: Share of them.
        max_files: Number of distinct files.
    """

    num_images: int
    max_ratio: float
    max_files: int

    def check(self, reasons: Mapping[str, str]) -> None:
        """Raise when there are too many.

        Args:
            reasons: Reason by path.

        Raises:
            DataError: Lists the files, or the first 20 and a count.
        """
        count = len(reasons)
        if count > self.max_files and count > self.max_ratio * self.num_images:
            raise DataError(
                f"{count:,} of {self.num_images:,} files cannot be read; a run stops above {self.max_files} files and "
                f"{self.max_ratio:.3g} of all:\n{list_bad(reasons)}",
                hint="Remove or repair the files, or raise data.max_bad_ratio or data.max_bad_files.",
            )


class BadFiles:
    """The distinct unreadable files met so far.

    Args:
        limits: When to stop.
    """

    def __init__(self, limits: BadLimits) -> None:
        self.limits = limits
        self.reasons: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.reasons)

    def add(self, entries: Iterable[tuple[str, str]]) -> list[str]:
        """Take note of (path, reason) pairs and return the paths that are new.

        Raises:
            DataError: Too many by now.
        """
        before = len(self.reasons)
        for path, reason in entries:
            self.reasons.setdefault(path, reason)
        if len(self.reasons) > before:
            self.limits.check(self.reasons)
        return list(self.reasons)[before:]

    def state_dict(self) -> dict[str, str]:
        """Reason by path, for a checkpoint."""
        return dict(self.reasons)

    def load_state_dict(self, state: Mapping[str, str]) -> None:
        """Continue with the files of a checkpoint."""
        self.reasons = dict(state)


def list_bad(reasons: Mapping[str, str]) -> str:
    """Up to 20 files with their reasons, one per line, then the number of the others."""
    lines = [f"  {path}: {reason}" for path, reason in list(reasons.items())[:SHOWN]]
    if len(reasons) > SHOWN:
        lines.append(f"  and {len(reasons) - SHOWN:,} more")
    return "\n".join(lines)
