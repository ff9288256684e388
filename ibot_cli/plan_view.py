"""How `ibot pretrain` shows its plan and its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ibot_cli import console
from ibot_cli.config.settings import format_value

if TYPE_CHECKING:
    from ibot_cli.train.launch import Prepared, PretrainResult

GIB = 2**30


def plan_record(prepared: Prepared) -> dict[str, Any]:
    """The plan as plain values, for `--json`."""
    from ibot_cli.config.load import flatten

    plan = prepared.plan
    schedule, memory = plan.schedule, plan.memory
    return {
        "data": prepared.data,
        "out": str(prepared.out),
        "resume_step": None if prepared.checkpoint is None else prepared.checkpoint.step,
        "images": plan.data,
        "choices": {path: {"value": value, "reason": reason} for path, (value, reason) in plan.choices.items()},
        "warnings": plan.warnings,
        "steps": schedule.total_steps,
        "steps_per_epoch": schedule.steps_per_epoch,
        "epochs": schedule.epochs,
        "batch_size": schedule.batch_size,
        "micro_batch_size": plan.micro_batch_size,
        "micro_batches": plan.micro_batches,
        "tokens": list(plan.tokens),
        "parameters": dict(plan.parameters),
        "memory": None if memory is None else {"peak": memory.peak, "base": memory.base, "available": memory.available},
        "config": flatten(plan.config),
        "origin": dict(plan.origin),
    }


def show_plan(prepared: Prepared, *, full: bool) -> None:
    """Data, choices with reasons, length, shapes; with `full` also the memory and every setting that was set."""
    plan = prepared.plan
    rows = [("data", line) for line in plan.data.sentences()]
    rows += _shape_rows(prepared)
    if full and plan.memory is not None:
        memory = plan.memory
        rows.append(
            (
                "memory",
                f"about {memory.peak / GIB:.2f} GiB at the peak ({memory.base / GIB:.2f} GiB before the networks), "
                f"{memory.available / GIB:.1f} GiB available",
            )
        )
    rows.append(("run directory", str(prepared.out)))
    if prepared.checkpoint is not None:
        rows.append(("resumed", f"after step {prepared.checkpoint.step:,} of {plan.schedule.total_steps:,}"))
    console.table(["plan", ""], rows, keep=["plan"], data=full)
    if plan.choices:
        chosen = [(path, format_value(value), reason) for path, (value, reason) in plan.choices.items()]
        console.table(["chosen", "value", "because"], chosen, keep=["chosen", "value"], data=full)
    if full:
        _show_settings(prepared)
    for text in plan.warnings:
        console.warn(text)


def _shape_rows(prepared: Prepared) -> list[tuple[str, str]]:
    plan, config = prepared.plan, prepared.plan.config
    schedule, views, head = plan.schedule, config.views, config.head
    parts = " x ".join(
        f"{count} {noun}"
        for count, noun in (
            (schedule.batch_size // (plan.micro_batch_size * plan.micro_batches), "process(es)"),
            (plan.micro_batches, "forward pass(es)"),
            (plan.micro_batch_size, "images"),
        )
    )
    local = f" + {views.num_local} of {views.local_size} px ({plan.tokens[1]} tokens)" if views.num_local else ""
    millions = {name: f"{count / 1e6:.2f} M" for name, count in plan.parameters.items()}
    prototypes = f"{head.prototypes:,}" + ("" if head.shared else f" + {head.patch_prototypes:,}")
    targets = ", ".join(f"{slot} {getattr(config.objective, slot)}" for slot in ("cls", "patch"))
    return [
        ("length", f"{schedule.epochs:,} epochs x {schedule.steps_per_epoch:,} steps = {schedule.total_steps:,} steps"),
        ("batch", f"{schedule.batch_size:,} images = {parts}"),
        ("views", f"{views.num_global} of {views.global_size} px ({plan.tokens[0]} tokens){local}"),
        ("network", f"{config.model.arch}, backbone {millions['backbone']}, head {millions['head']} parameters"),
        ("targets", f"{targets}; {prototypes} prototypes, balanced by {config.objective.balance}"),
        (
            "device",
            f"{plan.device}, {config.runtime.precision}, {config.runtime.threads} thread(s), "
            f"{config.runtime.workers} loader process(es)",
        ),
    ]


def _show_settings(prepared: Prepared) -> None:
    """Every setting that is not at its default, with its origin."""
    from ibot_cli.config.load import flatten

    values = flatten(prepared.plan.config)
    rows = [
        (path, format_value(values[path]), origin)
        for path, origin in prepared.plan.origin.items()
        if origin != "default" and path not in prepared.plan.choices
    ]
    if rows:
        console.table(["setting", "value", "from"], rows, keep=["setting"], data=True)


def show_result(result: PretrainResult) -> None:
    """What the run came to, and what to do next."""
    minutes = result.seconds / 60
    knn = "" if result.knn_accuracy is None else f", k-NN {result.knn_accuracy:.3f} on held-out training images"
    console.note(
        f"Done: {result.epochs:,} epochs, {result.steps:,} steps, {minutes:.1f} minutes, "
        f"peak memory {result.peak_memory_gib:.2f} GiB{knn}."
    )
    if result.bad_files:
        console.warn(f"{result.bad_files} unreadable file(s) were replaced; see {result.run}/bad_files.json.")
    console.note(f"Next: ibot knn-eval {result.run} {result.data}")
