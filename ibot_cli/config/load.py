"""From defaults, preset, choices, file and command line to one checked configuration.

Later layers win: defaults < base < preset < chosen < `--config FILE` < `--set` < flags. Every problem of every layer is
collected and reported at once, with its dotted path, its value, where it was said and what is allowed there.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Required, TypedDict, TypeVar, Unpack, overload

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.layers import (
    Entry,
    State,
    apply,
    cross_check,
    file_entries,
    mapping_entries,
    preset_entries,
    set_entries,
)
from ibot_cli.config.problems import report
from ibot_cli.config.schema import Config
from ibot_cli.config.settings import format_value, sections, settings

C = TypeVar("C", Config, FinetuneConfig)


@dataclass(frozen=True)
class Resolution(Generic[C]):
    """A configuration and where each of its values was said.

    Args:
        config: The checked configuration.
        origin: Dotted path -> `default`, `preset NAME`, `chosen: REASON`, `file PATH`, `--set`, or a flag.
    """

    config: C
    origin: Mapping[str, str]


Resolved = Resolution[Config]


class Layers(TypedDict, total=False):
    """What is said about the settings, and by whom.

    Args:
        preset: Name of a preset.
        file: A YAML file, nested like the schema.
        sets: Texts `a.b=value`.
        chosen: Automatic choices: dotted path -> value and its reason.
        base: Values, nested or dotted, in place of the defaults; a saved run's configuration.
        base_origin: What the origin of a value of `base` is called; default `saved run`.
        flags: Values of command-line flags: dotted path -> value and the flag, for example `--device`.
        undecided: Settings that something else will decide later; no rule over several settings looks at them.
    """

    preset: Required[str | None]
    file: Required[Path | None]
    sets: Required[Sequence[str]]
    chosen: Mapping[str, tuple[Any, str]] | None
    base: Mapping[str, Any] | None
    base_origin: str
    flags: Mapping[str, tuple[Any, str]] | None
    undecided: Collection[str]


@overload
def resolve(**layers: Unpack[Layers]) -> Resolution[Config]: ...
@overload
def resolve(*, root: type[C], **layers: Unpack[Layers]) -> Resolution[C]: ...
def resolve(*, root: type[Any] = Config, **layers: Unpack[Layers]) -> Resolution[Any]:
    """The configuration that the layers give together.

    Args:
        root: The schema: `Config` of pre-training or `FinetuneConfig`.
        layers: See `Layers`.

    Raises:
        ConfigError: If anything is wrong; it lists every problem.
    """
    state = State(root)
    apply(state, mapping_entries(layers.get("base") or {}, layers.get("base_origin", "saved run"), {}, state))
    apply(state, preset_entries(layers["preset"], state))
    chosen = (layers.get("chosen") or {}).items()
    apply(state, [Entry(path, value, f"chosen: {why}", f"chosen: {why}") for path, (value, why) in chosen])
    apply(state, file_entries(layers["file"], state))
    apply(state, set_entries(layers["sets"], state))
    apply(state, [Entry(path, value, flag, flag) for path, (value, flag) in (layers.get("flags") or {}).items()])
    state.doubtful.update(layers.get("undecided", ()))
    cross_check(state)
    if state.problems:
        raise report(state.problems, root)
    return Resolution(_build(state.values, root), state.origin)


@overload
def from_mapping(mapping: Mapping[str, Any], origin: str) -> Config: ...
@overload
def from_mapping(mapping: Mapping[str, Any], origin: str, root: type[C]) -> C: ...
def from_mapping(mapping: Mapping[str, Any], origin: str, root: type[Any] = Config) -> Any:
    """The configuration of the schema `root` in `mapping`, nested or dotted; what it leaves out keeps its default.

    Raises:
        ConfigError: If anything in it is wrong; `origin` says there where it came from.
    """
    return resolve(root=root, preset=None, file=None, sets=(), base=mapping, base_origin=origin).config


def flatten(config: Config | FinetuneConfig) -> dict[str, Any]:
    """Dotted path -> plain value in the order of the schema; tuples become lists, None stays None."""
    values = _values(config)
    return {path: list(value) if isinstance(value, tuple) else value for path, value in values.items()}


def to_yaml(config: Config | FinetuneConfig) -> str:
    """The whole configuration as YAML; `from_mapping` of what PyYAML reads from it gives `config` exactly."""
    lines: list[str] = []
    for path, value in _values(config).items():
        section, _, name = path.partition(".")
        if f"{section}:" not in lines:
            lines.append(f"{section}:")
        lines.append(f"  {name}: {format_value(value)}")
    return "\n".join(lines) + "\n"


def differences(a: C, b: C) -> list[tuple[str, Any, Any]]:
    """The settings in which two configurations differ: dotted path, plain value in `a`, plain value in `b`."""
    left, right = flatten(a), flatten(b)
    return [(path, left[path], right[path]) for path in left if left[path] != right[path]]


def _values(config: Config | FinetuneConfig) -> dict[str, Any]:
    root: type = type(config)
    pairs = ((path, path.partition(".")) for path in settings(root))
    return {path: getattr(getattr(config, section), name) for path, (section, _, name) in pairs}


def _build(values: Mapping[str, Any], root: type) -> Any:
    inner: dict[str, dict[str, Any]] = {section: {} for section in sections(root)}
    for path, value in values.items():
        section, _, name = path.partition(".")
        inner[section][name] = value
    return root(**{section: schema(**inner[section]) for section, schema in sections(root).items()})
