"""Shows a running training: a live bar on a terminal, plain lines elsewhere. Everything goes to stderr."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from ibot_cli import console
from ibot_cli.quantities import counted, duration

PLAIN_INTERVAL = 30.0
PLAIN_EPOCHS = 100  # lines about epochs that a file or a pipe gets, besides those with an accuracy
NOTICEABLE_WAIT = 0.05
VALIDATED = {"holdout": "held-out training images", "test": "test images"}
STOPPING = "stopping after this step, then saving; Ctrl-C once more stops at once without saving"


def make_reporter(writes: bool) -> LiveReporter | PlainReporter | SilentReporter:
    """The reporter that suits where stderr goes; other processes of a parallel run stay silent."""
    if not writes:
        return SilentReporter()
    return LiveReporter() if sys.stderr.isatty() else PlainReporter()


@contextlib.contextmanager
def waiting(text: str) -> Iterator[None]:
    """Shows a line while something takes its time; on a terminal only, and in one process of a parallel run."""
    if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        with console.console().status(text):
            yield
    else:
        yield


@contextlib.contextmanager
def stage_bars() -> Iterator[Callable[[str, int, int], None]]:
    """One bar per stage of an evaluation, on a terminal only; the yielded function takes stage, done and total."""
    tasks: dict[str, TaskID] = {}
    drawn = console.console()
    shown = drawn.is_terminal and os.environ.get("RANK", "0") == "0"
    with Progress(console=drawn, transient=True, disable=not shown) as bars:

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield report


def step_text(record: Mapping[str, Any]) -> str:
    """Losses, speed and waiting of a step's record."""
    parts = [f"loss {record['loss/total']:.3f}"]
    parts += [f"{name[5:]} {record[name]:.3f}" for name in ("loss/cls", "loss/patch", "loss/koleo") if name in record]
    if "speed/images_per_second" in record:
        parts.append(f"{record['speed/images_per_second']:,.0f} images/s")
        parts.append(waiting_text(record["speed/wait_share"]))
    if record.get("skipped"):
        parts.append("skipped (loss scale halved)" if record.get("overflow") else "skipped (not finite)")
    return ", ".join(parts)


def waiting_text(share: float) -> str:
    """Who waits for whom, from the share of the time in which training waited for images."""
    return f"waiting for images {share:.0%}" if share >= NOTICEABLE_WAIT else "images ready"


def epoch_text(record: Mapping[str, Any]) -> str:
    """Target health and, with labels, agreement and k-NN of an epoch's record; of fine-tuning the accuracy."""
    parts = []
    for slot in ("cls", "patch"):
        if f"target_entropy/{slot}" in record:
            used = record[f"used_prototypes/{slot}"]
            parts.append(f"{slot} entropy {record[f'target_entropy/{slot}']:.2f} of ln K, {used:,} prototypes used")
    if "clusters/nmi" in record:
        parts.append(f"NMI {record['clusters/nmi']:.3f}, AMI {record['clusters/ami']:.3f}")
    if record.get("knn_accuracy") is not None:
        parts.append(f"k-NN {record['knn_accuracy']:.3f} on held-out training images")
    if record.get("train/loss") is not None:
        parts.append(f"loss {record['train/loss']:.3f}")
    for name, images in VALIDATED.items():
        if f"{name}/top1_accuracy" in record:
            parts.append(f"top-1 {record[f'{name}/top1_accuracy']:.2%} on {images}")
    if record.get("bad_files"):
        parts.append(counted(record["bad_files"], "unreadable file"))
    if record.get("step") == 0:
        return "start: " + ("; ".join(parts) or "the weights are saved")
    return f"epoch {record['epochs_done']}: " + ("; ".join(parts) or "no update was made")


def measured(record: Mapping[str, Any]) -> bool:
    """Whether an epoch's record holds an accuracy."""
    return record.get("knn_accuracy") is not None or any(f"{name}/loss" in record for name in VALIDATED)


