"""From a request to a finished run: resolve, plan, prepare the directory, train."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.load import from_mapping, resolve, to_yaml
from ibot_cli.config.schema import Config
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.picture import is_deep_mode
from ibot_cli.data.places import anywhere
from ibot_cli.data.probe import probe
from ibot_cli.data.sources import Source, known_fingerprint, open_source
from ibot_cli.errors import DataError, UsageError
from ibot_cli.runs.checkpoint import Checkpoint, latest
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.environment import describe
from ibot_cli.train.loop import Loop
from ibot_cli.train.machine import peak_memory
from ibot_cli.train.opening import bad_file_outlook, check_place, open_run
from ibot_cli.train.out_of_memory import explained_shortage
from ibot_cli.train.plan import Plan, known, make_plan
from ibot_cli.train.recipe import settle
from ibot_cli.train.reporter import Reporter
from ibot_cli.train.request import CONTINUE_PRESET, Request
from ibot_cli.train.resume import (
    begin_again,
    check_number,
    micro_batch_warnings,
    refuse_changes,
    require_task,
    resume_warnings,
    stored_data,
)
from ibot_cli.train.start import Beginning


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
        beginning: The weights that a run begins with; None for random ones, and where there is a checkpoint.
        refusal: Why `execute` would stop at once: more unreadable files than the run accepts; or None.
    """

    request: Request
    data: str
    source: Source
    plan: Plan
    out: Path
    checkpoint: Checkpoint | None
    beginning: Beginning | None
    refusal: DataError | None


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """A finished run.

    Attributes:
        run: Its directory.
        data: DATA as it was given.
        num_classes: Classes in the data, or None without labels.
        first_step: Updates that were done before this call; above 0 for a resumed run.
        steps: Updates in all.
        epochs: Passes over the images.
        seconds: Wall-clock time of this call.
        start_knn_accuracy: The online k-NN accuracy before the first update; None for random weights.
        knn_accuracy: The last online k-NN accuracy on held-out training images, or None.
        bad_files: Unreadable images that were met.
        peak_memory_gib: Largest memory of this process.
    """

    run: Path
    data: str
    num_classes: int | None
    first_step: int
    steps: int
    epochs: int
    seconds: float
    start_knn_accuracy: float | None = None
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
    stamp = distributed.agree(time.strftime("%Y%m%d-%H%M%S"))
    out = request.out or Path("runs") / f"{request.base()}-{stamp}"
    request.check()
    check_place(out)
    recipe = settle(request)
    _use_threads(recipe.resolved.config)
    plan = make_plan(
        recipe.resolved,
        recipe.source,
        probe(recipe.source),
        reference_epochs=recipe.reference_epochs,
        choices=recipe.choices,
        want_memory=want_memory,
    )
    _use_threads(plan.config)
    plan.warnings[:0] = [*_about_weights(request, recipe.beginning), *_about_files(plan)]
    return _prepared(request, recipe.data, recipe.source, plan, out, None, recipe.beginning)


def _about_weights(request: Request, beginning: Beginning | None) -> list[str]:
    """What the user should know about the weights, or about there being none."""
    if beginning is not None:
        return beginning.start.loaded.notes
    if request.preset == CONTINUE_PRESET:
        return [f"The preset {CONTINUE_PRESET} is for trained weights, and none are named; add --init WEIGHTS."]
    return []


def _about_files(plan: Plan) -> list[str]:
    """Files of which something is left out: pages, or levels of 16 bits."""
    total = plan.data.num_checked
    stacks = sum(count for mode, count in plan.data.modes.items() if ", page 1 of " in mode)
    pages = [
        f"{stacks:,} of {total:,} images are the first of several pages; with data.channels set to their number, pages "
        "are channels."
    ]
    return (pages if stacks else []) + _about_depth(plan)


def _about_depth(plan: Plan) -> list[str]:
    deep = sum(count for mode, count in plan.data.modes.items() if is_deep_mode(mode))
    if plan.config.data.bits == 16 or 2 * deep < plan.data.num_checked:
        return []
    return [
        f"{deep:,} of {plan.data.num_checked:,} images have more than 8 bits, of which 8 are kept: of 12-bit images "
        "16 levels. --set data.bits=16 keeps all."
    ]


def _use_threads(config: Config) -> None:
    if config.runtime.threads is not None and torch.get_num_threads() != config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)


