"""DATA as the user names it: a folder, a list, a CSV file, tar shards, a Hugging Face or an embedded data set."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from ibot_cli.data.csv_list import is_csv, open_csv
from ibot_cli.data.decode import MODES, PixelFormat
from ibot_cli.data.digits import DigitsSource
from ibot_cli.data.files import FileSource, Split, no_test_split
from ibot_cli.data.folders import open_folder
from ibot_cli.data.formats.jpeg import require_decoder
from ibot_cli.data.huggingface.source import open_huggingface
from ibot_cli.data.indexing.file_states import data_fingerprint
from ibot_cli.data.lists import open_list
from ibot_cli.data.missing import not_there, permitted, unknown_builtin
from ibot_cli.data.photos import PhotosSource
from ibot_cli.data.picture import Encoded, Picture
from ibot_cli.data.scan import EXTENSIONS
from ibot_cli.data.shards.names import find_shards
from ibot_cli.data.shards.source import open_shards
from ibot_cli.errors import DataError

__all__ = ["FileSource", "Source", "Split", "Subset", "data_fingerprint", "known_fingerprint", "open_source"]

BUILTINS: dict[str, Callable[..., DigitsSource | PhotosSource]] = {"digits": DigitsSource, "photos": PhotosSource}


class Source(Protocol):
    """Images by index, with labels where the data have them."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def labels(self) -> np.ndarray | None:
        """Class of each image, int64 `[n]`, or None."""

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes, or None."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over what identifies the data."""

    @property
    def notes(self) -> list[str]:
        """What the user should know about how the data were read, as sentences."""

    def __len__(self) -> int: ...

    def open(self, index: int) -> Picture:
        """The picture.

        Raises:
            UnreadableImage: With the path and the reason. Damaged pixels show when they are asked for.
        """

    def levels(self, index: int) -> np.ndarray:
        """The pixels of a picture for a network: `open(index).levels()`.

        Raises:
            UnreadableImage: With the path and the reason.
        """

    def read(self, index: int) -> Image.Image:
        """A picture for people, mode `L` or `RGB`: `open(index).image()`.

        Raises:
            UnreadableImage: With the path and the reason.
        """

    def encoded(self, index: int) -> Encoded | None:
        """The stored file, or None for embedded data.

        Raises:
            UnreadableImage: It cannot be read.
        """

    def path(self, index: int) -> str:
        """Where the image is, for messages."""


def known_fingerprint(source: Source) -> str:
    """The fingerprint, for those who read each image that they use; see `FileSource.known_fingerprint`."""
    return source.known_fingerprint if isinstance(source, FileSource) else source.fingerprint


class Subset:
    """Some images of another source, in the given order.

    Args:
        source: The other source.
        indices: int64, positions in it.
        name: What people call it; default the source's name.
    """

    def __init__(self, source: Source, indices: np.ndarray, name: str | None = None) -> None:
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        self.name = name or source.name
        self.labels = None if source.labels is None else source.labels[self._indices]
        self.classes = source.classes
        self.notes = source.notes

    def __len__(self) -> int:
        return len(self._indices)

    def open(self, index: int) -> Picture:
        """The picture; see `Source`."""
        return self._source.open(int(self._indices[index]))

    def levels(self, index: int) -> np.ndarray:
        """The pixels for a network; see `Source`."""
        return self._source.levels(int(self._indices[index]))

    def read(self, index: int) -> Image.Image:
        """The picture for people; see `Source`."""
        return self._source.read(int(self._indices[index]))

    def encoded(self, index: int) -> Encoded | None:
        """The stored file; see `Source`."""
        return self._source.encoded(int(self._indices[index]))

    def path(self, index: int) -> str:
        """Where the image is."""
        return self._source.path(int(self._indices[index]))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the other source's fingerprint and the indices."""
        return hashlib.sha256(self._source.fingerprint.encode() + self._indices.tobytes()).hexdigest()


def open_source(data: str, *, channels: int, bits: int = 8, decoder: str = "auto", split: Split = "train") -> Source:
    """Open DATA.

    Args:
        data: A folder, a text file of paths, a CSV file, tar shards, `hf:...`, `builtin:digits` or `builtin:photos`.
        channels: Of the images; they are converted to 1 or 3, and of other numbers they must have exactly so many.
        bits: Of a level; see `PixelFormat`.
        decoder: What decodes image files; see `PixelFormat`.
        split: Which part, where the data say so themselves: an embedded set, a folder with `train/` and `val/` or
            `test/`, tar shards with such names, a CSV file with a column `split`. Data without a split are all `train`.

    Raises:
        DataError: Nothing there, no image in it, not a list, an unknown builtin, no test part, no permission, or
            the decoder is not installed.
    """
    require_decoder(decoder)
    pixels = PixelFormat(channels=channels, bits=bits, decoder=decoder)
    if data.startswith("builtin:"):
        return _open_builtin(data.removeprefix("builtin:"), pixels, split)
    if data.startswith("hf:"):
        return open_huggingface(data, pixels=pixels, split=split)
    with permitted(data):
        return _open_place(data, pixels, split)


def _open_place(data: str, pixels: PixelFormat, split: Split) -> Source:
    path = Path(data).expanduser()
    if path.is_dir():
        _refuse_run(data, path)
    if find_shards(data) is not None:
        return open_shards(data, pixels=pixels, split=split)
    if not path.exists():
        raise not_there(data, path, tuple(BUILTINS))
    return (
        open_folder(path, data, pixels=pixels, split=split) if path.is_dir() else _open_file(path, data, pixels, split)
    )


def _open_file(path: Path, data: str, pixels: PixelFormat, split: Split) -> Source:
    if path.suffix.lower().lstrip(".") in EXTENSIONS:
        raise DataError(f"{data} is a single image.", hint="Give the folder that holds it, or a text file of paths.")
    if is_csv(path):
        return open_csv(path, data, pixels=pixels, split=split)
    if split == "test":
        raise no_test_split(data)
    return open_list(path, data, pixels=pixels)


def _open_builtin(name: str, pixels: PixelFormat, split: Split) -> Source:
    if name not in BUILTINS:
        raise unknown_builtin(name, tuple(BUILTINS))
    if pixels.bits != 8:
        raise DataError(
            f"builtin:{name} has images of 8 bits, not of {pixels.bits}.",
            hint="Set data.bits=8, or name images of your own.",
        )
    if pixels.channels not in MODES:
        raise DataError(
            f"builtin:{name} has images of 1 or 3 channels, not of {pixels.channels}.",
            hint="Set data.channels=1 or 3, or name images of your own.",
        )
    return BUILTINS[name](channels=pixels.channels, split=split)


def _refuse_run(data: str, path: Path) -> None:
    """The figures of a run are images too, but nobody means them."""
    if (path / "config.yaml").is_file() and (path / "checkpoints").is_dir():
        raise DataError(
            f"{data} is a run, not a folder of images.",
            hint=f"Name its images, as {path / 'data.json'} does; its recipe for other images is --config "
            f"{path / 'config.yaml'}.",
        )
