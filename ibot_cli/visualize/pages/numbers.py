"""Numbers and times as people read them; `count`, `number` and `percent` are filters of the templates."""

from __future__ import annotations

import math
from datetime import UTC, datetime

NOTHING = "–"


def count(value: float | None) -> str:
    """A whole number with separators of thousands."""
    return NOTHING if _missing(value) else f"{value:,.0f}"


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` places; very small and very large ones in powers of ten."""
    if value is None or _missing(value):
        return NOTHING
    if value and not 10.0**-digits <= abs(value) < 1e6:
        return f"{value:.{max(digits - 1, 0)}e}"
    return f"{value:,.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage."""
    return NOTHING if _missing(value) else f"{value:.{digits}%}"


def megabytes(value: float | None) -> str:
    """A number of bytes in MB (a million bytes)."""
    return NOTHING if value is None or _missing(value) else f"{value / 1e6:,.1f} MB"


def moment(time: datetime | str | None) -> str:
    """A time in UTC to the minute; of a text in ISO format."""
    try:
        known = datetime.fromisoformat(time) if isinstance(time, str) else time
    except ValueError:
        return str(time)
    return NOTHING if known is None else f"{known.astimezone(UTC):%Y-%m-%d %H:%M}"


def _missing(value: float | None) -> bool:
    return value is None or not math.isfinite(value)
