"""Presets: named recipes in YAML that hold only what differs from the defaults, each value with its source.

A preset file has `title`, `about`, `values` (nested like the schema), `sources` (dotted path -> where the value
comes from) and `unknown` (dotted path -> what is not published and what was assumed). A path in `unknown` need not be
in `values`: then the default was assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibot_cli.config.document import read_document
from ibot_cli.config.problems import Problem, closest, report
from ibot_cli.config.settings import settings

PACKAGE = Path(__file__).parent.parent
FILE_KEYS = ("title", "about", "values", "sources", "unknown")
FIRST = ("ibot_", "dino_")  # the order of the list: iBOT, then its relatives, then the rest


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named recipe.

    Args:
        name: The name of its file without `.yaml`.
        title: One line.
        about: A few sentences: what it reproduces and what to know before using it.
        tree: The values as the file nests them, scalars as text.
        values: The values by dotted path, read by the declared type.
        sources: Where each value comes from, by dotted path.
        unknown: What is not published and what was assumed, by dotted path.
    """

    name: str
    title: str
    about: str
    tree: Mapping[str, Any]
    values: Mapping[str, Any]
    sources: Mapping[str, str]
    unknown: Mapping[str, str]


def directory() -> Path:
    """The folder of the presets: inside the installed package, or beside it in a checkout."""
    packaged = PACKAGE / "_presets"
    return packaged if packaged.is_dir() else PACKAGE.parent / "presets"


def names() -> list[str]:
    """The names of all presets, iBOT first."""
    found = sorted(path.stem for path in directory().glob("*.yaml"))
    rank = {prefix: position for position, prefix in enumerate(FIRST)}
    return sorted(found, key=lambda name: (rank.get(name.split("_")[0] + "_", len(rank)), name))


def unknown_name(name: str, origin: str = "") -> Problem:
    """The problem that there is no preset of this name, with the name that was probably meant."""
    guess = closest(name, names())
    meant = f"; did you mean {guess}?" if guess else f"; there are {', '.join(names())}"
    return Problem(what=f"preset {name}", origin=origin, text=f"there is no preset of this name{meant}")


def load(name: str) -> Preset:
    """The preset `name`.

    Raises:
        ConfigError: If there is no such preset, or its file is broken.
    """
    if name not in names():
        raise report([unknown_name(name)])
    document = read_document(directory() / f"{name}.yaml")
    unknown_keys = [f"{key} is not a part of a preset" for key in document.tree if key not in FILE_KEYS]
    if faults := [*document.faults, *unknown_keys]:
        raise report([Problem(what=f"preset {name}", origin=f"{name}.yaml", text=fault) for fault in faults])
    tree = document.tree.get("values") or {}
    return Preset(
        name=name,
        title=document.tree["title"],
        about=" ".join(document.tree["about"].split()),
        tree=tree,
        values=_read(tree),
        sources={path: " ".join(text.split()) for path, text in (document.tree.get("sources") or {}).items()},
        unknown={path: " ".join(text.split()) for path, text in (document.tree.get("unknown") or {}).items()},
    )


def diff(a: str, b: str) -> list[tuple[str, Any, Any]]:
    """The settings in which the presets `a` and `b` differ: dotted path, value in `a`, value in `b`.

    Raises:
        ConfigError: If either does not exist; both are named.
    """
    if missing := [unknown_name(name) for name in (a, b) if name not in names()]:
        raise report(missing)
    left, right = load(a).values, load(b).values
    pairs = ((path, left.get(path, leaf.default), right.get(path, leaf.default)) for path, leaf in settings().items())
    return [(path, one, other) for path, one, other in pairs if one != other]


def _read(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Typed values by dotted path; what is not valid is left to `resolve`, which reports it with its place."""
    values: dict[str, Any] = {}
    for path, leaf in settings().items():
        section, _, name = path.partition(".")
        if name in (tree.get(section) or {}):
            try:
                values[path] = leaf.read(tree[section][name])
            except ValueError:
                continue
    return values
