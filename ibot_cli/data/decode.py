"""From the bytes of an image file to the levels that a network sees, and to a picture for people.

What the formats become:

- One channel is grey, three are RGB, 8 bits deep; the files are converted. For any other number of channels a file has
  to have exactly so many (`ibot_cli.data.formats.bands`); 16 bits keep the levels of deep files.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ibot_cli.data.formats.bands import WrongChannelsError, bands_of, displayable, to_channels, to_levels
from ibot_cli.data.formats.jpeg import decode_jpeg
from ibot_cli.data.formats.tiff import TiffImage, is_tiff, upright
from ibot_cli.data.formats.tiff_picture import TiffPicture, hidden_bands, place_in_stack
from ibot_cli.data.picture import Picture, PixelFormat, UnreadableImage
from ibot_cli.data.shards.member import member_content

__all__ = ["MODES", "FilePicture", "PixelFormat", "UnreadableImage", "open_bytes", "read_content", "to_mode"]

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
ORIENTATIONS = {turn: number for number, turn in TRANSPOSES.items()}
SIDEWAYS = (TRANSPOSES[5], TRANSPOSES[6], TRANSPOSES[7], TRANSPOSES[8])
PNG_TURNS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")
JPEGS = ("JPEG", "MPO")
BLOCK = 8
MODES = {1: "L", 3: "RGB"}


def read_content(path: Path, shown: str | None = None) -> bytes:
    """The bytes of a file.

    Args:
        path: The file, or a member of a tar file as people are shown it (`shard.tar/name.jpg`).
        shown: How messages name it; default its path.

    Raises:
        UnreadableImage: Missing, a folder, or it may not be read.
    """
    try:
        try:
            return path.read_bytes()
        except NotADirectoryError:
            return member_content(path)
    except OSError as error:
        raise UnreadableImage(shown or str(path), f"cannot be read ({error.strerror or error})") from error


def open_bytes(content: bytes, path: str, pixels: PixelFormat) -> Picture:
    """A picture from the bytes of a file; its pixels are decoded when they are asked for.

    Args:
        content: Of the file.
        path: For messages only.
        pixels: What it becomes.

    Raises:
        UnreadableImage: Empty, not an image, or too large; or damaged, when the pixels are asked for.
    """
    if not pixels.plain and is_tiff(content):
        picture = TiffPicture(content, path, pixels)
        if picture.deep or pixels.channels not in MODES:
            return picture
    return FilePicture(content, path, pixels)


class FilePicture:
    """A picture in a file format that Pillow knows.

    Args:
        content: Of the file.
        path: For messages only.
        pixels: What it becomes.

    Raises:
        UnreadableImage: Empty, not an image, or too large.
    """

    def __init__(self, content: bytes, path: str, pixels: PixelFormat) -> None:
        self._content = content
        self._path = path
        self._pixels = pixels
        with self._explained():
            header = Image.open(io.BytesIO(content))
            if bands := hidden_bands(header):
                raise WrongChannelsError(bands, pixels.channels)
            self.stored_mode = header.mode + place_in_stack(content)
            self._turn = _turn(header, content)
        self.format = header.format or ""
        width, height = header.size
        self.size = (height, width) if self._turn in SIDEWAYS else (width, height)
        self._header: Image.Image | None = header

    @property
    def shrinks(self) -> bool:
        """Whether the format has a decoder that gives smaller images for less work.

        The pixels of a smaller image begin where those of the stored one do, so one that is turned afterwards must
        consist of whole blocks.
        """
        suitable = min(self.size) >= BLOCK and (self._turn is None or not any(side % BLOCK for side in self.size))
        return self.format in JPEGS and self._pixels.plain and suitable

    def levels(self, shrink: int = 1) -> np.ndarray:
        """The pixels; see `ibot_cli.data.picture.Picture`."""
        if not self._pixels.plain:
            return self._bands()
        values = self._quick() if shrink == 1 or not self.shrinks else None
        if values is None:
            values = np.asarray(self._decoded(shrink))
        return values if values.ndim == 3 else values[..., None]

    def image(self) -> Image.Image:
        """The whole picture for people, upright; see `ibot_cli.data.formats.bands.displayable`."""
        return self._decoded() if self._pixels.plain else displayable(self._bands())

    def _quick(self) -> np.ndarray | None:
        """The levels by torchcodec, or None when that is not there, is no faster, or cannot read the file."""
        as_stored = self._turn is None and self.stored_mode == MODES[self._pixels.channels]
        if self.format not in JPEGS or self._pixels.decoder == "pillow" or not as_stored:
            return None
        return decode_jpeg(self._content, self.stored_mode)

    def _decoded(self, shrink: int = 1) -> Image.Image:
        with self._loaded(shrink) as image:
            return self._finished(image)

    def _finished(self, image: Image.Image) -> Image.Image:
        converted = to_mode(image, self._pixels.channels)
        return converted if self._turn is None else converted.transpose(self._turn)

    def _bands(self) -> np.ndarray:
        """Levels of other channels than Pillow has modes for, or of 16 bits."""
        with self._loaded() as image:
            shown = image.convert("RGB") if image.mode == "CMYK" and self._pixels.channels in MODES else image
            values, top, alpha = bands_of(shown, self._content)
            levels = to_channels(to_levels(values, self._pixels.bits, top), self._pixels.channels, alpha=alpha)
            return levels if self._turn is None else np.ascontiguousarray(upright(levels, ORIENTATIONS[self._turn]))

    @contextmanager
    def _loaded(self, shrink: int = 1) -> Iterator[Image.Image]:
        with self._explained(), self._opened() as image:
            if shrink > 1 and self.shrinks:
                # Pillow takes the power of 2 that leaves at least this; the sides become ceil(side / shrink)
                image.draft(None, (image.width // shrink, image.height // shrink))
            _load(image)
            yield image

    def _opened(self) -> Image.Image:
        """The file with its header read; decoding uses it up."""
        header, self._header = self._header, None
        return header or Image.open(io.BytesIO(self._content))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Inside, Pillow's warnings are silent, and its errors become reasons."""
        try:
            # Pillow warns about large images, broken EXIF and palette transparency; what matters becomes a reason.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:  # damaged files make Pillow's plugins raise nearly anything
            raise UnreadableImage(self._path, _reason(self._content, self._pixels, error)) from error


