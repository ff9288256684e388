"""What a pack is to be."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ibot_cli.errors import UsageError

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmg]i?)?b?", re.IGNORECASE)
LEAST_SHARD = 10_000


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What a pack is to be; the same options and the same images give the same bytes.

    Attributes:
        copy: Whether every stored file keeps its bytes.
        short_side: Otherwise the longest that the shorter side of an image may be, in pixels.
        quality: Of JPEG, 1 to 100.
        shard_bytes: A shard is closed before it would be longer; an image larger than that has one of its own.
    """

    copy: bool = False
    short_side: int = 320
    quality: int = 92
    shard_bytes: int = 500_000_000


def parse_size(text: str) -> int:
    """Bytes of a size such as `500MB`, `1GiB` or `2000000`.

    Raises:
        UsageError: It is no size, or too small for a shard.
    """
    found = SIZE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"--shard-size {text} is not a size.", "Write for example --shard-size 500MB or 1GB.")
    size = round(float(found.group(1)) * UNITS[(found.group(2) or "").lower()])
    if size < LEAST_SHARD:
        raise UsageError(
            f"--shard-size {text} is too small for a shard.", "Write for example --shard-size 500MB or 1GB."
        )
    return size
