"""Everything that a run directory says about its run, read without changing it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import from_mapping
from ibot_cli.config.schema import Config
from ibot_cli.errors import IBotError, RunError
from ibot_cli.quantities import counted
from ibot_cli.runs.checkpoint import paths
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.evaluations import read_evaluations
from ibot_cli.visualize.report.metrics import RunMetrics, read_metrics

Task = Literal["pretrain", "finetune"]
# What entries of the small files are; others are only shown.
_KINDS: Mapping[str, type] = {
    "num_images": int, "num_holdout": int, "num_test": int, "classes": list, "notes": list, "origin": dict,
    "packages": dict, "devices": list, "command": list, "time": str, "files": dict,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A saved state of the run.

    Attributes:
        name: Of its file.
        step: Updates done.
        size: In bytes.
        time: When it was written.
    """

    name: str
    step: int
    size: int
    time: datetime


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as it is on the disk.

    Attributes:
        path: The directory, as it was named.
        name: Its last part.
        task: The command that made it.
        config: Its settings; None where this version cannot read them.
        config_text: The file that holds them.
        data: What `data.json` says; empty without.
        environment: What `env.json` says; empty without.
        resumes: The same each time that the run went on, with the `step`; oldest first.
        metrics: What was recorded while it trained.
        evaluations: Records of evaluations, oldest first.
        bad_files: Reason by path of the images that could not be read.
        checkpoints: Oldest first.
        problems: What could not be read, as sentences.
    """

    path: Path
    name: str
    task: Task
    config: Config | FinetuneConfig | None
    config_text: str
    data: Mapping[str, Any]
    environment: Mapping[str, Any]
    resumes: tuple[Mapping[str, Any], ...]
    metrics: RunMetrics
    evaluations: tuple[Mapping[str, Any], ...]
    bad_files: Mapping[str, str]
    checkpoints: tuple[CheckpointFile, ...]
    problems: tuple[str, ...]

    @property
    def epochs_done(self) -> int:
        """Complete epochs."""
        return int(self.metrics.epochs[-1]["epochs_done"]) if self.metrics.epochs else 0

    @property
    def epochs_planned(self) -> int | None:
        """Epochs that the run was to have."""
        return None if self.config is None else self.config.train.epochs

    @property
    def batch_size(self) -> int | None:
        """Images per update."""
        return None if self.config is None else self.config.train.batch_size

    @property
    def steps_per_epoch(self) -> float | None:
        """Updates per epoch, from the records or, before the first epoch is complete, from the number of images."""
        if self.metrics.epochs and self.epochs_done:
            return float(self.metrics.epochs[-1]["step"]) / self.epochs_done
        images = self.data.get("num_images")
        if isinstance(images, int) and self.batch_size:
            return float(max(images // self.batch_size, 1))
        return None

    @property
    def finished(self) -> bool:
        """Whether every epoch that was planned is complete."""
        return self.epochs_planned is not None and self.epochs_done >= self.epochs_planned

    @property
    def seconds(self) -> float | None:
        """Time that the updates took, from the recorded speed; loading and starting anew are left out."""
        speed = self.metrics.of_steps("speed/images_per_second")
        if not len(speed) or not self.batch_size:
            return None
        steps = speed.steps.copy()
        steps[1:] -= speed.steps[:-1]
        usable = speed.values > 0
        return float((steps[usable] * self.batch_size / speed.values[usable]).sum())


def read_run(path: Path) -> RunRecord:
    """Read a run; what is missing or damaged becomes a problem to tell, not an error.

    Raises:
        RunError: `path` is no run.
    """
    run = RunDirectory.open(path)
    problems: list[str] = []
    data, environment = _json(run.data, problems), _json(run.environment, problems)
    task: Task = "finetune" if data.get("task") == "finetune" else "pretrain"
    metrics = _metrics(run, problems)
    text = run.config.read_text(encoding="utf-8", errors="replace")
    evaluations: list[dict[str, Any]] = []
    try:
        evaluations = read_evaluations(path)
    except RunError as error:
        problems.append(error.message)
    bad = _json(run.bad_files, problems) if run.bad_files.exists() else {}
    return RunRecord(
        path=path,
        name=path.resolve().name,
        task=task,
        config=_config(text, task, run.config, problems),
        config_text=text,
        data=data,
        environment=environment,
        resumes=tuple(_resumes(run.resumes, problems)),
        metrics=metrics,
        evaluations=tuple(evaluations),
        bad_files=bad.get("files") or {},
        checkpoints=tuple(map(_checkpoint, paths(run.checkpoints))),
        problems=tuple(problems),
    )


def _json(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if isinstance(content, dict):
        return _as_expected(content, path, problems)
    problems.append(f"{path.name} is missing or damaged.")
    return {}


def _as_expected(content: dict[str, Any], path: Path, problems: list[str]) -> dict[str, Any]:
    """Without what somebody replaced by something of another kind."""
    kept = {name: v for name, v in content.items() if v is None or isinstance(v, _KINDS.get(name, object))}
    if lost := ", ".join(name for name in content if name not in kept):
        problems.append(f"{path.name} holds no such thing as ibot writes as {lost}; it is left out.")
    return kept


def _resumes(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """A half-written last line is no record yet."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        records = [json.loads(line) for line in lines]
        if all(isinstance(record, dict) and isinstance(record.get("step"), int) for record in records):
            return [_as_expected(record, path, problems) for record in records]
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        pass
    problems.append(f"{path.name} is damaged, so it is not known when the run went on.")
    return []


def _metrics(run: RunDirectory, problems: list[str]) -> RunMetrics:
    metrics = read_metrics(run.metrics)
    if metrics.damaged:
        first = ", ".join(map(str, metrics.damaged[:3])) + (" and more" if len(metrics.damaged) > 3 else "")
        lines = counted(len(metrics.damaged), "line")
        problems.append(
            f"{lines} of {run.metrics.name} (line {first}) could not be read, so what they said is missing."
        )
    return metrics


def _config(text: str, task: Task, path: Path, problems: list[str]) -> Config | FinetuneConfig | None:
    try:
        mapping = yaml.safe_load(text) or {}
        if task == "finetune":
            return from_mapping(mapping, str(path), FinetuneConfig)
        return from_mapping(mapping, str(path))
    except (yaml.YAMLError, IBotError, AttributeError):
        problems.append(f"{path.name} cannot be read by this version of ibot.")
        return None


def _checkpoint(path: Path) -> CheckpointFile:
    status = path.stat()
    return CheckpointFile(
        name=path.name,
        step=int(path.name.removeprefix("step-").split(".")[0]),
        size=status.st_size,
        time=datetime.fromtimestamp(status.st_mtime, UTC),
    )
