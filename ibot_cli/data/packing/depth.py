"""Which files hold more than an 8-bit grey or colour image, so that re-encoding them would lose it."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes
from ibot_cli.data.formats.tiff import TiffImage, is_tiff
from ibot_cli.data.formats.tiff_picture import hidden_bands

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
PNG_BITS = 24  # where a PNG file says how many bits a level has
PLAIN_TIFF = ("1", "L", "P", "RGB")


def is_deep(content: bytes) -> bool:
    """Whether a file has levels of more than 8 bits, or is a TIFF of other than 1 or 3 bands; judged by its header."""
    if content[:8] == PNG_MAGIC:
        return content[PNG_BITS : PNG_BITS + 1] == b"\x10"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content)) as image:
                if image.format == "TIFF":
                    several = hidden_bands(image) is not None or getattr(image, "n_frames", 1) > 1
                    return several or image.mode not in PLAIN_TIFF
                return image.mode.startswith(("I", "F"))
    except Exception:  # Pillow does not know the TIFF files of more than four bands
        return is_tiff(content)


def check_deep(content: bytes, path: str) -> None:
    """Decode such a file, so that a damaged one is found; without tifffile, as far as Pillow can.

    Raises:
        UnreadableImage: With the path and the reason.
    """
    if not is_tiff(content):
        open_bytes(content, path, PixelFormat(channels=3)).levels()
        return
    try:
        TiffImage(content).values()
    except ModuleNotFoundError:
        open_bytes(content, path, PixelFormat(channels=3)).levels()
    except ValueError as error:
        raise UnreadableImage(path, str(error)) from error
