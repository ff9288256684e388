"""How a run begins in its directory, and what the look at its images foretells."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from ibot_cli import distributed
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.probe import DataSummary
from ibot_cli.data.sources import Source
from ibot_cli.errors import DataError, RunError
from ibot_cli.lock import FolderLock
from ibot_cli.runs.directory import RunDirectory, check_can_create

_COMPARED = 1000


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


def check_same_images(source: Source) -> None:
    """All processes must have listed the same images, or each would train on a share of another order.

    They may lie elsewhere on another machine, and their times may differ there; what is compared are their number, the
    names of some and the labels.

    Raises:
        DataError: They have not.
    """
    digest = hashlib.sha256(b"" if source.labels is None else source.labels.tobytes())
    for index in range(0, len(source), max(1, len(source) // _COMPARED)):
        digest.update(f"{Path(source.path(index)).name}\0".encode())
    seen = distributed.merged({f"{len(source):,} {digest.hexdigest()}": ""})
    if len(seen) > 1:
        numbers = sorted({entry.partition(" ")[0] for entry in seen})
        how = f"there are {' and '.join(numbers)}" if len(numbers) > 1 else "names or classes differ"
        raise DataError(
            f"The processes do not see the same images in {source.name}: {how}.",
            "Make the folders equal on all machines, and start when nothing is being copied into them.",
        )


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