def _load(image: Image.Image) -> None:
    """Decode the pixels; a truncated file is an error whatever others told Pillow."""
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        image.load()
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant


def _turn(image: Image.Image, content: bytes) -> Image.Transpose | None:
    """How the decoded image is turned upright, as its EXIF data say."""
    if image.format == "PNG":
        if not any(mark in content for mark in PNG_TURNS):
            return None
        _load(image)  # EXIF data may lie behind the pixels
    turn = _told_turn(image)
    if turn is not None and image.format == "TIFF":
        _load(image)  # which turns it already, in some versions of Pillow
        turn = _told_turn(image)
    return turn


def _told_turn(image: Image.Image) -> Image.Transpose | None:
    """What the EXIF data ask for; damaged ones say nothing."""
    try:
        orientation = image.getexif().get(ORIENTATION_TAG)
    except Exception:  # EXIF comes from cameras and editors in every state of disrepair; the pixels are fine
        return None
    return TRANSPOSES.get(orientation) if isinstance(orientation, int) else None


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


def _reason(content: bytes, pixels: PixelFormat, error: Exception) -> str:
    """Why the file is of no use, in words."""
    head = content[:512].lstrip().lower()
    if not content:
        return "the file is empty"
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page (HTML), not an image"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; `git lfs pull` fetches the image"
    if isinstance(error, WrongChannelsError | ModuleNotFoundError):
        return str(error)
    if isinstance(error, UnidentifiedImageError):
        return _reason_of_tiff(content, pixels) or "not an image, or in a format that Pillow does not know"
    if isinstance(error, Image.DecompressionBombError):
        return "too large: more pixels than Pillow accepts as safe"
    text = str(error).split("\n")[0].strip() or type(error).__name__
    return f"damaged ({text})"


def _reason_of_tiff(content: bytes, pixels: PixelFormat) -> str | None:
    """Why Pillow does not know a TIFF file, where it is one of many bands or of deep numbers."""
    try:
        file = TiffImage(content) if is_tiff(content) else None
    except (ValueError, ModuleNotFoundError):
        return None
    if file is None:
        return None
    if file.bands not in MODES:
        return str(WrongChannelsError(file.bands, pixels.channels))
    return f"Pillow does not read its numbers, {file.kind} x {file.bands}; data.bits = 16 does" if file.deep else None
