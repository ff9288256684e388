"""Steps collected on the device and read in one go."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ibot_cli.core.scale import ScaleReport
from ibot_cli.data.prefetch import HostWait
from ibot_cli.errors import TrainingError
from ibot_cli.train.step import StepReport
from ibot_cli.train.window import Window
from tests.core import tiny


def report(
    cls: float = 1.0,
    patch: float = 2.0,
    grad: float = 0.5,
    agreement: float | None = 0.25,
    rows: list[int] | None = None,
    scale: ScaleReport | None = None,
) -> StepReport:
    return StepReport(
        terms={"cls": torch.tensor(cls), "patch": torch.tensor(patch)},
        grad_norm=torch.tensor(grad),
        agreement=None if agreement is None else torch.tensor(agreement),
        finite=torch.tensor(all(map(math.isfinite, (cls, patch, grad)))),
        scale=scale,
        stats={},
        assignments=None if rows is None else torch.tensor(rows),
    )


def window(max_bad_steps: int = 3) -> Window:
    return Window(batch_size=8, max_bad_steps=max_bad_steps)


def add(win: Window, step: int, *, labels: Tensor | None = None, **values: float) -> None:
    rows = None if labels is None else [step, step + 1]
    win.add(step, (step - 1) // 10, tiny.now(lr=step / 100), report(rows=rows, **values), labels, HostWait(0.0))


def test_one_record_per_step() -> None:
    win = window()
    for step in (1, 2):
        add(win, step, cls=step, patch=10.0 * step)
    records = win.read().records
    assert [r["step"] for r in records] == [1, 2]
    last = records[1]
    expected = {
        "epoch": 0,
        "lr": 0.02,
        "weight_decay": 0.1,
        "teacher_momentum": 0.9,
        "teacher_temp": 0.05,
        "teacher_patch_temp": 0.06,
        "loss/cls": 2.0,
        "loss/patch": 20.0,
        "loss/total": 22.0,
        "grad_norm": 0.5,
        "agreement": 0.25,
        "skipped": False,
    }
    assert expected.items() <= last.items()
    assert "speed/images_per_second" not in records[0]
    assert last["speed/images_per_second"] > 0 and 0 <= last["speed/wait_share"] <= 1


def test_reading_empties_the_window() -> None:
    win = window()
    assert win.read().records == []
    add(win, 1)
    assert len(win.read().records) == 1 and win.read().records == []
    add(win, 2)
    assert [r["step"] for r in win.read().records] == [2]


def test_no_agreement_no_column() -> None:
    win = window()
    win.add(1, 0, tiny.now(), report(agreement=None), None, HostWait(0.0))
    assert "agreement" not in win.read().records[0]


def test_assignments_are_kept_with_labels_only() -> None:
    win = window()
    for step in (1, 2):
        add(win, step, labels=torch.tensor([5, 6]))
    content = win.read()
    assert content.assignments is not None and content.assignments.tolist() == [[1, 2], [2, 3]]
    assert content.labels is not None and content.labels.tolist() == [[5, 6], [5, 6]]
    win.add(3, 0, tiny.now(), report(rows=[1, 2]), None, HostWait(0.0))
    assert win.read().assignments is None


def test_skipped_steps_are_marked_and_counted() -> None:
    win = window()
    for step, loss in enumerate([1.0, math.nan, math.inf, 1.0, math.nan], start=1):
        add(win, step, cls=loss)
    records = win.read().records
    assert [r["skipped"] for r in records] == [False, True, True, False, True]
    assert win.bad_steps == 1


def test_an_overflow_of_the_loss_scale_is_skipped_and_told_but_neither_bad_nor_good() -> None:
    win = window()
    for step, overflow in enumerate([False, True, True, True, True, False], start=1):
        scale = ScaleReport(scale=torch.tensor(2.0**step), overflow=torch.tensor(overflow))
        grad = math.inf if overflow or step == 1 else 0.5
        win.add(step, 0, tiny.now(), report(grad=grad, scale=scale), None, HostWait(0.0))
    records = win.read().records
    assert [r["skipped"] for r in records] == [True] * 5 + [False]
    assert [r["overflow"] for r in records] == [False, True, True, True, True, False]
    assert [r["loss_scale"] for r in records] == [2.0**step for step in range(1, 7)] and win.bad_steps == 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"cls": math.nan}, "loss/cls"),
        ({"patch": math.inf}, "loss/patch"),
        ({"cls": math.nan, "patch": math.nan}, "loss/cls and loss/patch"),
        ({"grad": math.inf}, "the gradient"),
    ],
)
def test_too_many_bad_steps_stop_with_the_name_of_the_term(values: dict[str, float], named: str) -> None:
    win = window()
    for step in range(1, 5):
        add(win, step, **(values if step > 1 else {}))
    with pytest.raises(TrainingError) as caught:
        win.read()
    assert caught.value.message == (
        f"3 steps in a row were not finite, the last at step 4: {named}. Their updates were skipped, so the saved "
        "weights are intact."
    )
    assert caught.value.hint is not None and "optim.lr" in caught.value.hint


def test_bad_steps_add_up_over_readings_and_a_good_one_starts_anew() -> None:
    win = window()
    for step, loss in enumerate([math.nan, math.nan, 1.0, math.nan, math.nan], start=1):
        add(win, step, cls=loss)
        win.read()
    assert win.bad_steps == 2
    add(win, 6, cls=math.nan)
    with pytest.raises(TrainingError, match="at step 6"):
        win.read()
