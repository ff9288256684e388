"""What people see of a running training, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from ibot_cli import console, progress
from ibot_cli.progress import (
    LiveReporter,
    PlainReporter,
    SilentReporter,
    counted,
    duration,
    epoch_text,
    make_reporter,
    step_text,
    waiting,
)
from ibot_cli.train.reporter import Reporter, Silent

STEP = {
    "step": 40, "loss/total": 3.14159, "loss/cls": 2.0, "loss/patch": 1.14159, "skipped": False,
    "speed/images_per_second": 1234.4, "speed/wait_share": 0.123,
}  # fmt: skip
EPOCH = {
    "step": 40, "epochs_done": 4, "target_entropy/cls": 0.876, "used_prototypes/cls": 1234,
    "target_entropy/patch": 0.5, "used_prototypes/patch": 12, "clusters/nmi": 0.5, "clusters/ami": 0.25,
    "knn_accuracy": 0.75, "bad_files": 1,
}  # fmt: skip


def test_the_numbers_of_a_step() -> None:
    assert step_text(STEP) == "loss 3.142, cls 2.000, patch 1.142, 1,234 images/s, waiting for images 12%"
    few = {"loss/total": float("nan"), "loss/cls": float("nan"), "skipped": True}
    assert step_text(few) == "loss nan, cls nan, skipped (not finite)"
    assert (
        step_text({"loss/total": 1.0, "skipped": True, "overflow": True}) == "loss 1.000, skipped (loss scale halved)"
    )


def test_who_waits_for_whom() -> None:
    assert step_text({**STEP, "speed/wait_share": 0.9}).endswith("images/s, waiting for images 90%")
    assert step_text({**STEP, "speed/wait_share": 0.049}).endswith("images/s, images ready")
    assert len(step_text({**STEP, "speed/images_per_second": 99_999.0, "loss/total": 12.3, "loss/cls": 10.1})) < 80


def test_the_numbers_of_an_epoch() -> None:
    assert epoch_text(EPOCH) == (
        "epoch 4: cls entropy 0.88 of ln K, 1,234 prototypes used; patch entropy 0.50 of ln K, 12 prototypes used; "
        "NMI 0.500, AMI 0.250; k-NN 0.750 on held-out training images; 1 unreadable file"
    )
    assert epoch_text({"epochs_done": 1, "bad_files": 0}) == "epoch 1: no update was made"
    assert epoch_text({"epochs_done": 1, "bad_files": 2}) == "epoch 1: 2 unreadable files"


def test_numbers_with_nouns_and_times() -> None:
    assert [counted(n, "file") for n in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]
    assert counted(2, "process", "processes") == "2 processes"
    assert [duration(s) for s in (0.4, 59.6, 61, 3600, 90061)] == ["0:00", "1:00", "1:01", "1:00:00", "25:01:01"]


@pytest.mark.parametrize("kind", [SilentReporter, PlainReporter, LiveReporter, Silent])
def test_every_reporter_takes_every_call_before_and_after_training(kind: Callable[[], Reporter]) -> None:
    reporter = kind()
    reporter.advance(1)
    reporter.stopping()
    reporter.stop()
    reporter.start(0, 10, 5)
    reporter.advance(1)
    reporter.progress(STEP)
    reporter.epoch(EPOCH)
    reporter.say("x")
    reporter.warn("x")
    reporter.stopping()
    reporter.stop()
    reporter.stop()


def test_which_reporter(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_reporter(False)) is SilentReporter
    assert type(make_reporter(True)) is PlainReporter
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert type(make_reporter(True)) is LiveReporter


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_plain_lines_come_every_half_minute(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.start(0, 400, 40)
    for seconds in (10, 10, 10, 10):
        clock.now += seconds
        reporter.progress(STEP)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"step 40/400: {step_text(STEP)}, 4:30 left"]


def test_plain_lines_where_a_step_takes_minutes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.start(100, 400, 40)
    for step in (101, 102, 103):
        clock.now += 45
        reporter.advance(step)
    assert capsys.readouterr().err == "step 102/400: running, 3:43:30 left\n"


def test_plain_lines_of_epochs_warnings_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.start(0, 400, 40)
    reporter.epoch(EPOCH)
    reporter.warn("Collapse.")
    reporter.stopping()
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"{epoch_text(EPOCH)}\nwarning: Collapse.\n{progress.STOPPING}\n"


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], io.StringIO]:
    """Makes a terminal of a given width."""

    def make(width: int) -> io.StringIO:
        text = io.StringIO()
        terminal = Console(file=text, width=width, force_terminal=True, color_system=None, highlight=False)
        monkeypatch.setattr(console, "console", lambda **_: terminal)
        return text

    return make


def shown(reporter: LiveReporter, width: int) -> list[str]:
    """What stands on the screen now."""
    text = io.StringIO()
    assert reporter._bar is not None
    Console(file=text, width=width, color_system=None).print(reporter._bar.get_renderable())
    return [line.rstrip() for line in text.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 120])
def test_the_bar_fits_the_terminal(screen: Callable[[int], io.StringIO], width: int) -> None:
    screen(width)
    reporter = LiveReporter()
    reporter.start(0, 24_000, 12)
    reporter.advance(12_000)
    reporter.progress({**STEP, "step": 12_000})
    reporter.epoch({**EPOCH, "knn_accuracy": None})
    bar, numbers, epoch = shown(reporter, width)
    assert bar.startswith("epoch 1001/2000 step 12,000/24,000 ") and bar.endswith(" left")
    assert " 50% 0:00:0" in bar and " spent, " in bar and "━" in bar
    assert numbers == step_text(STEP)
    assert epoch.startswith("epoch 4: cls entropy") and len(epoch) <= width
    reporter.stop()


def test_a_very_narrow_terminal_breaks_nothing(screen: Callable[[int], io.StringIO]) -> None:
    screen(30)
    reporter = LiveReporter()
    reporter.start(0, 24_000, 12)
    reporter.progress(STEP)
    assert all(len(line) <= 30 for line in shown(reporter, 30))
    reporter.stop()


def test_the_last_epoch_is_the_last(screen: Callable[[int], io.StringIO]) -> None:
    screen(100)
    reporter = LiveReporter()
    reporter.start(0, 24, 12)
    reporter.advance(24)
    assert shown(reporter, 100)[0].startswith("epoch 2/2 step 24/24 ") and "100%" in shown(reporter, 100)[0]
    reporter.stop()


def test_a_measured_epoch_stays_on_the_screen(screen: Callable[[int], io.StringIO]) -> None:
    text = screen(300)
    reporter = LiveReporter()
    reporter.start(0, 400, 40)
    reporter.epoch(EPOCH)
    reporter.warn("[red]Collapse[/red].")
    reporter.stop()
    assert epoch_text(EPOCH) in text.getvalue()
    assert "warning: [red]Collapse[/red]." in text.getvalue()


def test_waiting_for_the_current_step_is_told_below_the_bar(screen: Callable[[int], io.StringIO]) -> None:
    screen(100)
    reporter = LiveReporter()
    reporter.start(0, 400, 40)
    reporter.progress(STEP)
    reporter.stopping()
    assert shown(reporter, 100)[1:] == [step_text(STEP), progress.STOPPING]
    reporter.stop()


def test_waiting_is_shown_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting("Loading ..."):
        pass
    assert capsys.readouterr() == ("", "")
    told: list[Any] = []

    class Terminal:
        def status(self, text: str) -> io.StringIO:
            told.append(text)
            return io.StringIO()

    monkeypatch.setattr(console, "console", lambda: Terminal())
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with waiting("Loading ..."):
        pass
    assert told == ["Loading ..."]
    monkeypatch.setenv("RANK", "1")
    with waiting("Loading ..."):
        pass
    assert told == ["Loading ..."]


def test_an_epoch_of_fine_tuning_tells_loss_and_accuracy() -> None:
    record = {"epochs_done": 3, "train/loss": 0.51234, "bad_files": 0}
    assert epoch_text(record) == "epoch 3: loss 0.512"
    held = {**record, "holdout/top1_accuracy": 0.9, "holdout/loss": 0.4}
    assert epoch_text(held) == "epoch 3: loss 0.512; top-1 90.00% on held-out training images"
    assert epoch_text({**record, "test/top1_accuracy": 0.98765}).endswith("; top-1 98.77% on test images")


def test_many_short_epochs_do_not_fill_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = PlainReporter()
    reporter.start(0, 450, 1)
    for epoch in range(1, 451):
        reporter.epoch({"epochs_done": epoch, "train/loss": 1.0} | ({"test/loss": 1.0} if epoch == 7 else {}))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 91
    assert [line.split(":")[0] for line in lines[:3]] == ["epoch 5", "epoch 7", "epoch 10"]
    assert lines[-1].startswith("epoch 450")
