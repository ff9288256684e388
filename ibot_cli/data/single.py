"""Image files that are named one by one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes, read_content
from ibot_cli.data.scan import EXTENSIONS
from ibot_cli.errors import DataError


def is_image_file(place: str) -> bool:
    """Whether it names one image, by its ending."""
    return Path(place).suffix.lower().lstrip(".") in EXTENSIONS and not Path(place).expanduser().is_dir()


def read_levels(path: str, channels: int, bits: int = 8) -> np.ndarray:
    """The pixels of a file, uint8 or uint16 `[H, W, C]`.

    Args:
        path: The file.
        channels: C.
        bits: Of a level.

    Raises:
        DataError: It cannot be read.
    """
    try:
        pixels = PixelFormat(channels=channels, bits=bits)
        return open_bytes(read_content(Path(path).expanduser()), path, pixels).levels()
    except UnreadableImage as error:
        raise DataError(f"{path}: {error.reason}.", "Name an image file, such as a .jpg or .png.") from error