def _prepare_resumed(request: Request, want_memory: bool) -> Prepared:
    if request.out is None:
        raise UsageError("--resume needs the run directory.", "Add --out DIR.")
    run = RunDirectory.open(request.out)
    require_task(run, "pretrain")
    stored = from_mapping(yaml.safe_load(run.config.read_text()), str(run.config))
    resolved = resolve(
        preset=request.preset,
        file=request.config,
        sets=request.sets,
        base=yaml.safe_load(to_yaml(stored)),
        base_origin=str(run.config),
        flags=request.flags(),
    )
    refuse_changes(stored, resolved.config, run)
    _use_threads(stored)
    data = request.data or stored_data(run)["data"]
    images = resolved.config.data
    source = open_source(
        data, channels=images.channels, bits=images.bits, decoder=images.decoder or "auto", split="train"
    )
    check_number(run, source)
    plan = make_plan(
        resolved,
        source,
        probe(source),
        reference_epochs=known(stored.train.epochs),
        choices={},
        want_memory=want_memory,
    )
    checkpoint = latest(run.checkpoints)
    beginning = begin_again(run, stored) if checkpoint is None else None
    plan.warnings.extend(resume_warnings(run, source, plan.device, checkpoint))
    plan.warnings.extend(micro_batch_warnings(stored, plan.config))
    return _prepared(request, data, source, plan, request.out, checkpoint, beginning)


def _prepared(
    request: Request,
    data: str,
    source: Source,
    plan: Plan,
    out: Path,
    checkpoint: Checkpoint | None,
    beginning: Beginning | None,
) -> Prepared:
    """Joins the parts and holds what is known about unreadable files against the limits."""
    limits = BadLimits(len(source), plan.config.data.max_bad_ratio, plan.config.data.max_bad_files)
    refusal, warning = bad_file_outlook(plan.data, limits)
    plan.warnings.extend([warning] if warning else [])
    return Prepared(
        request=request,
        data=data,
        source=source,
        plan=plan,
        out=out,
        checkpoint=checkpoint,
        beginning=beginning,
        refusal=refusal,
    )


def execute(prepared: Prepared, reporter: Reporter) -> PretrainResult:
    """Trains to the end, from the beginning or from the checkpoint.

    Raises:
        Interrupted: A signal ended it; everything is saved.
        RunError: The directory is in use or cannot be written.
        TrainingError: Losses stay non-finite, or there is not enough memory.
        DataError: Too many images cannot be read.
    """
    if prepared.refusal is not None:
        raise prepared.refusal
    begun = time.monotonic()
    plan = prepared.plan
    with distributed.process_group(), explained_shortage():
        run, lock = open_run(prepared.out, prepared.request.resume, partial(_describe, prepared=prepared))
        try:
            loop = Loop(plan, prepared.source, run, reporter, beginning=prepared.beginning)
            if prepared.checkpoint is not None:
                loop.restore(prepared.checkpoint.state, prepared.checkpoint.step)
            elif prepared.request.resume and loop.writer:
                loop.metrics.truncate_after(-1)
            first_step = loop.step
            if prepared.request.resume and loop.writer and first_step < plan.schedule.total_steps:
                run.append_resume(
                    first_step,
                    describe(list(prepared.request.arguments), decoder=known(prepared.plan.config.data.decoder)),
                )
            loop.train()
            return PretrainResult(
                run=run.path,
                data=prepared.data,
                num_classes=plan.data.num_classes,
                first_step=first_step,
                steps=loop.step,
                epochs=loop.step // plan.schedule.steps_per_epoch,
                seconds=time.monotonic() - begun,
                start_knn_accuracy=loop.start_knn(),
                knn_accuracy=loop.final_knn(),
                bad_files=len(loop.loader.bad),
                peak_memory_gib=peak_memory(plan.device) / 2**30,
            )
        finally:
            if lock is not None:
                lock.release()


def _describe(run: RunDirectory, prepared: Prepared) -> None:
    """The small files; the configuration comes last, because with it the directory counts as a run."""
    run.write_data(
        {
            "data": anywhere(prepared.data),
            "name": prepared.source.name,
            "num_images": len(prepared.source),
            "fingerprint": known_fingerprint(prepared.source),
            "classes": prepared.source.classes,
            "notes": prepared.source.notes,
            **({} if prepared.beginning is None else {"init": prepared.beginning.record()}),
        }
    )
    run.write_environment(describe(list(prepared.request.arguments), decoder=known(prepared.plan.config.data.decoder)))
    run.write_config(to_yaml(prepared.plan.config))
