"""Command lines: what the one that began a run said, and those that repeat it and its evaluations."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ibot_cli.evaluate.linear.grid import PUBLISHED_RATES
from ibot_cli.visualize.report.record import RunRecord

_SWITCHES = frozenset({"--resume", "--dry-run", "--json", "--no-baselines", "--from-scratch", "--partial"})
_NAMES = {"poolings": "pooling"}  # recorded under another name than the option's
_ALWAYS = object()  # what it is when it is left out depends on the network
# What an option of an evaluation is when it is left out, by recorded name.
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "knn-eval": {
        "k": [10, 20, 100, 200], "temperature": [0.07], "checkpoints": None, "exclude_duplicates": False,
        "precision": "fp32", "which": "teacher", "seed": 0, "baselines": True, "heads": None, "partial": False,
    },
    "linear-probe": {
        "solver": "sgd", "poolings": _ALWAYS, "lrs": list(PUBLISHED_RATES), "all_optimizers": False, "epochs": 100,
        "batch_size": 128, "holdout": 0.1, "seed": 0, "augment": False, "flip": _ALWAYS, "precision": "fp32",
        "which": "teacher", "heads": None, "partial": False, "baselines": True,
    },
    "cluster": {
        "k": None, "split": "auto", "which": "teacher", "heads": None, "partial": False, "baselines": True,
        "restarts": 10, "spherical": True, "standardize": True, "seed": 0, "precision": "fp32",
    },
    "retrieve": {
        "k": 10, "pooling": "cls", "split": "auto", "precision": "fp32", "which": "teacher", "heads": None,
        "partial": False, "baselines": True,
    },
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CommandLine:
    """The options that decide settings.

    Attributes:
        preset: `--preset`.
        config: `--config`.
        sets: `--set`, in order.
        flags: Other options with a value, by name.
        text: The whole, as it would be typed.
    """

    preset: str | None
    config: str | None
    sets: tuple[str, ...]
    flags: Mapping[str, str]
    text: str


def began(run: RunRecord) -> CommandLine | None:
    """What was typed to begin the run; None where it is not known."""
    words = run.environment.get("command")
    if not isinstance(words, list) or run.task not in words[:2]:
        return None
    words = [str(word) for word in words[words.index(run.task) :]]
    options = list(_options(words[1:]))
    named = dict(options)
    return CommandLine(
        preset=named.pop("--preset", None),
        config=named.pop("--config", None),
        sets=tuple(value for name, value in options if name == "--set"),
        flags={name: value for name, value in named.items() if name != "--set"},
        text=shlex.join(["ibot", *words]),
    )


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if word.startswith("--") and word not in _SWITCHES:
            yield name, value if equals else next(rest, "")


def again(run: RunRecord) -> str:
    """What trains the same again, from the run's own settings."""
    data = str(run.data.get("data", "DATA"))
    words = ["ibot", run.task, data, "--config", str(run.path / "config.yaml"), "--out", f"{run.path}-again"]
    if run.task == "finetune":
        origin = run.data.get("origin") or {}
        words.insert(2, str(origin.get("weights", "WEIGHTS")))
        words += ["--heads", str(origin["heads"])] if origin.get("heads") else []
        words += ["--which", "student"] if origin.get("which") == "student" else []
        words += ["--partial"] if origin.get("partial") else []
    return shlex.join(words)


def evaluations(run: RunRecord) -> list[str]:
    """What measures everything again that was measured, each once, in the order of the records."""
    found = []
    for record in run.evaluations:
        defaults = DEFAULTS.get(str(record["command"]))
        if defaults is None:
            continue
        weights = str(run.path)
        if str(record.get("weights", "")).endswith(".pt") and record.get("checkpoint"):
            weights = str(run.path / "checkpoints" / record["checkpoint"])
        words = ["ibot", str(record["command"]), weights, str(record.get("data"))]
        found.append(shlex.join([*words, *_changed(record.get("settings") or {}, defaults)]))
    return list(dict.fromkeys(found))


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        if name not in defaults or value == defaults[name]:
            continue
        option = f"--{_NAMES.get(name, name).replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        elif value is not None:
            words += [option, ",".join(map(_word, value)) if isinstance(value, list) else _word(value)]
    return words


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
