"""What DATA are, as far as their name and what lies there tell without opening an image."""

from __future__ import annotations

from pathlib import Path

from ibot_cli.data.csv_list import csv_parts, is_csv
from ibot_cli.data.folders import split_folders
from ibot_cli.data.huggingface.address import PREFIX, parse_address
from ibot_cli.data.huggingface.source import split_names
from ibot_cli.data.missing import permitted
from ibot_cli.data.shards.member import is_member
from ibot_cli.data.shards.names import PATTERN, anywhere_pattern, find_shards
from ibot_cli.data.shards.source import shard_parts
from ibot_cli.errors import DataError

BUILTIN = "builtin:"


def own_parts(data: str) -> list[str]:
    """The parts that DATA have of their own, the one for training first and the one for testing second.

    Args:
        data: As for `open_source`.

    Returns:
        At least two names, or none where nothing says which images are for testing.

    Raises:
        DataError: As `open_source`.
    """
    if data.startswith(BUILTIN):
        return ["train", "test"]
    with permitted(data):
        parts = split_names(data) if data.startswith(PREFIX) else _parts(data)
    return parts if len(parts) > 1 else []


def _parts(data: str) -> list[str]:
    if find_shards(data) is not None:
        return shard_parts(data)
    path = Path(data).expanduser()
    return split_folders(path) if path.is_dir() else csv_parts(path, data) if _is_table(path) else []


def anywhere(data: str) -> str:
    """DATA as they can be opened from any working directory, so that a resumed run finds them."""
    if data.startswith(BUILTIN):
        return data
    if data.startswith(PREFIX):
        return _anywhere_huggingface(data)
    path = Path(data).expanduser()
    return anywhere_pattern(data) if not path.exists() and PATTERN.search(data) else str(path.absolute())


def is_here(data: str) -> bool:
    """Whether the place that DATA name exists; for names on the Hub of Hugging Face, nobody looks."""
    if data.startswith((BUILTIN, PREFIX)) or Path(data).expanduser().exists() or is_member(data):
        return True
    try:
        return find_shards(data) is not None
    except DataError:
        return False


def _is_table(path: Path) -> bool:
    return is_csv(path) and path.is_file()


def _anywhere_huggingface(data: str) -> str:
    address = parse_address(data)
    if address.path is None:
        return data
    return PREFIX + str(address.path.absolute()) + data.removeprefix(PREFIX).strip()[len(address.place) :]
