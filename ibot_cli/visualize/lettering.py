"""Text on pictures: cut and wrapped to a width, in characters that the font has."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
_ELLIPSIS = "…"
_UNKNOWN = "\uffff"  # a code point without a glyph in any font


def wrapped(text: str, font: Font, width: int) -> tuple[str, ...]:
    """Lines that fit, broken between words; a word that does not fit by itself is cut."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(cut(word, font, width))
    return tuple(lines)


def cut(text: str, font: Font, width: int) -> str:
    """The text on one line, or as much of it as fits before an ellipsis; line breaks and tabs become spaces."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(kept + _ELLIPSIS) > width:
        kept = kept[:-1]
    return kept.rstrip() + _ELLIPSIS


def drawable(text: str) -> str:
    """The text in characters that the font has: accents are dropped where they must, the rest becomes `?`."""
    if text.isascii():
        return text
    return "".join(character if _has_glyph(character) else _plainer(character) for character in text)


def _plainer(character: str) -> str:
    parts = unicodedata.normalize("NFKD", character.replace("ß", "ss"))
    return "".join(part for part in parts if part.isascii()) or "?"


@cache
def _has_glyph(character: str) -> bool:
    if character.isascii():
        return True
    font = ImageFont.load_default(24)
    return bytes(font.getmask(character)) != bytes(font.getmask(_UNKNOWN))


def line_height(font: Font) -> int:
    """Pixels from one line to the next."""
    _, top, _, bottom = font.getbbox("Agj|")
    return round((bottom - top) * 1.25)


def short_name(path: str) -> str:
    """What people are shown of the path of an image: its file name, or what an embedded data set calls it."""
    if path.startswith("builtin:"):
        return path.partition("/")[2] or path
    return Path(path).name
