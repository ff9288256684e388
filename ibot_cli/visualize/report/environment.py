"""The section on the machine and on the run's files over time."""

from __future__ import annotations

from ibot_cli.visualize.pages.numbers import NOTHING, megabytes
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section


def environment_section(run: RunRecord) -> Section:
    """Versions and machine, then checkpoints and evaluations."""
    known = run.environment
    devices = ", ".join(map(str, known.get("devices") or [])) or "none"
    machine = [
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
            "checkpoints": _checkpoints(run),
            "evaluations": [
                (
                    str(record.get("time", "")).replace("T", " ")[:16],
                    str(record["command"]),
                    str(record.get("data")),
                    _step(record.get("step")),
                )
                for record in run.evaluations
            ],
        },
    )


def _checkpoints(run: RunRecord) -> list[tuple[str, str, str, str, str]]:
    per_epoch = run.steps_per_epoch
    return [
        (
            each.name,
            f"{each.step:,}",
            NOTHING if per_epoch is None else f"{each.step / per_epoch:,.4g}",
            megabytes(each.size),
            each.time.isoformat(" ", timespec="minutes"),
        )
        for each in run.checkpoints
    ]


def _step(step: object) -> str:
    return f"{step:,}" if isinstance(step, int) else NOTHING
