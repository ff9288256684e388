"""Pictures at the size at which they are shown."""

from __future__ import annotations

from PIL import Image

_SHARP = 2  # a picture that is enlarged by as much keeps its pixels


def scaled(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at another size; a small one is enlarged without blur.

    Args:
        image: Any mode.
        size: Width and height of the result, in the image's shape or nearly so.

    Returns:
        Mode `RGB`.
    """
    image = image.convert("RGB")
    factor = max(size[0] / image.width, size[1] / image.height)
    if factor < _SHARP:
        return image.resize(size, Image.Resampling.LANCZOS)
    # to whole multiples first, which keeps every pixel a sharp square, then down to what was asked for
    times = -int(-factor // 1)
    image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    return image.resize(size, Image.Resampling.BOX)
