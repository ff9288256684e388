"""Errors for DATA that are not there: what was meant, perhaps, and all that DATA can be."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ibot_cli.errors import DataError

FORMS = (
    "a folder of images",
    "a text file of paths",
    "a .csv file with the columns path,label",
    "tar shards (a .tar file, a folder of them, or a pattern such as 'train-{0000..0012}.tar' in quotation marks)",
    "hf:NAME",
    "hf:FOLDER",
)
PREFIXES = ("builtin:", "hf:")


def forms(builtins: Sequence[str]) -> str:
    """All that DATA can be, as a sentence."""
    *most, last = (*FORMS, *(f"builtin:{name}" for name in builtins))
    return f"DATA is {', '.join(most)} or {last}."


@contextmanager
def permitted(data: str) -> Iterator[None]:
    """Inside, a place that may not be looked at is an error of the DATA.

    Raises:
        DataError: It may not.
    """
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"{data} cannot be opened: no permission for {error.filename or data}.",
            hint="Check the permissions of it and of the folders above it.",
        ) from error


def unknown_builtin(name: str, builtins: Sequence[str]) -> DataError:
    """The error for `builtin:NAME` of another name."""
    return DataError(
        f"There is no embedded data set `{name}`.{_did_you_mean(name, builtins, 'builtin:')}",
        hint="Embedded: " + ", ".join(f"builtin:{key}" for key in builtins) + ".",
    )


def not_there(data: str, path: Path, builtins: Sequence[str]) -> DataError:
    """The error for a folder or file that does not exist.

    Args:
        data: As the user gave it.
        path: What was looked for.
        builtins: Names of the embedded data sets.
    """
    if data in builtins:
        hint = f"The embedded data set of that name is builtin:{data}."
        return DataError(f"There is no folder or file {data}.", hint=hint)
    if "://" in data:
        return DataError(f"{data} is not on this machine.", hint="Download the images first, then give their folder.")
    text = f"There is no folder or file {data}."
    if not path.parent.is_dir():
        text += f" Its parent {path.parent} does not exist either."
    return DataError(text + (_prefix_meant(data) or _sibling_meant(path)), hint=forms(builtins))


def _prefix_meant(data: str) -> str:
    prefix, colon, rest = data.partition(":")
    return _did_you_mean(prefix + colon, PREFIXES, "", rest) if colon else ""


def _sibling_meant(path: Path) -> str:
    parent = path.parent
    siblings = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    return _did_you_mean(path.name, siblings, "" if str(parent) == "." else f"{parent}/")


def _did_you_mean(word: str, choices: Sequence[str], before: str, after: str = "") -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f" Did you mean {before}{close[0]}{after}?" if close else ""
