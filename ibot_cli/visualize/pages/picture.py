"""Images inside a page, as `data:` URIs."""

from __future__ import annotations

import base64
import io

from PIL import Image

SHARP_UP_TO = 128  # of the longer side: up to it every pixel counts, and without loss costs little


def inline_image(
    image: Image.Image, *, longest: int | None = None, quality: int = 82, sharp_up_to: int = SHARP_UP_TO
) -> str:
    """A `data:` URI for the `src` of an `<img>`.

    Small images (`sharp_up_to`) are stored without loss and should be shown with the class `sharp`, which enlarges
    without blur; all others as WebP.

    Args:
        image: Of any mode.
        longest: Largest longer side in pixels; a larger image is made smaller, none is enlarged.
        quality: Of WebP, 0 to 100.
        sharp_up_to: Longer side in pixels up to which nothing is lost; a page of many images affords less.

    Raises:
        ValueError: `longest` or the image has no extent.
    """
    if longest is not None and longest < 1:
        raise ValueError(f"an image of {longest} pixels")
    image = _displayable(image)
    longer = max(image.size)
    if longest is not None and longer > longest:
        size = (max(1, round(image.width * longest / longer)), max(1, round(image.height * longest / longer)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    if max(image.size) <= sharp_up_to:
        kinds = (
            ("image/png", _saved(image, "PNG", optimize=True)),
            ("image/webp", _saved(image, "WEBP", lossless=True)),
        )
        mime, content = min(kinds, key=lambda kind: len(kind[1]))
    else:
        mime, content = "image/webp", _saved(image, "WEBP", quality=quality, method=4)
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def _displayable(image: Image.Image) -> Image.Image:
    """In a mode that both formats hold; metadata, which may tell of places and people, stays behind."""
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    plain = image.convert(mode) if image.mode != mode else image.copy()
    plain.info = {}
    return plain


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, format=kind, **options)
    return content.getvalue()
