"""How a run begins in its directory, and what the look at its images foretells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ibot_cli import distributed
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.probe import DataSummary
from ibot_cli.errors import DataError, RunError
from ibot_cli.lock import FolderLock
from ibot_cli.runs.directory import RunDirectory, check_can_create


def check_place(out: Path) -> None:
    """Refuse a place where a new run would overwrite something; every process gets the answer of process 0.

    The others must not look for themselves: process 0 may have begun the run meanwhile.

    Raises:
        RunError: As `check_can_create`.
    """
    problem: tuple[str, str | None] | None = None
    if distributed.rank() == 0:
        try:
            check_can_create(out)
        except RunError as error:
            problem = (error.message, error.hint)
    problem = distributed.agree(problem)
    if problem is not None:
        raise RunError(*problem)


def open_run(
    out: Path, resume: bool, describe: Callable[[RunDirectory], None]
) -> tuple[RunDirectory, FolderLock | None]:
    """The run directory and, in process 0, its lock; nothing is written in it before the lock is held.

    Args:
        out: The directory.
        resume: Whether it holds a run already.
        describe: Writes the small files of a new run.

    Raises:
        RunError: The directory is in use or cannot be used.
    """
    if distributed.rank() != 0:
        distributed.agree(None)
        return RunDirectory(out), None
    run = RunDirectory.open(out) if resume else RunDirectory.create(out)
    lock = run.lock()
    try:
        if not resume:
            check_can_create(out)  # again: somebody may have begun a run there since it was looked at
            describe(run)
    except BaseException:
        lock.release()
        raise
    distributed.agree(None)
    return run, lock


def bad_file_outlook(data: DataSummary, limits: BadLimits) -> tuple[DataError | None, str | None]:
    """What the unreadable files that were found mean for the run.

    Returns:
        Why it would stop at once, or None; a warning that it will stop later, or None.
    """
    found, images = len(data.unreadable), limits.num_images
    try:
        limits.check(data.unreadable)
    except DataError as error:
        return error, None
    expected = round(found / data.num_checked * images)
    if expected <= limits.max_files or expected <= limits.max_ratio * images:
        return None, None
    return None, (
        f"About {expected:,} of {images:,} files seem to be unreadable; the run will stop when it has met "
        f"more than {limits.max_files} files and {limits.max_ratio:.3g} of all. Raise data.max_bad_ratio to go on."
    )
