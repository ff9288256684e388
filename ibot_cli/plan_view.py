"""How `ibot pretrain` shows its plan and its result."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ibot_cli import console
from ibot_cli.config.settings import format_value
from ibot_cli.quantities import counted, duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ibot_cli.train.choices import Choice
    from ibot_cli.train.launch import Prepared, PretrainResult

GIB = 2**30
MANY = 2  # settings with one reason; more of them are counted, not listed


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
        "init": None if prepared.beginning is None else prepared.beginning.record(),
        "choices": {path: {"value": value, "reason": reason} for path, (value, reason) in plan.choices.items()},
        "warnings": _warnings(prepared),
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
    """Data, choices with reasons, length, shapes; with `full`, for a dry run, also the memory and all settings."""
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
    _table(["plan", ""], rows, keep=["plan"], data=full)
    if plan.choices:
        _table(["chosen", "value", "because"], _chosen_rows(plan.choices, full), keep=["chosen", "value"], data=full)
    if full:
        _show_settings(prepared)
    for text in _warnings(prepared) if full else plan.warnings:
        console.warn(text)
    if full:
        console.note("Dry run: nothing was computed and nothing was written. Without --dry-run the run starts.")


def _chosen_rows(choices: Mapping[str, Choice], full: bool) -> list[tuple[str, str, str]]:
    """Setting, value, reason; without `full`, what weights decide of a section is one row."""
    groups: dict[tuple[str, str], list[str]] = {}
    for path, (_, reason) in choices.items():
        groups.setdefault((path if full else path.partition(".")[0], reason), []).append(path)
    rows = []
    for (section, reason), paths in groups.items():
        if len(paths) > MANY:
            rows.append((f"{section}.*", counted(len(paths), "setting"), reason))
        else:
            rows += [(path, format_value(choices[path][0]), reason) for path in paths]
    return rows


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, keep: Sequence[str], data: bool) -> None:
    """A table and an empty line below it."""
    console.table(columns, rows, keep=keep, data=data)
    if data:
        console.emit_text("")
    else:
        console.note("")


def _warnings(prepared: Prepared) -> list[str]:
    """Those of the plan, and why the run would stop at once."""
    refusal = prepared.refusal
    if refusal is None:
        return prepared.plan.warnings
    summary = refusal.message.partition(":")[0]
    return [*prepared.plan.warnings, f"This run would stop at once: {summary}. {refusal.hint}"]


def _shape_rows(prepared: Prepared) -> list[tuple[str, str]]:
    plan, config = prepared.plan, prepared.plan.config
    schedule, views, head = plan.schedule, config.views, config.head
    processes = schedule.batch_size // (plan.micro_batch_size * plan.micro_batches)
    parts = [counted(processes, "process", "processes")] if processes > 1 else []
    parts += [counted(plan.micro_batches, "forward pass", "forward passes")] if plan.micro_batches > 1 else []
    shared = f" = {' x '.join([*parts, counted(plan.micro_batch_size, 'image')])}" if parts else ""
    local = f" + {views.num_local} of {views.local_size} px ({plan.tokens[1]} tokens)" if views.num_local else ""
    sizes = {name: _parameters(count) for name, count in plan.parameters.items()}
    prototypes = f"{head.prototypes:,}" + ("" if head.shared else f" + {head.patch_prototypes:,}")
    targets = ", ".join(f"{slot} {getattr(config.objective, slot)}" for slot in ("cls", "patch"))
    targets += f", KoLeo {config.objective.koleo_weight:g}" if config.objective.koleo_weight else ""
    return [
        (
            "length",
            f"{counted(schedule.epochs, 'epoch')} x {counted(schedule.steps_per_epoch, 'step')} = "
            f"{counted(schedule.total_steps, 'step')}",
        ),
        ("batch", f"{counted(schedule.batch_size, 'image')}{shared}"),
        ("views", f"{views.num_global} of {views.global_size} px ({plan.tokens[0]} tokens){local}"),
        ("network", f"{config.model.arch}, backbone {sizes['backbone']}, head {sizes['head']} parameters"),
        *[("start", sentence) for sentence in _start(prepared)],
        ("targets", f"{targets}; {prototypes} prototypes, balanced by {config.objective.balance}"),
        (
            "device",
            f"{plan.device}, {config.runtime.precision}, {'compiled, ' if config.runtime.compile else ''}"
            f"{counted(config.runtime.threads or 1, 'thread')}, "
            f"{counted(config.runtime.workers or 0, 'loader process', 'loader processes')}",
        ),
    ]


def _start(prepared: Prepared) -> list[str]:
    """What the networks start from; nothing for random weights, and where a run goes on."""
    if prepared.beginning is None:
        return []
    description, *details = prepared.beginning.sentences
    frozen = prepared.plan.config.init.freeze_backbone_epochs or 0
    details += [f"only the head learns for {counted(frozen, 'epoch')}"] if frozen else []
    return [description, ", ".join(details)]


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
        _table(["setting", "value", "from"], rows, keep=["setting"], data=True)


def _parameters(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def show_result(result: PretrainResult) -> None:
    """What the run came to, and what to do next."""
    before = "" if result.start_knn_accuracy is None else f"{result.start_knn_accuracy:.3f} -> "
    knn = "" if result.knn_accuracy is None else f", k-NN {before}{result.knn_accuracy:.3f} on held-out training images"
    length = f"{counted(result.epochs, 'epoch')}, {counted(result.steps, 'step')}"
    if result.first_step == result.steps:
        console.note(f"Nothing left to do: the run is complete ({length}{knn}).")
    else:
        spent = f"{duration(result.seconds)} {'minutes' if result.seconds < 3600 else 'hours'}"
        since = f" since step {result.first_step:,}" if result.first_step else ""
        console.note(f"Done: {length}, {spent}{since}, peak memory {result.peak_memory_gib:.2f} GiB{knn}.")
    if result.bad_files:
        were = "was" if result.bad_files == 1 else "were"
        files = counted(result.bad_files, "unreadable file")
        console.warn(f"{files} {were} replaced; see {result.run / 'bad_files.json'}.")
    run = shlex.quote(str(result.run))
    if result.num_classes is None:
        console.note(f"Next: ibot knn-eval {run} FOLDER, where FOLDER holds a sub-folder of images for each class.")
    else:
        console.note(f"Next: ibot knn-eval {run} {shlex.quote(result.data)}")
