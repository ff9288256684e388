"""The section on the machine and on the run's files over time."""

from __future__ import annotations

from ibot_cli.visualize.pages.numbers import NOTHING, megabytes, moment
from ibot_cli.visualize.report.history import sessions
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section


def environment_section(run: RunRecord) -> Section:
    """Versions and machine, then how the run began and went on, checkpoints and evaluations."""
    known = run.environment
    devices = ", ".join(map(str, known.get("devices") or [])) or "none"
    machine = [
        ("Began", f"{moment(known['time'])} UTC" if known.get("time") else None),
        ("ibot", known.get("ibot")),
        ("Python", known.get("python")),
        *sorted((known.get("packages") or {}).items()),
        ("CUDA of PyTorch", known.get("cuda")),
        ("System", known.get("platform")),
        ("Processor", known.get("cpu")),
        ("Cores", known.get("cpu_count")),
        ("Threads", known.get("threads")),
        ("GPUs", devices),
    ]
    memory = run.metrics.of_epochs("memory/peak_gib")
    peak = float(memory.values.max()) if len(memory) else None
    return Section(
        id="environment",
        title="Environment and history",
        short="Environment",
        template="report/environment.html",
        values={
            "machine": [(name, str(value)) for name, value in machine if value is not None] if known else [],
            "peak": NOTHING if peak is None else f"{peak:.2f} GiB",
            "sessions": _sessions(run),
            "checkpoints": _checkpoints(run),
            "evaluations": [
                (
                    moment(record.get("time")),
                    str(record["command"]),
                    str(record.get("data")),
                    _step(record.get("step")),
                )
                for record in run.evaluations
            ],
        },
    )


def _sessions(run: RunRecord) -> list[tuple[str, str, str, str, str]]:
    """Nothing for a run that never went on: its command is below, where it can be copied."""
    if not run.resumes:
        return []
    return [
        (
            moment(each.time),
            f"{each.step:,}",
            _epochs(run, each.step),
            each.command,
            "; ".join(each.changes) or "nothing",
        )
        for each in sessions(run)
    ]


def _epochs(run: RunRecord, step: int) -> str:
    per_epoch = run.steps_per_epoch
    return NOTHING if per_epoch is None else f"{step / per_epoch:,.4g}"


def _checkpoints(run: RunRecord) -> list[tuple[str, str, str, str, str]]:
    return [
        (
            each.name,
            f"{each.step:,}",
            _epochs(run, each.step),
            megabytes(each.size),
            moment(each.time),
        )
        for each in run.checkpoints
    ]


def _step(step: object) -> str:
    return f"{step:,}" if isinstance(step, int) else NOTHING
