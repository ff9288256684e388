"""Files that a command is asked to write: refused before anything is computed, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

from ibot_cli.durable import write_atomically
from ibot_cli.errors import DataError, UsageError


def check_output(path: Path, option: str, ending: str) -> None:
    """Refuse a file that could not be written, or whose name says another format.

    Args:
        path: The file.
        option: Where it was named, such as `--out`.
        ending: Such as `.csv`.

    Raises:
        UsageError: The name does not end so, it is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise UsageError(f"{option} {path} is a folder.", f"Name a file, for example {path / ('found' + ending)}.")
    if path.suffix.lower() != ending:
        raise UsageError(f"{option} {path} does not end in {ending}.", f"The file will be {ending[1:].upper()}.")
    if not path.parent.is_dir():
        raise UsageError(f"{option} {path}: there is no folder {path.parent}.", "Make it first, or name another one.")


def write_output(path: Path, content: bytes) -> None:
    """Write the file; one that exists is replaced.

    Raises:
        DataError: It cannot be written.
    """
    try:
        write_atomically(path, lambda file: file.write(content))
    except OSError as error:
        raise DataError(
            f"{path} cannot be written: {error.strerror or error}.", "Check the folder's space and permissions."
        ) from error
