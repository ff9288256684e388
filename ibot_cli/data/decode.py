"""From the bytes of an image file to an 8-bit grey or RGB image.

What the formats become:

- Transparency is dropped over the stored colours, as torchvision's default loader does with `convert("RGB")`.
- The EXIF orientation is applied. Of an animation the first frame counts.
- 16-bit grey is scaled by 65535. 32-bit integers are scaled by 65535 when they come from PNG or PNM (16 bits by
  definition), else by the first of 255 and 65535 that holds them, else by their own minimum and maximum. Floats
  likewise, with 1.0 tried first. Nothing is clipped.
- A truncated file is unreadable: half an image is never used silently.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

ORIENTATION_TAG = 0x0112
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MODES = {1: "L", 3: "RGB"}


class UnreadableImage(Exception):
    """One image that cannot be used.

    Args:
        path: The file, as shown to people.
        reason: Why, as the end of a sentence that starts with the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True)
class Decoded:
    """An image as the network's loader sees it, and how it was stored.

    Attributes:
        image: Mode `L` or `RGB`, upright.
        stored_mode: Pillow's mode of the file, such as `P` or `I;16`.
    """

    image: Image.Image
    stored_mode: str


def decode_file(path: Path, channels: int) -> Decoded:
    """Read and convert one file.

    Args:
        path: The file.
        channels: 1 for grey, 3 for RGB.

    Raises:
        UnreadableImage: Missing, empty, truncated, not an image, or too large.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(str(path), f"cannot be read ({error.strerror or error})") from error
    return decode_bytes(content, str(path), channels)


def decode_bytes(content: bytes, path: str, channels: int) -> Decoded:
    """As `decode_file`, from memory; `path` is for messages only."""
    try:
        # Pillow warns about large images, broken EXIF and palette transparency; what matters of it becomes a reason.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode(content, channels)
    except Exception as error:  # damaged files make Pillow's plugins raise nearly anything
        raise UnreadableImage(path, _reason(content, error)) from error


def _decode(content: bytes, channels: int) -> Decoded:
    with Image.open(io.BytesIO(content)) as image:
        tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            image.load()
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
        return Decoded(_upright(to_mode(image, channels), image), image.mode)


def _upright(converted: Image.Image, original: Image.Image) -> Image.Image:
    """Turn `converted` as the EXIF data of `original` say; damaged EXIF data say nothing."""
    try:
        orientation = original.getexif().get(ORIENTATION_TAG)
    except Exception:  # EXIF comes from cameras and editors in every state of disrepair; the pixels are fine
        return converted
    turn = TRANSPOSES.get(orientation) if isinstance(orientation, int) else None
    return converted if turn is None else converted.transpose(turn)


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """The image as 8-bit `L` (1 channel) or `RGB` (3)."""
    mode = MODES[channels]
    if image.mode == mode:
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        image = Image.fromarray(_to_8_bit(image))
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode not in ("1", "L", "P", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == mode else image.convert(mode)


def _to_8_bit(image: Image.Image) -> np.ndarray:
    """Grey levels of a 16- or 32-bit image, uint8 `[H, W]`."""
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    low, high = _value_range(values, image)
    return np.rint((values - low) * (255.0 / (high - low))).astype(np.uint8)


def _value_range(values: np.ndarray, image: Image.Image) -> tuple[float, float]:
    """The values that become 0 and 255."""
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or image.format in ("PNG", "PPM"):
        return 0.0, 65535.0
    ends = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    for end in ends:
        if low >= 0 and high <= end:
            return 0.0, end
    return low, high if high > low else low + 1


def _reason(content: bytes, error: Exception) -> str:
    """Why the file is of no use, in words."""
    head = content[:512].lstrip().lower()
    if not content:
        return "the file is empty"
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page (HTML), not an image"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; `git lfs pull` fetches the image"
    if isinstance(error, UnidentifiedImageError):
        return "not an image, or in a format that Pillow does not know"
    if isinstance(error, Image.DecompressionBombError):
        return "too large: more pixels than Pillow accepts as safe"
    text = str(error).split("\n")[0].strip() or type(error).__name__
    return f"damaged ({text})"
