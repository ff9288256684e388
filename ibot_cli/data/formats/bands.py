"""Levels of images with any number of channels, 8 or 16 bits deep, and what people are shown of them.

Shapes: H, W pixels, B bands of a file, C channels of the network.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_BITS, PNG_COLOUR = 24, 25  # places in the file; PNG colour type 0 is grey and 3 a palette
INSTALL = "pip install 'ibot-cli[tiff]'"
GREY_WEIGHTS = (299, 587, 114)
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SHOWN_SHARES = (0.5, 99.5)


class WrongChannelsError(ValueError):
    """An image has another number of channels than the network sees; the text is the reason, for people."""

    def __init__(self, found: int, wanted: int) -> None:
        has = f"{found} channel{'s' if found != 1 else ''}"
        super().__init__(f"it has {has}, the network sees {wanted} (data.channels)")


def to_levels(values: np.ndarray, bits: int, top: int | None) -> np.ndarray:
    """Numbers of a file as levels from 0 to 2^bits - 1; nothing is clipped.

    Args:
        values: Any numbers, of any shape.
        bits: 8 or 16.
        top: What becomes the largest level; None for numbers that do not say it: the first of 1 (real numbers only),
            255 and 65535 that holds them, else the smallest and the largest of them become the ends.

    Returns:
        uint8 or uint16.

    Raises:
        ValueError: Values are not finite.
    """
    dtype = np.dtype(f"uint{bits}")
    most = 2**bits - 1
    if top == most:
        return values.astype(dtype, copy=False)
    if top == 255 and bits == 16:
        widened: np.ndarray = values.astype(dtype) * np.uint16(257)
        return widened
    low, high = (0.0, float(top)) if top is not None else _ends(values)
    levels: np.ndarray = np.rint((values.astype(np.float64) - low) * (most / (high - low))).astype(dtype)
    return levels


def _ends(values: np.ndarray) -> tuple[float, float]:
    if not np.isfinite(values).all():
        raise ValueError("it holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    for end in (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (255.0, 65535.0):
        if low >= 0 and high <= end:
            return 0.0, end
    return low, high if high > low else low + 1


def bands_of(image: Image.Image, content: bytes) -> tuple[np.ndarray, int | None, bool]:
    """The bands of a loaded Pillow image in the numbers of its file.

    Args:
        image: Any mode; a palette becomes its colours.
        content: The file, which Pillow does not read in full depth where it is a colour PNG of 16 bits.

    Returns:
        `[H, W, B]`, the `top` of `to_levels`, and whether the last band is transparency.

    Raises:
        ModuleNotFoundError: A colour PNG of 16 bits without the package that reads it.
    """
    if content.startswith(PNG_SIGNATURE) and content[PNG_BITS] == 16 and content[PNG_COLOUR] != 0:
        values, top = _deep_png(content), 65535
        return values, top, values.shape[2] in (2, 4)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode in ("La", "RGBa"):
        image = image.convert(image.mode.upper())
    elif image.mode in ("1", "PA", "YCbCr", "LAB", "HSV", "RGBX"):
        image = image.convert({"1": "L", "PA": "RGBA"}.get(image.mode, "RGB"))
    values = np.asarray(image)
    deep = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    known = 65535 if deep else None if image.mode in ("I", "F") else 255
    return values if values.ndim == 3 else values[..., None], known, image.mode in ("LA", "RGBA")


def _deep_png(content: bytes) -> np.ndarray:
    """uint16 `[H, W, B]`."""
    try:
        import imagecodecs
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"a colour PNG of 16 bits is read with imagecodecs: {INSTALL}") from error
    values = np.asarray(imagecodecs.png_decode(content))
    return values if values.ndim == 3 else values[..., None]


def to_channels(levels: np.ndarray, channels: int, *, alpha: bool = False) -> np.ndarray:
    """The channels that a network sees.

    Grey becomes colour by repetition, and colour grey by the weights of luma, as Pillow does it; a network that sees
    grey or colour does not see transparency. Every other difference is an error: no band is dropped silently.

    Args:
        levels: uint8 or uint16 `[H, W, B]`.
        channels: C.
        alpha: Whether the last band is transparency.

    Returns:
        `[H, W, C]` of the same type, C-contiguous.

    Raises:
        WrongChannelsError: The image has another number of channels.
    """
    found = levels.shape[2]
    if found == channels:
        return np.ascontiguousarray(levels)
    if channels in (1, 3) and alpha and found > 1:
        return to_channels(levels[..., :-1], channels)
    if (found, channels) == (1, 3):
        return np.repeat(levels, 3, axis=2)
    if (found, channels) == (3, 1):
        weighted = levels.astype(np.uint32) @ np.array(GREY_WEIGHTS, dtype=np.uint32)
        return ((weighted + 500) // 1000).astype(levels.dtype)[..., None]
    raise WrongChannelsError(found, channels)


def resized_levels(levels: np.ndarray, width: int, height: int, filter: str = "bicubic") -> np.ndarray:
    """The image at another size, with antialiasing.

    Pillow resizes grey and colour of 8 bits; torch, with the same filter, what Pillow has no mode for.

    Args:
        levels: uint8 or uint16 `[H, W, C]`.
        width: Of the result in pixels.
        height: Likewise.
        filter: `bicubic` or `bilinear`.

    Returns:
        `[height, width, C]` of the same type.
    """
    if levels.shape[:2] == (height, width):
        return levels
    if levels.dtype == np.uint8 and levels.shape[2] in (1, 3):
        image = Image.fromarray(levels if levels.shape[2] == 3 else levels[..., 0])
        resized = np.asarray(image.resize((width, height), FILTERS[filter]))
        return resized if resized.ndim == 3 else resized[..., None]
    values = torch.from_numpy(levels.astype(np.float32)).permute(2, 0, 1)[None]
    values = interpolate(values, (height, width), mode=filter, antialias=True)[0].permute(1, 2, 0)
    most = np.iinfo(levels.dtype).max
    return np.ascontiguousarray(values.round_().clamp_(0, most).numpy().astype(levels.dtype))


def displayable(levels: np.ndarray) -> Image.Image:
    """A picture for people from the levels of a network.

    One or two channels are shown as grey, of which the first counts; of three or more the first three are red, green
    and blue. Levels of 16 bits are stretched per image, all channels alike: those that 0.5 % of the values lie below
    and above become black and white. Microscopes that use 12 of 16 bits would show black otherwise.

    Args:
        levels: uint8 or uint16 `[H, W, C]`.

    Returns:
        Mode `L` or `RGB`, 8 bits.
    """
    shown = levels[..., :3] if levels.shape[2] >= 3 else levels[..., 0]
    if shown.dtype == np.uint16:
        low, high = np.percentile(shown, SHOWN_SHARES)
        shown = np.clip((shown.astype(np.float32) - low) * (255 / max(high - low, 1)), 0, 255).round().astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(shown))
