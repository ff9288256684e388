"""From a request to a finished run: resolve, plan, prepare the directory, train."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.load import Resolved, differences, from_mapping, resolve, to_yaml
from ibot_cli.config.schema import Config
from ibot_cli.data.probe import probe
from ibot_cli.data.sources import Source, open_source
from ibot_cli.errors import DataError, RunError, UsageError
from ibot_cli.runs.checkpoint import Checkpoint, latest
from ibot_cli.runs.directory import RunDirectory, check_can_create
from ibot_cli.runs.environment import describe
from ibot_cli.train.choices import IMAGENET_IMAGES, Choice, automatic_choices, changed_paths
from ibot_cli.train.loop import Loop
from ibot_cli.train.machine import peak_memory
from ibot_cli.train.plan import Plan, known, make_plan
from ibot_cli.train.reporter import Reporter

DEMO_DATA = "builtin:digits"
DEMO_PRESET = "digits"
METHOD_PRESET = "ibot_vits16"
# What may differ when a run goes on: where and how fast it runs and what is written, not what is computed.
MAY_CHANGE = {
    "runtime.device",
    "runtime.workers",
    "train.log_every",
    "train.checkpoint_steps",
    "train.checkpoint_minutes",
    "train.checkpoint_epochs",
    "train.keep_last",
    "train.keep_every_epochs",
    "monitor.tensorboard",
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked for on the command line; see `ibot pretrain --help`."""

    data: str | None = None
    preset: str | None = None
    config: Path | None = None
    sets: Sequence[str] = ()
    out: Path | None = None
    resume: bool = False
    device: str | None = None
    workers: int | None = None
    arguments: Sequence[str] = field(default_factory=list)

    def flags(self) -> dict[str, tuple[Any, str]]:
        """Settings that have a flag of their own."""
        given = {"runtime.device": (self.device, "--device"), "runtime.workers": (self.workers, "--workers")}
        return {path: (value, flag) for path, (value, flag) in given.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything decided, nothing written.

    Attributes:
        request: What was asked for.
        data: DATA, also where it was left out.
        source: The images.
        plan: The plan.
        out: The run directory.
        checkpoint: Where a resumed run goes on, or None to begin.
    """

    request: Request
    data: str
    source: Source
    plan: Plan
    out: Path
    checkpoint: Checkpoint | None


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """A finished run.

    Attributes:
        run: Its directory.
        data: DATA as it was given.
        steps: Updates in all.
        epochs: Passes over the images.
        seconds: Wall-clock time of this call.
        knn_accuracy: The last online k-NN accuracy on held-out training images, or None.
        bad_files: Unreadable images that were met.
        peak_memory_gib: Largest memory of this process.
    """

    run: Path
    data: str
    steps: int
    epochs: int
    seconds: float
    knn_accuracy: float | None
    bad_files: int
    peak_memory_gib: float


def prepare(request: Request, *, want_memory: bool = False) -> Prepared:
    """Resolves the configuration, looks at the data and makes the plan. Writes nothing.

    Raises:
        ConfigError: Settings are wrong; all problems at once.
        UsageError: Flags do not go together.
        DataError: The images cannot be used.
        RunError: The run directory cannot be used, or a resumed run was asked to change what it computes.
    """
    if request.resume:
        return _prepare_resumed(request, want_memory)
    preset = request.preset or (DEMO_PRESET if request.data in (None, DEMO_DATA) else None)
    data = request.data or DEMO_DATA
    resolved = _resolve(request, preset or METHOD_PRESET)
    out = request.out or Path("runs") / f"{preset or METHOD_PRESET}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_can_create(out)
    _use_threads(resolved.config)
    source = open_source(data, channels=resolved.config.data.channels, split="train")
    choices: dict[str, Choice] = {}
    if preset is None:
        # Asked twice: what the user set decides some of the choices, and overrules others.
        choices = automatic_choices(len(source), _user_view(request, resolved))
        resolved = _resolve(request, METHOD_PRESET, choices)
        choices = changed_paths(choices, resolved.origin)
    plan = make_plan(
        resolved,
        source,
        probe(source),
        reference_epochs=_reference_epochs(preset, choices),
        choices=choices,
        want_memory=want_memory,
    )
    _use_threads(plan.config)
    return Prepared(request=request, data=data, source=source, plan=plan, out=out, checkpoint=None)


def _resolve(request: Request, preset: str, choices: Mapping[str, Choice] | None = None) -> Resolved:
    return resolve(preset=preset, file=request.config, sets=request.sets, chosen=choices, flags=request.flags())


def _user_view(request: Request, resolved: Resolved) -> Config:
    """The configuration in which the number of epochs is open unless the user gave it."""
    if resolved.origin["train.epochs"].startswith(("preset", "default")):
        return from_mapping({"train": {"epochs": "auto"}}, "choices")
    return from_mapping({"train": {"epochs": resolved.config.train.epochs}}, "choices")


def _reference_epochs(preset: str | None, choices: Mapping[str, Choice]) -> int:
    """Length that the durations of the recipe were written for."""
    if preset is None and "train.epochs" in choices:
        return int(choices["train.epochs"][0])
    recipe = resolve(preset=preset or METHOD_PRESET, file=None, sets=())
    return recipe.config.train.epochs or IMAGENET_IMAGES


def _use_threads(config: Config) -> None:
    if config.runtime.threads is not None and torch.get_num_threads() != config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)


def _prepare_resumed(request: Request, want_memory: bool) -> Prepared:
    if request.out is None:
        raise UsageError("--resume needs the run directory.", "Add --out DIR.")
    run = RunDirectory.open(request.out)
    stored = from_mapping(yaml.safe_load(run.config.read_text()), str(run.config))
    resolved = resolve(
        preset=request.preset,
        file=request.config,
        sets=request.sets,
        base=yaml.safe_load(to_yaml(stored)),
        base_origin=str(run.config),
        flags=request.flags(),
    )
    _refuse_changes(stored, resolved.config, run)
    _use_threads(stored)
    data = request.data or _stored_data(run)["data"]
    source = open_source(data, channels=stored.data.channels, split="train")
    plan = make_plan(
        resolved,
        source,
        probe(source),
        reference_epochs=known(stored.train.epochs),
        choices={},
        want_memory=want_memory,
    )
    checkpoint = latest(run.checkpoints)
    plan.warnings.extend(_resume_warnings(run, source, plan, checkpoint))
    return Prepared(request=request, data=data, source=source, plan=plan, out=request.out, checkpoint=checkpoint)


def _refuse_changes(stored: Config, asked: Config, run: RunDirectory) -> None:
    changed = [entry for entry in differences(stored, asked) if entry[0] not in MAY_CHANGE]
    if changed:
        listed = "; ".join(f"{path}: {old!r} in the run, {new!r} asked for" for path, old, new in changed)
        raise RunError(
            f"{run.path} cannot go on with other settings: {listed}.",
            "Leave them out, or start a new run. Device, workers, logging and retention may change.",
        )


def _stored_data(run: RunDirectory) -> dict[str, Any]:
    try:
        content: dict[str, Any] = yaml.safe_load(run.data.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise RunError(
            f"{run.data} cannot be read: {error}.", "Name the images: ibot pretrain DATA --resume."
        ) from error
    return content


def _resume_warnings(run: RunDirectory, source: Source, plan: Plan, checkpoint: Checkpoint | None) -> list[str]:
    """What keeps the rest of the run from being bit-identical to an uninterrupted one.

    Raises:
        DataError: The data have another number of images, so that their order would be another.
    """
    stored = _stored_data(run)
    if stored["num_images"] != len(source):
        raise DataError(
            f"The run saw {stored['num_images']:,} images; {source.name} has {len(source):,}.",
            "Restore the data, or start a new run.",
        )
    warnings = []
    if stored["fingerprint"] != source.fingerprint:
        warnings.append("The images' names, sizes or times changed since the run began; it may not go on exactly.")
    if checkpoint is None:
        return [*warnings, "The run has no checkpoint yet; it starts from the beginning."]
    if checkpoint.warning:
        warnings.append(checkpoint.warning)
    threads, version = checkpoint.state["threads"], checkpoint.state["torch"]
    if plan.device.type == "cpu" and threads != torch.get_num_threads():
        warnings.append(f"The run used {threads} threads, now {torch.get_num_threads()}; it may not go on exactly.")
    if version != torch.__version__:
        warnings.append(f"The run used PyTorch {version}, now {torch.__version__}; it may not go on exactly.")
    device = torch.device(checkpoint.state["config"]["runtime"]["device"]).type
    if device != plan.device.type:
        warnings.append(f"The run used a {device} device, now {plan.device.type}; it may not go on exactly.")
    return warnings


def execute(prepared: Prepared, reporter: Reporter) -> PretrainResult:
    """Trains to the end, from the beginning or from the checkpoint.

    Raises:
        Interrupted: A signal ended it; everything is saved.
        RunError: The directory is in use or cannot be written.
        TrainingError: Losses stay non-finite.
        DataError: Too many images cannot be read.
    """
    begun = time.monotonic()
    plan = prepared.plan
    with distributed.process_group():
        run = _open_run(prepared)
        lock = run.lock() if distributed.rank() == 0 else None
        try:
            loop = Loop(plan, prepared.source, run, reporter)
            if prepared.checkpoint is not None:
                loop.restore(prepared.checkpoint.state, prepared.checkpoint.step)
            elif prepared.request.resume and loop.writer:
                loop.metrics.truncate_after(0)
            loop.train()
            return PretrainResult(
                run=run.path,
                data=prepared.data,
                steps=loop.step,
                epochs=loop.step // plan.schedule.steps_per_epoch,
                seconds=time.monotonic() - begun,
                knn_accuracy=loop.final_knn(),
                bad_files=len(loop.loader.bad),
                peak_memory_gib=peak_memory(plan.device) / 2**30,
            )
        finally:
            if lock is not None:
                lock.release()


def _open_run(prepared: Prepared) -> RunDirectory:
    """The run directory, with its small files written by process 0."""
    if distributed.rank() != 0:
        distributed.agree(None)
        return RunDirectory(prepared.out)
    if prepared.request.resume:
        run = RunDirectory.open(prepared.out)
    else:
        run = RunDirectory.create(prepared.out)
        run.write_data(
            {
                "data": prepared.data,
                "name": prepared.source.name,
                "num_images": len(prepared.source),
                "fingerprint": prepared.source.fingerprint,
                "classes": prepared.source.classes,
                "notes": prepared.source.notes,
            }
        )
        run.write_environment(describe(list(prepared.request.arguments)))
        run.write_config(to_yaml(prepared.plan.config))
    distributed.agree(None)
    return run
