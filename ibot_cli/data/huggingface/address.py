"""What a user writes behind `hf:`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.errors import DataError

PREFIX = "hf:"
FORMS = "hf:FOLDER, hf:NAME or hf:NAME:CONFIG; hf:NAME[image,label] names the columns"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True)
class Address:
    """A data set of Hugging Face's kind.

    Attributes:
        data: As given, with `hf:`.
        place: A folder or file that exists, or the name of a data set on the Hub.
        config: Which of its configurations, or None.
        columns: Columns that were named, for images or labels.
    """

    data: str
    place: str
    config: str | None
    columns: tuple[str, ...]

    @property
    def path(self) -> Path | None:
        """Where it lies on this machine, or None for one that is known by its name."""
        path = Path(self.place).expanduser()
        return path if path.exists() else None

    @property
    def shown(self) -> str:
        """The data set without its columns, for messages."""
        return f"{PREFIX}{self.place}" + (f":{self.config}" if self.config else "")


def parse_address(data: str) -> Address:
    """Take DATA that start with `hf:` apart.

    Raises:
        DataError: Nothing behind the prefix, or neither something on this machine nor a possible name.
    """
    rest = data.removeprefix(PREFIX).strip()
    if Path(rest).expanduser().exists() and rest:
        return Address(data, rest, None, ())
    rest, columns = _columns(rest)
    place, config = rest, None
    if not Path(place).expanduser().exists() and ":" in rest:
        place, _, config = rest.rpartition(":")
    address = Address(data, place, config or None, columns)
    if not place:
        raise DataError(f"{data} names no data set.", hint=f"Write {FORMS}.")
    if address.path is None and not HUB_NAME.fullmatch(place):
        raise DataError(f"There is no folder or file {place}.", hint=f"Write {FORMS}.")
    return address


def _columns(text: str) -> tuple[str, tuple[str, ...]]:
    """The text before `[...]`, and the names inside."""
    before, bracket, inside = text.partition("[")
    if not bracket or not inside.endswith("]"):
        return text, ()
    return before, tuple(name.strip() for name in inside[:-1].split(",") if name.strip())
