"""How `ibot finetune` shows its plan and its result."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ibot_cli import console
from ibot_cli.config.settings import format_value
from ibot_cli.quantities import counted, duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ibot_cli.train.finetune.prepare import Prepared
    from ibot_cli.train.finetune.result import FinetuneResult

GIB = 2**30


def plan_record(prepared: Prepared) -> dict[str, Any]:
    """The plan as plain values, for `--json`."""
    from ibot_cli.config.load import flatten

    plan, memory = prepared.plan, prepared.plan.memory
    return {
        "weights": prepared.origin.description,
        "data": prepared.data,
        "out": str(prepared.out),
        "resume_step": None if prepared.checkpoint is None else prepared.checkpoint.step,
        "num_train": len(plan.images.train.source),
        "num_holdout": 0 if plan.images.holdout is None else len(plan.images.holdout.source),
        "labels_available": plan.images.available,
        "num_test": len(plan.images.test.source),
        "classes": list(plan.images.classes),
        "start": list(prepared.start.sentences),
        "head": prepared.start.head,
        "choices": {path: {"value": value, "reason": reason} for path, (value, reason) in plan.choices.items()},
        "warnings": _warnings(prepared),
        "steps": plan.schedule.total_steps,
        "steps_per_epoch": plan.schedule.steps_per_epoch,
        "epochs": plan.schedule.epochs,
        "lr": plan.schedule.peak,
        "parameters": plan.parameters,
        "memory": None if memory is None else {"peak": memory.peak, "base": memory.base, "available": memory.available},
        "config": flatten(plan.config),
        "origin": dict(plan.origin),
    }


def show_plan(prepared: Prepared, *, full: bool) -> None:
    """Weights, images, length, rates; with `full`, for a dry run, also the memory and all settings."""
    from ibot_cli.config.load import flatten

    plan = prepared.plan
    rows = _rows(prepared)
    if full and plan.memory is not None:
        text = f"about {plan.memory.peak / GIB:.2f} GiB at the peak, {plan.memory.available / GIB:.1f} GiB available"
        rows.append(("memory", text))
    _table(["plan", ""], rows, keep=["plan"], data=full)
    if plan.choices:
        chosen = [(path, format_value(value), reason) for path, (value, reason) in plan.choices.items()]
        _table(["chosen", "value", "because"], chosen, keep=["chosen", "value"], data=full)
    if full:
        values = flatten(plan.config)
        given = [
            (path, format_value(values[path]), origin)
            for path, origin in plan.origin.items()
            if origin != "default" and path not in plan.choices
        ]
        _table(["setting", "value", "from"], given, keep=["setting"], data=True)
    for text in _warnings(prepared) if full else plan.warnings:
        console.warn(text)
    if full:
        console.note("Dry run: nothing was computed and nothing was written. Without --dry-run the run starts.")


def _rows(prepared: Prepared) -> list[tuple[str, str]]:
    plan, images, schedule = prepared.plan, prepared.plan.images, prepared.plan.schedule
    config, optim = plan.config, plan.config.optim
    used = f"{images.labels_used:,} of {images.available:,} training images, {len(images.classes)} classes"
    if images.holdout is not None:
        used += f"; {len(images.holdout.source):,} of them are held out to choose the best step"
    passes = f" = {counted(config.train.micro_batch_size or 1, 'image')} per forward pass"
    side, size = config.model.image_size, _parameters(plan.parameters)
    lowest = schedule.peak * optim.layer_decay ** (1 + _num_blocks(prepared))
    rates = f"{schedule.peak:.3g}, falling by {optim.layer_decay:g} per layer to {lowest:.2g}"
    rows = [
        ("weights", prepared.origin.description),
        *(("", text) for text in prepared.start.sentences),
        ("data", images.sentence),
        ("labels", used),
        (
            "length",
            f"{counted(schedule.epochs, 'epoch')} x {counted(schedule.steps_per_epoch, 'step')} = "
            f"{counted(schedule.total_steps, 'step')}, warm-up {counted(optim.warmup_epochs, 'epoch')}",
        ),
        ("batch", counted(schedule.batch_size, "image") + passes),
        ("learning rate", rates if optim.layer_decay < 1 else f"{schedule.peak:.3g} in every layer"),
        ("network", f"{plan.shape.pooling} pooling, {side} px, {size} parameters"),
        (
            "device",
            f"{plan.device}, {config.runtime.precision}, {counted(config.runtime.threads or 1, 'thread')}, "
            f"{counted(config.runtime.workers or 0, 'loader process', 'loader processes')}",
        ),
        ("run directory", str(prepared.out)),
    ]
    if prepared.checkpoint is not None:
        rows.append(("resumed", f"after step {prepared.checkpoint.step:,} of {schedule.total_steps:,}"))
    return rows


def _num_blocks(prepared: Prepared) -> int:
    return prepared.start.model.backbone.num_blocks


def _parameters(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def _warnings(prepared: Prepared) -> list[str]:
    """Those of the plan, and why the run would stop at once."""
    refusal = prepared.refusal
    if refusal is None:
        return prepared.plan.warnings
    summary = refusal.message.partition(":")[0]
    return [*prepared.plan.warnings, f"This run would stop at once: {summary}. {refusal.hint}"]


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[str], data: bool) -> None:
    """A table and an empty line below it."""
    console.table(columns, rows, keep=keep, data=data)
    if data:
        console.emit_text("")
    else:
        console.note("")


def show_result(result: FinetuneResult, recorded: Sequence[str]) -> None:
    """The accuracies beside their baselines, and what to do next."""
    if result.first_step == result.steps:
        console.note(f"Nothing left to train: the run is complete ({counted(result.steps, 'step')}).")
    else:
        spent = f"{duration(result.seconds)} {'minutes' if result.seconds < 3600 else 'hours'}"
        console.note(f"Done: {counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}, {spent}.")
    console.table(["On the test images", "Top-1", "Top-5"], _result_rows(result), right=["Top-1", "Top-5"])
    labels = f"{result.num_train + result.num_holdout:,} of {result.labels_available:,} labels"
    console.note(
        f"Last step: 95 % interval {result.top1_low:.2%} to {result.top1_high:.2%} "
        f"({counted(result.num_test, 'test image')}). {labels}. {result.split}"
    )
    for text in result.notes:
        console.warn(text)
    if result.bad_files:
        files = counted(result.bad_files, "unreadable file")
        console.warn(f"{files} replaced; see {result.run}/bad_files.json.")
    if recorded:
        console.note(f"Recorded in {' and '.join(recorded)}.")
    console.note(f"Next: ibot predict {shlex.quote(result.run)} IMAGES")


def _result_rows(result: FinetuneResult) -> list[tuple[str, str, str]]:
    name = "from random weights" if result.from_scratch else "fine-tuned"
    rows = [(f"{name}, last step", f"{result.top1:.2%}", f"{result.top5:.2%}")]
    best = result.best
    if best is not None:
        optimistic = best.chosen_on == "test images"
        how = "best on test, as published, optimistic" if optimistic else f"best on {best.chosen_on}"
        rows.append((f"{name}, {how} (epoch {best.epoch})", f"{best.top1:.2%}", f"{best.top5:.2%}"))
    if result.scratch_top1 is not None:
        rows.append(
            (
                f"from random weights, same labels, best recorded ({result.scratch_run})",
                f"{result.scratch_top1:.2%}",
                "",
            )
        )
    if result.pixels_top1 is not None and result.pixels is not None:
        rows.append((f"{result.pixels}, same training images", f"{result.pixels_top1:.2%}", ""))
    return rows
