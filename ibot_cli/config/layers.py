"""The layers of a configuration: what each one says, and one state that they are applied to in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ibot_cli.config import presets
from ibot_cli.config.document import read_document
from ibot_cli.config.kinds import KINDS, Kind, kind_of
from ibot_cli.config.problems import Problem, closest, closest_setting
from ibot_cli.config.settings import Setting, format_value, sections, settings


@dataclass(frozen=True)
class Entry:
    """One value that a layer gives.

    Args:
        path: Dotted path, known or not.
        raw: The value as it was said.
        origin: The layer, for example `--set`.
        place: The layer with its line, for messages.
    """

    path: str
    raw: Any
    origin: str
    place: str


@dataclass
class State:
    """The values so far and the problems found.

    Args:
        root: The schema.
        values: Dotted path -> value.
        origin: Dotted path -> layer that set it.
        place: Dotted path -> the same with its line, for messages.
        doubtful: Settings that no cross-check may look at, because what was said about them was not understood.
        complete: Whether every layer could be read.
        problems: In the order they were found.
    """

    root: type
    values: dict[str, Any] = field(init=False)
    origin: dict[str, str] = field(init=False)
    place: dict[str, str] = field(init=False)
    doubtful: set[str] = field(default_factory=set)
    complete: bool = True
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values = {path: leaf.default for path, leaf in settings(self.root).items()}
        self.origin = dict.fromkeys(self.values, "default")
        self.place = dict.fromkeys(self.values, "default")


def preset_entries(name: str | None, state: State) -> list[Entry]:
    """The values of the preset `name`; an unknown one, or one of another kind, is a problem of `state`."""
    if name is None:
        return []
    if problem := presets.unusable(name, kind_of(state.root), "--preset"):
        state.problems.append(problem)
        state.complete = False
        return []
    return mapping_entries(presets.load(name).tree, f"preset {name}", {}, state)


def file_entries(file: Path | None, state: State) -> list[Entry]:
    """The values in a YAML file; what cannot be read is a problem of `state`."""
    if file is None:
        return []
    document = read_document(file)
    state.problems += [Problem(what=f"file {file}", origin="--config", text=fault) for fault in document.faults]
    state.complete = state.complete and not document.faults
    return mapping_entries(document.tree, f"file {file}", document.lines, state)


def set_entries(sets: Sequence[str], state: State) -> list[Entry]:
    """The values of `--set` texts `a.b=value`."""
    entries = []
    for text in sets:
        path, equals, value = (part.strip() for part in text.partition("="))
        if equals and path:
            entries.append(Entry(path, value, "--set", "--set"))
            continue
        guess = closest_setting(path, state.root) if path else None
        example = f"{guess}=VALUE" if guess else "optim.lr=1e-3"
        what = text or "an empty text"
        state.problems.append(Problem(what=what, origin="--set", text=f"write PATH=VALUE, for example {example}"))
        state.doubtful.update({guess} if guess else ())
    return entries


def mapping_entries(tree: Mapping[str, Any], origin: str, lines: Mapping[str, int], state: State) -> list[Entry]:
    """The leaves of `tree`; an unknown section is one entry, so that it is told once and not per key."""

    def walk(node: Mapping[str, Any], above: str) -> Iterator[Entry]:
        for key, value in node.items():
            path = f"{above}.{key}" if above else str(key)
            if path in sections(state.root) and (value is None or isinstance(value, Mapping)):
                yield from walk(value or {}, path)
            else:
                yield Entry(path, value, origin, f"{origin}, line {lines[path]}" if path in lines else origin)

    entries = list(walk(tree, ""))
    seen: set[str] = set()
    for entry in entries:
        if entry.path in seen:
            state.problems.append(Problem(what=entry.path, origin=entry.place, text="it is given twice"))
        seen.add(entry.path)
    return entries


def apply(state: State, entries: Sequence[Entry]) -> None:
    """Let a layer overwrite the values of `state`."""
    for entry in entries:
        setting = settings(state.root).get(entry.path)
        if setting is None:
            state.problems.append(_unknown(entry, state))
            continue
        try:
            state.values[entry.path] = setting.read(entry.raw)
            state.doubtful.discard(entry.path)
        except ValueError as error:
            state.problems.append(_invalid(entry, setting, str(error)))
            state.doubtful.add(entry.path)
        state.origin[entry.path], state.place[entry.path] = entry.origin, entry.place


def _unknown(entry: Entry, state: State) -> Problem:
    known = sections(state.root)
    if entry.path in known:
        example = next(path for path in settings(state.root) if path.startswith(f"{entry.path}."))
        text = f"it is a section, not a setting; write for example {example}"
        return Problem(what=_said(entry), origin=entry.place, text=text)
    if (other := _other_kind(entry.path, state.root)) is not None:
        is_section = entry.path in sections(other.root)
        text = f"it belongs to {other.noun}; {kind_of(state.root).noun} has no such "
        text += "section" if is_section else "setting"
        return Problem(what=entry.path if is_section else _said(entry), origin=entry.place, text=text)
    if isinstance(entry.raw, Mapping):
        state.doubtful.update(settings(state.root))
        guess = closest(entry.path, list(known))
        way_out = f"did you mean {guess}?" if guess else f"the sections are {', '.join(known)}"
        text = f"there is no such section; {way_out}"
        return Problem(what=entry.path, origin=entry.place, text=text)
    guess = closest_setting(entry.path, state.root)
    if guess is None:
        return Problem(what=_said(entry), origin=entry.place, text="there is no such setting")
    state.doubtful.add(guess)
    meant = _meant(settings(state.root)[guess], entry.raw)
    return Problem(what=_said(entry), origin=entry.place, text=f"there is no such setting; {meant}")


def _other_kind(path: str, root: type) -> Kind | None:
    """The other kind of configuration that knows `path`, a section or a setting."""
    others = (kind for kind in KINDS if kind.root is not root)
    return next((kind for kind in others if path in settings(kind.root) or path in sections(kind.root)), None)


def _meant(guess: Setting, raw: Any) -> str:
    try:
        guess.read(raw)
    except ValueError:
        return f"did you mean {guess.path}? It must be {guess.allowed}"
    return f"did you mean {guess.path}?"


def _invalid(entry: Entry, setting: Setting, detail: str) -> Problem:
    text = f"must be {setting.allowed}" + (f"; {detail}" if detail else "")
    if setting.choices and isinstance(entry.raw, str):
        guess = closest(entry.raw, [str(choice) for choice in setting.choices])
        text += f"; did you mean {guess}?" if guess else ""
    return Problem(what=_said(entry), origin=entry.place, text=text)


def _said(entry: Entry) -> str:
    raw = entry.raw
    if isinstance(raw, str) and (not raw or raw != raw.strip() or "\n" in raw):
        raw = repr(raw)
    text = "null" if raw is None else format_value(raw)
    return f"{entry.path} = {text if len(text) <= 80 else text[:77] + '...'}"


def cross_check(state: State) -> None:
    """Add what settings violate together, unless a layer is missing and would only cause echoes."""
    if not state.complete:
        return
    for check in kind_of(state.root).checks:
        if state.doubtful.isdisjoint(check.reads):
            for path, text in check.find(state.values):
                what = f"{path} = {format_value(state.values[path])}"
                state.problems.append(Problem(what=what, origin=state.place[path], text=text))
