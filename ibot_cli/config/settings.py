"""The schema as a flat table: one `Setting` per dotted path, which knows what it allows and how to read it.

Values arrive as text (the command line, YAML scalars) or as plain Python values (a saved run); both are read by the
declared type, so that `1e-3`, which PyYAML takes for a string, is a number where a number is declared.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ibot_cli.config.schema import Config

AUTO_WORDS = frozenset({"auto", "none", "null", "~"})
BOOL_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One leaf of the schema.

    Args:
        path: Dotted path, for example `optim.lr`.
        kind: Type of the value, or of each entry of a tuple.
        default: The schema's default.
        help: One sentence for people.
        unit: What the number counts, or "".
        choices: The allowed values of a `Literal`, else empty.
        is_tuple: Whether the value is a tuple of `kind`.
        length: Number of entries of a tuple, None for any number from 1 on.
        auto: Whether `auto` (None) is allowed.
        low: Smallest allowed value.
        high: Largest allowed value.
        above: Exclusive lower bound.
    """

    path: str
    kind: type
    default: Any
    help: str
    unit: str
    choices: tuple[Any, ...]
    is_tuple: bool
    length: int | None
    auto: bool
    low: float | None
    high: float | None
    above: float | None

    @property
    def allowed(self) -> str:
        """What the setting takes, in words: `a whole number >= 0, or auto`."""
        if self.choices:
            words = "one of " + ", ".join(str(choice) for choice in self.choices)
        elif self.is_tuple:
            count = "one or more numbers" if self.length is None else f"{self.length} numbers"
            words = count + (f", each {self.bounds}" if self.bounds else "")
        else:
            noun = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[self.kind]
            words = f"{noun} {self.bounds}".rstrip()
        return f"{words}, or auto" if self.auto else words

    @property
    def bounds(self) -> str:
        """The bounds in signs: `> 0 and <= 1`, or "" without any."""
        signs = ((">", self.above), (">=", self.low), ("<=", self.high))
        return " and ".join(f"{sign} {format_value(bound)}" for sign, bound in signs if bound is not None)

    def read(self, raw: object) -> Any:
        """The value that `raw` stands for, in the declared type.

        Raises:
            ValueError: If `raw` is no such value; the text is empty or adds something to `allowed`.
        """
        if self.auto and (raw is None or (isinstance(raw, str) and raw.strip().lower() in AUTO_WORDS)):
            return None
        if self.choices:
            return self._read_choice(raw)
        if not self.is_tuple:
            return self._read_one(raw)
        values = tuple(self._read_one(entry) for entry in _entries(raw))
        if not values or (self.length is not None and len(values) != self.length):
            raise ValueError(f"it has {len(values)} " + ("entry" if len(values) == 1 else "entries"))
        return values

    def _read_choice(self, raw: object) -> Any:
        for choice in self.choices:
            if not isinstance(raw, bool) and str(raw).strip() == str(choice):
                return choice
        raise ValueError("")

    def _read_one(self, raw: object) -> Any:
        value = _READERS[self.kind](raw)
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = self.low is not None and value < self.low
            high = self.high is not None and value > self.high
            above = self.above is not None and value <= self.above
            if low or high or above:
                raise ValueError("")
        return value


def _entries(raw: object) -> Sequence[object]:
    if isinstance(raw, str):
        text = raw.strip()
        if text.startswith("[") and text.endswith("]"):
            text = text[1:-1]
        return text.rstrip(", ").split(",")
    return raw if isinstance(raw, list | tuple) else [raw]


def _read_bool(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lower() in BOOL_WORDS:
        return BOOL_WORDS[raw.strip().lower()]
    raise ValueError("")


def _read_float(raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        raise ValueError("")
    try:
        value = float(raw)
    except (ValueError, OverflowError):
        raise ValueError("") from None
    if not math.isfinite(value):
        raise ValueError("it is not finite")
    return value


def _read_int(raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    if isinstance(raw, str) and raw.strip().lstrip("+-").isdecimal() and len(raw) < 20:
        return int(raw)
    value = _read_float(raw)
    if not value.is_integer():
        raise ValueError("")
    return int(value)


def _read_str(raw: object) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("")
    return raw.strip()


_READERS: Mapping[type, Callable[[object], Any]] = {
    bool: _read_bool,
    int: _read_int,
    float: _read_float,
    str: _read_str,
}


def format_value(value: Any) -> str:
    """`value` as YAML writes it, so that PyYAML and `Setting.read` get it back exactly.

    PyYAML takes a float without a dot (`1e-06`) for a string; it is written `1.0e-06`.
    """
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(format_value(entry) for entry in value) + "]"
    if isinstance(value, float):
        mantissa, sign, exponent = repr(value).partition("e")
        return mantissa + (".0" if sign and "." not in mantissa else "") + sign + exponent
    return str(value)


def readable(value: Any) -> str:
    """`value` for people: as in YAML, but `1e-06` without the dot that only PyYAML needs."""
    return format_value(value).replace(".0e", "e")


@cache
def settings(root: type = Config) -> Mapping[str, Setting]:
    """Every leaf of the schema `root` by its dotted path, in the order of the schema."""
    return types.MappingProxyType(
        {
            f"{section}.{leaf.name}": _setting(f"{section}.{leaf.name}", leaf, get_type_hints(schema)[leaf.name])
            for section, schema in sections(root).items()
            for leaf in fields(schema)
        }
    )


@cache
def sections(root: type = Config) -> Mapping[str, type]:
    """The sections of the schema `root` by name, with their dataclasses."""
    return types.MappingProxyType(get_type_hints(root))


def _setting(path: str, leaf: Field[Any], hint: Any) -> Setting:
    if get_origin(hint) in (types.UnionType, Union):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    choices: tuple[Any, ...] = get_args(hint) if get_origin(hint) is Literal else ()
    is_tuple = get_origin(hint) is tuple
    parts = get_args(hint) if is_tuple else ()
    kind = type(choices[0]) if choices else parts[0] if parts else hint
    if kind not in _READERS or leaf.default is MISSING:
        raise TypeError(f"{path}: the schema declares something that `read` does not know: {hint}.")
    metadata = leaf.metadata
    return Setting(
        path=path,
        kind=kind,
        default=leaf.default,
        help=metadata["help"],
        unit=metadata["unit"],
        choices=choices,
        is_tuple=is_tuple,
        length=len(parts) if is_tuple and Ellipsis not in parts else None,
        auto=metadata["auto"],
        low=metadata["low"],
        high=metadata["high"],
        above=metadata["above"],
    )
