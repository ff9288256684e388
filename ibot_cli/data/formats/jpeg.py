"""JPEG files by torchcodec, where it is installed: the same levels as Pillow's, in less time.

Both decode with libjpeg-turbo, and torchcodec writes the levels once where Pillow unpacks, copies and packs them. On
files of 14 kinds (baseline and progressive, 4:4:4 to 4:2:0, grey, CMYK, restart markers, with EXIF data, 48 x 48 to
2560 x 1708 pixels) all levels were equal. With the header read by Pillow in both cases, colour files of 500 x 375 and
more took Pillow 1.1 to 1.6 times as long, small and grey ones as long. Files that have to be turned or converted go to
Pillow: for them torchcodec is no faster. So does what it refuses, because Pillow says why a file is of no use;
truncated files are errors in both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from ibot_cli.errors import DataError

INSTALL = "pip install 'ibot-cli[fast]' installs torchcodec; --set data.decoder=pillow gives equal levels without it."
SCAN, APP1, APP15 = 0xDA, 0xE1, 0xEF
Decode = Callable[..., Any]
TAKEN = ("L", "RGB")


def require_decoder(decoder: str) -> None:
    """Check that what a configuration asks for is there.

    Args:
        decoder: `auto`, `pillow` or `torchcodec`.

    Raises:
        DataError: torchcodec is asked for and cannot be imported.
        ValueError: Another word.
    """
    if decoder not in ("auto", "pillow", "torchcodec"):
        raise ValueError(f"there is no decoder {decoder!r}")
    found = _torchcodec() if decoder == "torchcodec" else None
    if isinstance(found, str):
        raise DataError(f"data.decoder=torchcodec, but torchcodec cannot be imported ({found}).", hint=INSTALL)


def decoder_in_use(decoder: str = "auto") -> str:
    """What decodes JPEG files here, with its version: `torchcodec 0.17.0` or `pillow 12.0.0`."""
    name = usual_decoder() if decoder == "auto" else decoder
    return f"{name} {version(name)}"


def usual_decoder() -> Literal["pillow", "torchcodec"]:
    """The decoder that `auto` stands for on this machine."""
    return "pillow" if isinstance(_torchcodec(), str) else "torchcodec"


def decode_jpeg(content: bytes, mode: str) -> np.ndarray | None:
    """The levels of a whole JPEG file as they are stored, neither turned nor converted.

    Args:
        content: Of the file.
        mode: Pillow's mode of it.

    Returns:
        uint8 `[H, W]` for mode `L`, `[H, W, 3]` for `RGB`; None when torchcodec is not there, does not take this mode,
        or refuses the file.
    """
    found = _torchcodec()
    if isinstance(found, str) or mode not in TAKEN:
        return None
    try:
        levels = found(_without_exif(content), mode="UNCHANGED")
    except Exception:  # Pillow finds out what is wrong, or decodes it after all
        return None
    values: np.ndarray = levels.permute(1, 2, 0).numpy()
    return values[..., 0] if mode == "L" else values


def _without_exif(content: bytes) -> bytes:
    """The file with its EXIF data under another name, or torchcodec would turn the image by its own reading of them."""
    changed, place = None, 2
    while content[place] == 0xFF and content[place + 1] != SCAN:
        if content[place + 1] == APP1:
            changed = changed or bytearray(content)
            changed[place + 1] = APP15
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return content if changed is None else bytes(changed)


@cache
def _torchcodec() -> Decode | str:
    """torchcodec's decoder, or why it cannot be had."""
    try:
        from torchcodec.decoders import decode_jpeg
    except Exception as error:  # a build for another torch fails in ways of its own; before 0.16 there is no such name
        return str(error).split("\n")[0].strip() or type(error).__name__
    found: Decode = decode_jpeg
    return found
