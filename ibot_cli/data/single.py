"""Image files that are named one by one."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes, read_content
from ibot_cli.data.scan import EXTENSIONS
from ibot_cli.errors import DataError


def is_image_file(place: str) -> bool:
    """Whether it names one image, by its ending."""
    return Path(place).suffix.lower().lstrip(".") in EXTENSIONS and not Path(place).expanduser().is_dir()


def read_image(path: str, channels: int) -> Image.Image:
    """The image of a file, mode `L` or `RGB`.

    Args:
        path: The file.
        channels: 1 or 3.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return open_bytes(read_content(Path(path).expanduser()), path, PixelFormat(channels=channels)).image()
    except UnreadableImage as error:
        raise DataError(f"{path}: {error.reason}.", "Name an image file, such as a .jpg or .png.") from error
