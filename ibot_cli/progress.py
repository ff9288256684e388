"""Shows a running training: a live bar on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ibot_cli import console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_INTERVAL = 30.0


def make_reporter(writes: bool) -> LiveReporter | PlainReporter | SilentReporter:
    """The reporter that suits where stderr goes; other processes of a parallel run stay silent."""
    if not writes:
        return SilentReporter()
    return LiveReporter() if sys.stderr.isatty() else PlainReporter()


def step_text(record: Mapping[str, Any]) -> str:
    """Losses, speed and waiting of a step's record."""
    parts = [f"loss {record['loss/total']:.3f}"]
    parts += [f"{name[5:]} {record[name]:.3f}" for name in ("loss/cls", "loss/patch") if name in record]
    if "speed/images_per_second" in record:
        parts.append(f"{record['speed/images_per_second']:,.0f} images/s")
        parts.append(f"waiting {record['speed/wait_share']:.0%}")
    if record.get("skipped"):
        parts.append("skipped (not finite)")
    return ", ".join(parts)


def epoch_text(record: Mapping[str, Any]) -> str:
    """Target health and, with labels, agreement and k-NN of an epoch's record."""
    parts = []
    for slot in ("cls", "patch"):
        if f"target_entropy/{slot}" in record:
            used = record[f"used_prototypes/{slot}"]
            parts.append(f"{slot} entropy {record[f'target_entropy/{slot}']:.2f} of ln K, {used:,} prototypes used")
    if "clusters/nmi" in record:
        parts.append(f"NMI {record['clusters/nmi']:.3f}, AMI {record['clusters/ami']:.3f}")
    if record.get("knn_accuracy") is not None:
        parts.append(f"k-NN {record['knn_accuracy']:.3f} on held-out training images")
    if record.get("bad_files"):
        parts.append(f"{record['bad_files']} unreadable file(s)")
    return f"epoch {record['epochs_done']}: " + "; ".join(parts)


class SilentReporter:
    """Shows nothing but warnings."""

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def stop(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""


class PlainReporter(SilentReporter):
    """Lines for files and pipes: one per epoch, and one at least every half minute."""

    def __init__(self) -> None:
        self._total = self._per_epoch = 1
        self._first_step = 0
        self._begun = self._last = time.monotonic()

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._total, self._per_epoch, self._first_step = total_steps, steps_per_epoch, step
        self._begun = self._last = time.monotonic()

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        if time.monotonic() - self._last < PLAIN_INTERVAL:
            return
        self._last = time.monotonic()
        left = self._left(record["step"])
        console.note(f"step {record['step']:,}/{self._total:,}: {step_text(record)}, {_duration(left)} left")

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.note(epoch_text(record))

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.note(text)

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.warn(text)

    def _left(self, step: int) -> float:
        done = max(step - self._first_step, 1)
        return (self._total - step) * (time.monotonic() - self._begun) / done


class LiveReporter(SilentReporter):
    """A bar with epoch, step, loss terms, speed, time left and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._per_epoch = self._total = 1

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._per_epoch, self._total = steps_per_epoch, total_steps
        self._bar = Progress(
            TextColumn("{task.fields[where]}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console.console(),
        )
        self._task = self._bar.add_task("", total=total_steps, completed=step, where=self._where(step), numbers="")
        self._bar.start()

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        if self._bar is not None and self._task is not None:
            step = record["step"]
            self._bar.update(self._task, completed=step, where=self._where(step), numbers=step_text(record))

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`; a line only where something was measured with labels."""
        if record.get("knn_accuracy") is not None:
            self.say(epoch_text(record))

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._line("", text)

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._line("warning: ", text)

    def stop(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, label: str, text: str) -> None:
        from rich.text import Text

        if self._bar is None:
            console.warn(text) if label else console.note(text)
        else:
            self._bar.console.print(Text.assemble((label, "bold yellow"), text))

    def _where(self, step: int) -> str:
        epochs = -(-self._total // self._per_epoch)
        epoch = min(step // self._per_epoch + 1, epochs)
        return f"epoch {epoch}/{epochs} step {step:,}/{self._total:,}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
