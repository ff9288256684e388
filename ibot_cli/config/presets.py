"""Presets: named recipes in YAML that hold only what differs from the defaults, each value with its source.

A preset file has `title`, `about`, `values` (nested like the schema), `sources` (dotted path -> where the value
comes from) and `unknown` (dotted path -> what is not published and what was assumed). A path in `unknown` need not be
in `values`: then the default was assumed. What a preset is for, its name says: `finetune_...` is for fine-tuning, every
other name for pre-training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibot_cli.config.document import read_document
from ibot_cli.config.kinds import Kind, kind_of_preset
from ibot_cli.config.problems import Problem, closest, report
from ibot_cli.config.settings import settings

PACKAGE = Path(__file__).parent.parent
FILE_KEYS = ("title", "about", "values", "sources", "unknown")
FIRST = ("ibot_", "dino_")  # the order of the list: iBOT, then its relatives, then the rest, then fine-tuning


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named recipe.

    Args:
        name: The name of its file without `.yaml`.
        kind: What it is a recipe for.
        title: One line.
        about: A few sentences: what it reproduces and what to know before using it.
        tree: The values as the file nests them, scalars as text.
        values: The values by dotted path, read by the declared type.
        sources: Where each value comes from, by dotted path.
        unknown: What is not published and what was assumed, by dotted path.
    """

    name: str
    kind: Kind
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


def names(kind: Kind | None = None) -> list[str]:
    """The names of the presets of one kind, or of all, iBOT first and fine-tuning last."""
    found = [path.stem for path in directory().glob("*.yaml")]
    rank = {prefix: position for position, prefix in enumerate(FIRST)}
    ordered = sorted(
        found, key=lambda name: (kind_of_preset(name).prefix, rank.get(name.split("_")[0] + "_", len(rank)), name)
    )
    return [name for name in ordered if kind in (None, kind_of_preset(name))]


def unusable(name: str, kind: Kind | None = None, origin: str = "") -> Problem | None:
    """The problem that there is no preset of this name, or that it is of another kind; None if it can be used.

    Args:
        name: What was asked for.
        kind: What it has to be a recipe for; None takes any.
        origin: Where it was said.
    """
    own = kind_of_preset(name)
    if name not in names():
        guess = closest(name, names(kind)) or closest(name, names())
        text = "there is no preset of this name; "
        text += f"did you mean {guess}?" if guess else f"there are {', '.join(names(kind))}"
    elif kind not in (None, own):
        text = f"it is a recipe for `{own.command}`; `{kind.command}` takes {', '.join(names(kind))}"
    else:
        return None
    return Problem(what=f"preset {name}", origin=origin, text=text)


def load(name: str) -> Preset:
    """The preset `name`.

    Raises:
        ConfigError: If there is no such preset, or its file is broken.
    """
    if problem := unusable(name):
        raise report([problem])
    document = read_document(directory() / f"{name}.yaml")
    unknown_keys = [f"{key} is not a part of a preset" for key in document.tree if key not in FILE_KEYS]
    if faults := [*document.faults, *unknown_keys]:
        raise report([Problem(what=f"preset {name}", origin=f"{name}.yaml", text=fault) for fault in faults])
    tree = document.tree.get("values") or {}
    kind = kind_of_preset(name)
    return Preset(
        name=name,
        kind=kind,
        title=document.tree["title"],
        about=" ".join(document.tree["about"].split()),
        tree=tree,
        values=_read(tree, kind),
        sources={path: " ".join(text.split()) for path, text in (document.tree.get("sources") or {}).items()},
        unknown={path: " ".join(text.split()) for path, text in (document.tree.get("unknown") or {}).items()},
    )


def diff(a: str, b: str) -> list[tuple[str, Any, Any]]:
    """The settings in which the presets `a` and `b` differ: dotted path, value in `a`, value in `b`.

    Raises:
        ConfigError: If either does not exist, both being named, or if they are of different kinds.
    """
    if missing := [problem for name in (a, b) if (problem := unusable(name))]:
        raise report(missing)
    left, right = load(a), load(b)
    if left.kind is not right.kind:
        text = f"it is for {left.kind.noun} and {b} for {right.kind.noun}, so there is nothing to compare"
        raise report([Problem(what=f"preset {a}", origin="", text=text)])
    leaves = settings(left.kind.root).items()
    pairs = ((p, left.values.get(p, leaf.default), right.values.get(p, leaf.default)) for p, leaf in leaves)
    return [(path, one, other) for path, one, other in pairs if one != other]


def _read(tree: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Typed values by dotted path; what is not valid is left to `resolve`, which reports it with its place."""
    values: dict[str, Any] = {}
    for path, leaf in settings(kind.root).items():
        section, _, name = path.partition(".")
        if name in (tree.get(section) or {}):
            try:
                values[path] = leaf.read(tree[section][name])
            except ValueError:
                continue
    return values
