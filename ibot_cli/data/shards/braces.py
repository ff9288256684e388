"""Braces in a name: `{000000..000012}` and `{a,b}`, nested at will, for shells that leave them alone."""

from __future__ import annotations

import re

from ibot_cli.errors import DataError

LIMIT = 1_000_000
RANGE = re.compile(r"(\d+)\.\.(\d+)(?:\.\.(\d+))?")


def expanded(text: str) -> list[str]:
    """All names that the text stands for, in the order in which bash gives them.

    Braces without a comma or a range in them stay, as do those in a set of characters (`[{]`).

    Raises:
        DataError: They stand for more than a million names.
    """
    start = _opening(text)
    if start is None:
        return [text]
    stop, options = _options(text, start)
    rests = expanded(text[stop + 1 :])
    middles = _middles(options, text[start + 1 : stop])
    if len(middles) * len(rests) > LIMIT:
        raise _too_many(text)
    return [text[:start] + middle + rest for middle in middles for rest in rests]


def _opening(text: str) -> int | None:
    """Where the first brace opens that is closed again and in no set of characters."""
    for found in re.finditer(r"\[[{}]\]|\{", text):
        if found.group() == "{" and _options(text, found.start())[0] >= 0:
            return found.start()
    return None


def _options(text: str, start: int) -> tuple[int, list[str]]:
    """Where the brace closes (-1: nowhere), and what its commas separate."""
    depth, begin, options = 0, start + 1, []
    for place in range(start, len(text)):
        character = text[place]
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0 or (depth == 1 and character == ","):
            options.append(text[begin:place])
            begin = place + 1
        if depth == 0:
            return place, options
    return -1, options


def _middles(options: list[str], inside: str) -> list[str]:
    if len(options) > 1:
        return [name for option in options for name in expanded(option)]
    numbers = RANGE.fullmatch(inside)
    return ["{" + name + "}" for name in expanded(inside)] if numbers is None else _numbers(numbers)


def _numbers(found: re.Match[str]) -> list[str]:
    """The numbers of a range, padded with zeros where one of its ends is."""
    first, last = found.group(1), found.group(2)
    step = max(int(found.group(3) or 1), 1)
    if abs(int(last) - int(first)) // step >= LIMIT:
        raise _too_many(found.group())
    padded = any(end.startswith("0") and len(end) > 1 for end in (first, last))
    width = max(len(first), len(last)) if padded else 1
    up = int(first) <= int(last)
    numbers = range(int(first), int(last) + 1, step) if up else range(int(first), int(last) - 1, -step)
    return [f"{number:0{width}d}" for number in numbers]


def _too_many(text: str) -> DataError:
    return DataError(f"{text} stands for more than {LIMIT:,} names.", hint="Give a range of the files that there are.")
