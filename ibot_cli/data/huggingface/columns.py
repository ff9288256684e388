"""Which columns of a table hold the images and their classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ibot_cli.data.huggingface.address import Address
from ibot_cli.data.scan import natural_key
from ibot_cli.errors import DataError

LABEL_NAMES = ("label", "labels", "class")
Features = Mapping[str, Any]
"""Types of `datasets` by column."""


def image_column(address: Address, features: Features) -> str:
    """The column with the images.

    Raises:
        DataError: There is none, there are several and none is named, or a column that is named is not there.
    """
    missing = [name for name in address.columns if name not in features]
    if missing:
        raise DataError(f"{address.shown} has no column {missing[0]}.", hint=f"Columns: {', '.join(features)}.")
    named = [name for name in address.columns if may_hold_images(features[name])]
    found = named or [name for name, kind in features.items() if _kind(kind) == "Image"]
    if len(found) == 1:
        return found[0]
    if not found:
        kinds = ", ".join(f"{name} ({describe(kind)})" for name, kind in features.items())
        raise DataError(
            f"{address.shown} has no column of images: {kinds}.",
            hint=f"A column of encoded images without that type can be named: {address.shown}[COLUMN].",
        )
    raise DataError(
        f"{address.shown} has several columns of images: {', '.join(found)}.",
        hint=f"Name the one to use: {address.shown}[{found[0]}].",
    )


def label_column(address: Address, features: Features) -> tuple[str | None, str | None]:
    """The column with the classes or None, and what to tell the user about the choice or None."""
    named = [name for name in address.columns if not may_hold_images(features[name])]
    if named:
        return named[0], None
    found = [name for name, kind in features.items() if _kind(kind) == "ClassLabel"]
    if len(found) == 1:
        return found[0], None
    among = found or [name for name, kind in features.items() if _is_class(kind)]
    for name in LABEL_NAMES:
        if name in among:
            return name, None
    if found:
        return None, f"Several columns of classes ({', '.join(found)}), none used: name one in {address.shown}[COLUMN]."
    return None, None


def class_numbers(
    tables: Mapping[str, Any], column: str, chosen: Sequence[str]
) -> tuple[NDArray[np.int64] | None, list[str] | None, str | None]:
    """Labels of the chosen splits, the class names of all splits, and what to tell the user.

    Labels are None where an image of the chosen splits has none (`null`, or -1 in a test part whose classes are kept
    secret), where they are no numbers or names, or with fewer than two classes.
    """
    kind = next(table.features[column] for table in tables.values() if column in table.features)
    values = {name: _values(table, column) for name, table in tables.items()}
    wanted = [value for name in chosen for value in values[name]]
    if any(value is None or value == -1 for value in wanted):
        return None, None, f"Not every image has a {column}: the classes are not used."
    if not all(isinstance(value, int | str) for value in wanted):
        return None, None, f"The column {column} holds neither numbers nor names: it is not used."
    if _kind(kind) == "ClassLabel":
        return np.array(wanted, dtype=np.int64), list(kind.names), None
    every = {value for column_values in values.values() for value in column_values if isinstance(value, int | str)}
    classes = sorted({str(value) for value in every}, key=natural_key)
    if len(classes) < 2:
        return None, None, None
    number = {name: place for place, name in enumerate(classes)}
    return np.array([number[str(value)] for value in wanted], dtype=np.int64), classes, None


def may_hold_images(kind: Any) -> bool:
    """Whether images can be in a column of this type, if the user says so."""
    stored = getattr(kind, "dtype", None) in ("binary", "large_binary")
    return _kind(kind) == "Image" or stored or (isinstance(kind, Mapping) and set(kind) == {"bytes", "path"})


def describe(kind: Any) -> str:
    """A column's type in a word."""
    name = _kind(kind)
    return str(kind.dtype) if name == "Value" else ("a structure" if isinstance(kind, Mapping) else name)


def _kind(kind: Any) -> str:
    return type(kind).__name__


def _is_class(kind: Any) -> bool:
    """Whether the values are whole numbers or text."""
    dtype = str(getattr(kind, "dtype", ""))
    return _kind(kind) == "Value" and (dtype.startswith(("int", "uint")) or dtype in ("string", "large_string"))


def _values(table: Any, column: str) -> list[Any]:
    if column not in table.features:
        return [None] * len(table)
    content = table.select_columns([column]).with_format("arrow")[:]
    return content.column(column).to_pylist()  # type: ignore[no-any-return]
