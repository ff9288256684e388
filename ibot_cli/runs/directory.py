"""The run directory: everything that one pre-training run leaves behind.

config.yaml       the resolved configuration
env.json          versions, machine, command line, time
resumes.jsonl     one JSON record per continuation: what env.json holds, and the step
data.json         what the images were: string, fingerprint, counts, notes
metrics.jsonl     one JSON record per line
evaluations.jsonl one JSON record per evaluation
bad_files.json    unreadable images and why
checkpoints/      step-00001234.pt
figures/          pictures
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ibot_cli.durable import append_json, remove_leftovers, write_atomically, write_json
from ibot_cli.errors import RunError
from ibot_cli.lock import FolderLock

LOCK_NAME = ".lock"


class RunDirectory:
    """Paths and small files of one run; make it with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.environment = path / "env.json"
        self.resumes = path / "resumes.jsonl"
        self.data = path / "data.json"
        self.metrics = path / "metrics.jsonl"
        self.bad_files = path / "bad_files.json"
        self.checkpoints = path / "checkpoints"
        self.figures = path / "figures"

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """Make a new run directory; an existing empty one is taken.

        Raises:
            RunError: `path` is a file, cannot be written, or holds anything already.
        """
        check_can_create(path)
        run = cls(path)
        try:
            for directory in (run.checkpoints, run.figures):
                directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path} cannot be created: {error.strerror or error}.", "Choose another --out.") from error
        return run

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run.

        Raises:
            RunError: There is no such directory, or it is no run.
        """
        if not path.is_dir():
            what = "is a file, not a run" if path.is_file() else "does not exist"
            raise RunError(f"{path} {what}.", "Name a run, the directory that `ibot pretrain` or `ibot finetune` made.")
        if not is_run(path):
            raise RunError(
                f"{path} is not a run: it has no config.yaml.",
                "Name a run, the directory that `ibot pretrain` or `ibot finetune` made.",
            )
        return cls(path)

    def lock(self) -> FolderLock:
        """Keep everybody else out until the returned lock is released or the process ends.

        Also removes temporary files that a killed process left.

        Raises:
            RunError: The run is in use; the message names the process.
        """
        lock = FolderLock(self.path / LOCK_NAME)
        for directory in (self.path, self.checkpoints):
            remove_leftovers(directory)
        return lock

    def write_config(self, text: str) -> None:
        """Store the resolved configuration, already rendered as YAML; from then on the directory is a run."""
        write_atomically(self.config, lambda file: file.write(text.encode()))

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        """Store what `ibot_cli.runs.environment.describe` returned."""
        write_json(self.environment, environment)

    def append_resume(self, step: int, environment: Mapping[str, Any]) -> None:
        """Note that the run goes on after `step` updates, and with what; see `write_environment`."""
        append_json(self.resumes, {"step": step, **environment})

    def write_data(self, data: Mapping[str, Any]) -> None:
        """Store the data string, fingerprint, counts and notes."""
        write_json(self.data, data)

    def write_bad_files(self, reasons: Mapping[str, str]) -> None:
        """Store the unreadable files: path -> reason."""
        write_json(self.bad_files, {"count": len(reasons), "files": dict(sorted(reasons.items()))})


def is_run(path: Path) -> bool:
    """Whether `path` is a directory that holds a run."""
    return (path / "config.yaml").is_file()


def check_can_create(path: Path) -> None:
    """Refuse a place where a new run would overwrite something; changes nothing.

    Raises:
        RunError: `path` is a file or a directory that is not empty.
    """
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise RunError(f"{place} is a file; a run needs a directory.", "Choose another --out.")
    if is_run(path):
        raise RunError(f"{path} already holds a run.", "Continue it with --resume, or choose another --out.")
    if path.is_dir() and any(not _ours_when_empty(entry) for entry in path.iterdir()):
        raise RunError(
            f"{path} is not empty and is not a run.",
            "Choose a new directory with --out. (--resume is for a directory that already holds a run.)",
        )


def _ours_when_empty(entry: Path) -> bool:
    """What a run that was stopped before its configuration was written may have left."""
    if entry.name in (LOCK_NAME, "data.json", "env.json"):
        return True
    return entry.name in ("checkpoints", "figures") and entry.is_dir() and not any(entry.iterdir())
