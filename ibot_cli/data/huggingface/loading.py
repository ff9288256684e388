"""Loading a data set with the `datasets` package, whose failures become sentences."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ibot_cli import console
from ibot_cli.data.huggingface.address import Address
from ibot_cli.errors import DataError

Tables = dict[str, Any]
"""Splits by name, each a `datasets.Dataset`."""

BUILDERS = {".parquet": "parquet", ".arrow": "arrow"}
LIBRARIES = ("datasets", "huggingface_hub", "fsspec")
OFFLINE = "Check the network, or give a folder: hf:FOLDER for what save_to_disk wrote or for parquet files."
KINDS = "It reads folders of save_to_disk, parquet and arrow files; a folder of images needs no hf: in front."


def import_datasets(data: str) -> ModuleType:
    """The package.

    Raises:
        DataError: It is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            f"{data} needs the package datasets, which is not installed.",
            hint="pip install 'ibot-cli[datasets]'",
        ) from error
    return datasets  # type: ignore[no-any-return]


def load_tables(address: Address) -> Tables:
    """The splits of a data set; images stay where they are until they are read.

    Raises:
        DataError: `datasets` is not installed, there is no such data set, it cannot be reached, or it needs a
            configuration to be named.
    """
    datasets = import_datasets(address.data)
    path = address.path
    with _quiet(datasets):
        try:
            if path is None:
                found = _by_name(address.place, address.config)
            else:
                found = _on_disk(datasets, path, address.config)
        except DataError:
            raise
        except Exception as error:  # everything from its own errors to those of HTTP, arrow and the file system
            raise _explained(address, error) from error
    tables = dict(found) if isinstance(found, dict) else {"train": found}
    return {name: table for name, table in tables.items() if len(table)}


@lru_cache(maxsize=4)
def _by_name(name: str, config: str | None) -> Any:
    """From the Hub or its cache; asked once, since a command may open several parts and each time asks the network."""
    import datasets

    return datasets.load_dataset(name, config)


def _on_disk(datasets: ModuleType, path: Path, config: str | None) -> Any:
    if path.is_file():
        builder = BUILDERS.get(path.suffix.lower())
        if builder is None:
            raise DataError(f"hf:{path} is neither a folder nor a parquet or arrow file.", hint="Give the folder.")
        return datasets.load_dataset(builder, data_files=str(path))
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return datasets.load_from_disk(str(path))
    return datasets.load_dataset(str(path.resolve()), config)


@contextlib.contextmanager
def _quiet(datasets: ModuleType) -> Iterator[None]:
    """Inside, the libraries log nothing below an error, and draw bars on a terminal only."""
    levels = {name: logging.getLogger(name).level for name in LIBRARIES}
    bars = not datasets.are_progress_bars_disabled()
    try:
        for name in LIBRARIES:
            logging.getLogger(name).setLevel(logging.ERROR)
        if not sys.stderr.isatty() or console.is_quiet():
            datasets.disable_progress_bars()
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            datasets.enable_progress_bars()


def _explained(address: Address, error: Exception) -> DataError:
    """The library's failure as a message and a hint."""
    cause = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else None  # which itself says nothing
    text = " ".join(str(cause or error).split())
    if isinstance(error, ConnectionError) or "offline" in text.lower():
        return DataError(f"{address.shown} is not on this machine, and the Hub cannot be reached.", hint=OFFLINE)
    if "onfig" in text and (choices := re.findall(r"'([^']+)'", _last_list(text))):
        which = f"no configuration {address.config}" if address.config else "several configurations"
        shown = ", ".join(choices[:10]) + (f" and {len(choices) - 10:,} more" if len(choices) > 10 else "")
        return DataError(
            f"{address.shown} has {which}: there are {shown}.", hint=f"Write hf:{address.place}:{choices[0]}."
        )
    if type(error).__name__ in ("EmptyDatasetError", "DataFilesNotFoundError"):
        return DataError(
            f"{address.shown} holds no data that the package datasets understands.",
            hint=KINDS,
        )
    if isinstance(error, IndexError):
        return DataError(f"{address.shown} is empty, or what it is made of is missing.", hint="It needs images.")
    if "gated" in text.lower():
        return DataError(f"{address.shown} is gated.", hint="Ask for access on its page, then run `hf auth login`.")
    if isinstance(error, FileNotFoundError):
        return DataError(f"There is no data set {address.place} on the Hub, and no such folder here.", hint=OFFLINE)
    return DataError(
        f"{address.shown} cannot be loaded: {text[:200] or type(error).__name__}",
        hint=OFFLINE if address.path is None else KINDS,
    )


def _last_list(text: str) -> str:
    """What stands in the last pair of square brackets."""
    found: list[str] = re.findall(r"\[([^\]]*)\]", text)
    return found[-1] if found else ""
