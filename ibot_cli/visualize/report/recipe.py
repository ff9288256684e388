"""From which preset a run's settings came, and who changed the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibot_cli.config import presets
from ibot_cli.config.load import flatten, from_mapping, resolve
from ibot_cli.config.schema import Config
from ibot_cli.errors import ConfigError
from ibot_cli.train.choices import SMALL_SET, automatic_choices, continued_choices
from ibot_cli.train.finetune.request import DEMO_DATA, DEMO_PRESET, SMALL_PRESET
from ibot_cli.train.request import Request
from ibot_cli.visualize.report.command_line import CommandLine, began
from ibot_cli.visualize.report.record import RunRecord

DECIDED = "decided when the run began"
_FLAGS = {
    "--device": "runtime.device",
    "--workers": "runtime.workers",
    "--label-fraction": "labels.fraction",
    "--labels-per-class": "labels.per_class",
}


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting of the run that is not the preset's."""

    path: str
    preset: Any
    value: Any
    source: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a run's settings came about.

    Attributes:
        preset: Its name; None where it is not known.
        why: How it is known.
        changes: The settings that differ from it, in the order of the schema.
        values: Every setting of the run.
        sources: Where the preset's own values come from, by path.
    """

    preset: str | None
    why: str
    changes: tuple[Change, ...]
    values: Mapping[str, Any]
    sources: Mapping[str, str]


def recipe_of(run: RunRecord) -> Recipe | None:
    """The preset and the changes; None where the settings cannot be read.

    The command that began the run names the preset, or it follows from the data as it did then. Who changed a setting
    is known where the same layers give the same value again.
    """
    if run.config is None:
        return None
    line = began(run)
    name, why = _preset(run, line)
    values = flatten(run.config)
    if name is None:
        return Recipe(preset=None, why=why, changes=(), values=values, sources={})
    root: type[Any] = type(run.config)
    base = flatten(resolve(root=root, preset=name, file=None, sets=()).config)
    said = _layers(run, line, name, root)
    changes = tuple(
        Change(path=path, preset=base[path], value=value, source=_source(path, value, said))
        for path, value in values.items()
        if value != base[path]
    )
    return Recipe(preset=name, why=why, changes=changes, values=values, sources=presets.load(name).sources)


def _preset(run: RunRecord, line: CommandLine | None) -> tuple[str | None, str]:
    if line is not None and line.preset is not None:
        if presets.unusable(line.preset) is None:
            return line.preset, "named with --preset"
        return None, f"The preset {line.preset} is not one of this version."
    if line is None:
        return None, "env.json does not say which command began the run, so its preset is not known."
    data = str(run.data.get("data", ""))
    if run.task == "finetune":
        if data == DEMO_DATA:
            return DEMO_PRESET, "made for these images"
        if (run.data.get("num_images") or 0) < SMALL_SET:
            return SMALL_PRESET, "what `ibot finetune` takes for small sets"
        return None, "No preset was named, and which one a large set gets depends on the network."
    request = Request(data=data, init=weights_of(run))
    if own := request.recipe():
        return own, "made for these images"
    return request.base(), "what `ibot pretrain` begins with" + (" from weights" if request.continues() else "")


def _layers(run: RunRecord, line: CommandLine | None, name: str, root: type[Any]) -> dict[str, tuple[Any, str]]:
    """What each layer would give a new run: path -> value and origin; nothing where the layers do not go together."""
    if line is None:
        return {}
    file = Path(line.config) if line.config is not None else None
    flags = {path: (line.flags[flag], flag) for flag, path in _FLAGS.items() if flag in line.flags}
    if "--init" in line.flags:  # typed from another place, perhaps
        flags["init.weights"] = (weights_of(run) or line.flags["--init"], "--init")
    flags = {path: entry for path, entry in flags.items() if path in flatten(root())}
    try:
        layers: dict[str, Any] = {
            "root": root, "preset": name, "sets": line.sets, "flags": flags,
            "file": file if file is None or file.is_file() else None,
        }  # fmt: skip
        found = resolve(**layers)
        chosen = _choices(run, found, line)
        found = resolve(**layers, chosen=chosen) if chosen else found
    except ConfigError:
        return {}
    values = flatten(found.config)
    return {path: (values[path], origin) for path, origin in found.origin.items()}


def _choices(run: RunRecord, found: Any, line: CommandLine) -> dict[str, tuple[Any, str]]:
    """What a pre-training without a preset of its own chose for the size of its set."""
    images = run.data.get("num_images")
    if not isinstance(found.config, Config) or line.preset is not None or not isinstance(images, int):
        return {}
    if Request(data=str(run.data.get("data", ""))).recipe() is not None:
        return {}
    said = found.origin["train.epochs"].startswith(("preset", "default"))
    epochs = "auto" if said else found.config.train.epochs
    by_size = automatic_choices if weights_of(run) is None else continued_choices
    return by_size(images, from_mapping({"train": {"epochs": epochs}}, "choices"))


def weights_of(run: RunRecord) -> str | None:
    """The weights that a pre-training went on from; None for random ones."""
    found = (run.data.get("init") or {}).get("weights")
    return None if found is None else str(found)


def _source(path: str, value: Any, said: Mapping[str, tuple[Any, str]]) -> str:
    expected, origin = said.get(path, (None, ""))
    if not origin or expected != value or origin.startswith(("preset", "default")):
        return DECIDED
    return origin.removeprefix("chosen: ")
