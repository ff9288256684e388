"""Checkpoints: written atomically, readable without running code, removed only when a newer one is safe.

A file is what `torch.save` makes of `{"format_version", "kind", "step", "epoch", "state"}`, where `state` holds tensors
in plain containers only, so `torch.load(weights_only=True)` reads it. Of a pre-training run `ibot_cli.weights` needs
three entries of `state`: `config` (nested plain mapping), `student` and `teacher` (state dicts of `Network`); what it
needs of a fine-tuned one is in `ibot_cli.weights.finetuned`.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ibot_cli.durable import remove_leftovers, sync_directory, write_atomically
from ibot_cli.errors import RunError

FORMAT_VERSION = 1
KIND = "ibot-checkpoint"
_NAME = re.compile(r"step-(\d+)(\.keep)?\.pt")


class UnreadableCheckpointError(RunError):
    """The file is truncated, damaged, or no checkpoint of ours."""


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint.

    Attributes:
        state: What was given to `save`; tensors are on the CPU.
        step: Optimiser steps that were done.
        epoch: Epochs that were complete.
        path: The file it came from.
        warning: What to tell the user about newer files that could not be read; None when there were none.
    """

    state: dict[str, Any]
    step: int
    epoch: int
    path: Path
    warning: str | None = None


def save(path: Path, state: Mapping[str, Any], *, step: int, epoch: int) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file; its directory exists.
        state: Tensors, str, int, float, bool and None in dicts, lists and tuples.
        step: Optimiser steps done.
        epoch: Epochs complete.

    Raises:
        RunError: The disk is full or not writable; what was there before is untouched.
        TypeError: `state` holds something else.
    """
    content = {"format_version": FORMAT_VERSION, "kind": KIND, "step": step, "epoch": epoch, "state": plain(state)}
    try:
        write_atomically(path, lambda file: torch.save(content, file))
    except (OSError, RuntimeError) as error:  # torch.save reports a failed write as a RuntimeError
        raise RunError(
            f"The checkpoint {path} could not be written: {error}.",
            "Free some disk space or check the permissions; earlier checkpoints are intact.",
        ) from error


def load(path: Path) -> Checkpoint:
    """Read a checkpoint; checksums are verified, nothing in the file is executed.

    Raises:
        UnreadableCheckpointError: The file is truncated, damaged, or no checkpoint of ours.
        RunError: It does not exist, or a newer version of ibot wrote it.
    """
    if not path.is_file():
        raise RunError(f"{path} does not exist.", "Check the path.")
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not look at the checksums
            damaged = archive.testzip()
        if damaged is not None:
            raise UnreadableCheckpointError(f"{path} is damaged: wrong checksum in {damaged}.", "Use an older one.")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise UnreadableCheckpointError(
            f"{path} cannot be read ({_first_line(error)}).", "It is truncated or no checkpoint; use an older one."
        ) from error
    return unpack(content, path)


def unpack(content: Any, path: Path) -> Checkpoint:
    """Check the envelope of an already loaded file.

    Raises:
        UnreadableCheckpointError: It is no checkpoint of ours.
        RunError: A newer version of ibot wrote it.
    """
    if not isinstance(content, dict) or content.get("kind") != KIND or not isinstance(content.get("state"), dict):
        raise UnreadableCheckpointError(f"{path} is not a checkpoint of ibot.", "Use a file from a run's checkpoints/.")
    found = content.get("format_version")
    if not isinstance(found, int) or found > FORMAT_VERSION:
        raise RunError(
            f"{path} has checkpoint format {found}; this version of ibot reads up to {FORMAT_VERSION}.", "Upgrade ibot."
        )
    return Checkpoint(content["state"], int(content["step"]), int(content["epoch"]), path)


def plain(value: Any, where: str = "state") -> Any:
    """A copy in plain dicts, lists and tuples; tensors are detached, not copied.

    Raises:
        TypeError: Something else is inside; the message says where.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)  # numpy's float64 is a float and torch's version a str, but neither is plain
    if isinstance(value, Mapping):
        return {_plain_key(key, where): plain(entry, f"{where}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        entries = [plain(entry, f"{where}[{index}]") for index, entry in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    raise TypeError(f"{where} is a {type(value).__name__}; a checkpoint holds tensors and plain values only")


def _plain_key(key: Any, where: str) -> int | str:
    for kind in (int, str):
        if isinstance(key, kind):
            return kind(key)
    raise TypeError(f"{where} has the key {key!r}; keys are int or str")


def latest(directory: Path) -> Checkpoint | None:
    """The newest readable checkpoint of a directory, or None when it holds none. Changes nothing.

    Raises:
        RunError: There are checkpoints, but none can be read; or the newest is from a newer version of ibot
            (falling back would silently drop work).
    """
    problems: list[str] = []
    for path in reversed(paths(directory)):
        try:
            found = load(path)
        except UnreadableCheckpointError as error:
            problems.append(error.message)
            continue
        if not problems:
            return found
        warning = f"{' '.join(problems)} Continuing from {path.name} (step {found.step}) instead."
        return Checkpoint(found.state, found.step, found.epoch, path, warning)
    if problems:
        raise RunError(f"No checkpoint in {directory} can be read. {' '.join(problems)}", "Start a new run.")
    return None


def paths(directory: Path) -> list[Path]:
    """The checkpoint files of a directory, oldest first."""
    found = [path for path in directory.glob("step-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (_step(path), path.name))


class CheckpointStore:
    """The checkpoints of a run that is being written; its owner holds the run's lock.

    Opening it removes temporary files that a killed process left.

    Args:
        directory: Where the files are.
        keep_last: Newest checkpoints that stay.
        keep_epochs: Checkpoints at the end of every so many epochs stay for good; 0 keeps none.
    """

    def __init__(self, directory: Path, *, keep_last: int = 2, keep_epochs: int = 0) -> None:
        self.directory = directory
        self.keep_last = max(1, keep_last)
        self.keep_epochs = keep_epochs
        directory.mkdir(parents=True, exist_ok=True)
        remove_leftovers(directory)

    def save(
        self, state: Mapping[str, Any], *, step: int, epoch: int, epoch_end: bool = False, keep: bool = False
    ) -> Path:
        """Write a checkpoint, then remove those that are no longer wanted.

        Args:
            state: See `save` of this module.
            step: Optimiser steps done.
            epoch: Epochs complete.
            epoch_end: Whether the step is the last of its epoch; only then `keep_epochs` applies.
            keep: Keep it for good whatever its epoch.

        Returns:
            The file: `step-00001234.pt`, or `step-00001234.keep.pt` when it stays for good.
        """
        lasting = keep or (epoch_end and self.keep_epochs > 0 and epoch > 0 and epoch % self.keep_epochs == 0)
        path = self.directory / f"step-{step:08d}{'.keep' if lasting else ''}.pt"
        save(path, state, step=step, epoch=epoch)
        self._remove_old(path)
        return path

    def latest(self) -> Checkpoint | None:
        """As `latest` of this module; unreadable newer files are renamed to `*.unreadable`, out of the way."""
        found = latest(self.directory)
        if found is not None and found.warning is not None:
            for path in paths(self.directory):
                if _step(path) >= found.step and path != found.path:
                    path.rename(path.with_name(path.name + ".unreadable"))
        return found

    def _remove_old(self, new: Path) -> None:
        """Runs after `new` is durable, so a kill at any point leaves at least one good checkpoint."""
        # what is beyond the new step was unreadable, or the run would not be here; it counts for nothing
        existing = [path for path in paths(self.directory) if _step(path) <= _step(new)]
        newest = existing[-self.keep_last :]
        for path in existing:
            replaced = path != new and _step(path) == _step(new) and ".keep" in new.name
            rolling = ".keep" not in path.name and path not in newest and path != new
            if replaced or rolling:
                with contextlib.suppress(OSError):
                    path.unlink()
        sync_directory(self.directory)


def _step(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match.group(1)) if match else -1


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
