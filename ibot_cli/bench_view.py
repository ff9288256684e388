"""How `ibot bench` shows what it found: a table, or a row of Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibot_cli import console
from ibot_cli.progress import SilentReporter
from ibot_cli.quantities import counted

if TYPE_CHECKING:
    from ibot_cli.train.bench.result import BenchResult, Spread

HEADINGS = (
    "recipe", "data", "device", "arithmetic", "batch", "s per step", "images/s", "GFLOP/s", "of the GEMM peak",
    "peak GiB", "versions",
)  # fmt: skip


class BenchReporter(SilentReporter):
    """Says what is being timed, and what the user should know."""

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.note(text)

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.warn(text)


def show_bench(result: BenchResult) -> None:
    """The figures as a table on stdout."""
    console.table(["measured", ""], _rows(result), keep=["measured"], data=True)


def markdown_row(result: BenchResult) -> str:
    """One row under `HEADINGS`."""
    settings = [result.precision, *_switches(result), f"{counted(result.threads, 'thread')}"]
    versions = f"ibot {result.versions['ibot']}, torch {result.versions['torch']}"
    cells = (
        result.name, result.data, _device(result), ", ".join(settings), _batch(result),
        _number(result.step_seconds.median), _number(result.images_per_second.median), _number(result.gflops),
        f"{result.gemm_share:.2f}", f"{result.peak_gib:.2f}", versions,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def show_row(result: BenchResult) -> None:
    """The row on stdout, so that it can be appended to a file; the heading of such a table on stderr."""
    console.note(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}")
    console.emit_text(markdown_row(result))


def _rows(result: BenchResult) -> list[tuple[str, str]]:
    sizes = ", ".join(f"{name} {_millions(count)}" for name, count in result.parameters.items())
    rows = [
        ("recipe", f"{result.name}: {result.config['model.arch']}, {sizes} parameters"),
        ("images", result.data),
        ("device", f"{result.device}: {result.device_name}"),
        ("run as", ", ".join([result.precision, *_switches(result), *_processes(result)])),
        ("batch", _batch(result)),
        ("step", _spread(result.step_seconds, " s", f"{counted(len(result.seconds), 'step')}")),
        ("speed", _spread(result.images_per_second, " images/s", "")),
        (
            "operations",
            f"{_number(result.gflop)} GFLOP per step that the method needs, {_number(result.gflops)} GFLOP/s",
        ),
        (
            "of the peak",
            f"{result.gemm_share:.1%} of {result.peak_gflops:,.0f} GFLOP/s, the fastest of the step's own products",
        ),
        ("peak memory", f"{result.peak_gib:.2f} GiB (the plan expects {result.estimated_gib:.2f} GiB)"),
    ]
    if result.loader_images_per_second is not None and result.wait_share is not None:
        rows.append(("loader alone", _spread(result.loader_images_per_second, " images/s", "")))
        rows.append(("waiting", f"{result.wait_share:.1%} of the time for images"))
    return rows


def _switches(result: BenchResult) -> list[str]:
    """What is switched on."""
    compiled = ["compiled"] if result.compiled else []
    return compiled + (["checkpointing"] if result.checkpointing != "none" else [])


def _processes(result: BenchResult) -> list[str]:
    parts = [counted(result.processes, "process", "processes")] if result.processes > 1 else []
    parts.append(counted(result.threads, "thread"))
    return parts + ([counted(result.workers, "loader process", "loader processes")] if result.workers else [])


def _device(result: BenchResult) -> str:
    return f"{result.processes} x {result.device_name}" if result.processes > 1 else result.device_name


def _batch(result: BenchResult) -> str:
    if result.micro_batch_size == result.batch_size:
        return counted(result.batch_size, "image")
    parts = [result.processes, result.micro_batches]
    shared = " x ".join([*(str(part) for part in parts if part > 1), str(result.micro_batch_size)])
    return f"{counted(result.batch_size, 'image')} = {shared}"


def _spread(values: Spread, unit: str, remark: str) -> str:
    middle = f"{_number(values.low)} to {_number(values.high)} in the middle half"
    return f"{_number(values.median)}{unit} ({middle}{' of ' + remark if remark else ''})"


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