class SilentReporter:
    """Shows nothing but warnings."""

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def advance(self, step: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def stopping(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""

    def stop(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""


class PlainReporter(SilentReporter):
    """Lines for files and pipes: one per epoch (about a hundred at most), and one at least every half minute."""

    def __init__(self) -> None:
        self._total = self._per_epoch = 1
        self._first_step = 0
        self._begun = self._last = time.monotonic()

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._total, self._per_epoch, self._first_step = total_steps, steps_per_epoch, step
        self._begun = self._last = time.monotonic()

    def advance(self, step: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`; a line where steps are so slow that no reading comes for a while."""
        if time.monotonic() - self._last >= 2 * PLAIN_INTERVAL:
            self._note_step(step, "running")

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        if time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._note_step(record["step"], step_text(record))

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`; of many epochs, those with an accuracy and every so many others."""
        epochs = -(-self._total // self._per_epoch)
        every = -(-epochs // PLAIN_EPOCHS)
        if measured(record) or record["epochs_done"] % every == 0 or record["epochs_done"] == epochs:
            console.note(epoch_text(record))

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.note(text)

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        console.warn(text)

    def stopping(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        with contextlib.suppress(RuntimeError):  # the signal may have come in the middle of another line
            console.note(STOPPING)

    def _note_step(self, step: int, text: str) -> None:
        self._last = time.monotonic()
        console.note(f"step {step:,}/{self._total:,}: {text}, {duration(self._left(step))} left")

    def _left(self, step: int) -> float:
        done = max(step - self._first_step, 1)
        return (self._total - step) * (time.monotonic() - self._begun) / done


class _Bar(Progress):
    """A bar, and below it lines that are cut to the width of the terminal."""

    below: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar first, then the lines."""
        yield from super().get_renderables()
        for line in self.below:
            yield Text(line, no_wrap=True, overflow="ellipsis")


class LiveReporter(SilentReporter):
    """A bar with epoch, step and time left; below it loss terms, speed and share of time spent waiting for data."""

    def __init__(self) -> None:
        self._bar: _Bar | None = None
        self._task = TaskID(0)
        self._per_epoch = self._total = 1
        self._numbers = self._epoch = self._stopping = ""

    def start(self, step: int, total_steps: int, steps_per_epoch: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._per_epoch, self._total = steps_per_epoch, total_steps
        self._bar = _new_bar(console.console())
        self._task = self._bar.add_task("", total=total_steps, completed=step, where=self._where(step))
        self._bar.start()

    def advance(self, step: int) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, where=self._where(step))

    def progress(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._numbers = step_text(record)
        self._show_below()

    def epoch(self, record: Mapping[str, Any]) -> None:
        """See `ibot_cli.train.reporter.Reporter`; a line that stays only where an accuracy was measured."""
        self._epoch = "" if measured(record) else epoch_text(record)
        self._show_below()
        if measured(record):
            self.say(epoch_text(record))

    def say(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._line("", text)

    def warn(self, text: str) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        self._line("warning: ", text)

    def stopping(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`; the bar's own thread draws it, because a handler must not write."""
        self._stopping = STOPPING
        self._show_below()

    def stop(self) -> None:
        """See `ibot_cli.train.reporter.Reporter`."""
        if self._bar is not None:
            self._stopping = ""
            self._show_below()
            self._bar.stop()
            self._bar = None

    def _show_below(self) -> None:
        if self._bar is not None:
            self._bar.below = tuple(line for line in (self._numbers, self._epoch, self._stopping) if line)

    def _line(self, label: str, text: str) -> None:
        if self._bar is None:
            console.warn(text) if label else console.note(text)
        elif label or not console.is_quiet():
            self._bar.console.print(Text.assemble((label, "bold yellow"), text))

    def _where(self, step: int) -> str:
        epochs = -(-self._total // self._per_epoch)
        epoch = min(step // self._per_epoch + 1, epochs)
        return f"epoch {epoch}/{epochs} step {step:,}/{self._total:,}"


def _new_bar(where: Console) -> _Bar:
    """Only the bar gives way on a narrow terminal."""

    def fixed() -> Column:
        return Column(no_wrap=True)

    return _Bar(
        TextColumn("{task.fields[where]}", table_column=fixed()),
        BarColumn(bar_width=None, table_column=Column(max_width=32)),
        TextColumn("{task.percentage:>3.0f}%", table_column=fixed()),
        TimeElapsedColumn(table_column=fixed()),
        TextColumn("spent,", table_column=fixed()),
        TimeRemainingColumn(table_column=fixed()),
        TextColumn("left", table_column=fixed()),
        console=where,
    )
