"""Numbers of the last steps: they stay on the device until the window is read, every `log_every` steps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ibot_cli.core.objective import Now
from ibot_cli.core.scale import ScaleReport
from ibot_cli.data.prefetch import Wait
from ibot_cli.distributed import gather_columns
from ibot_cli.errors import TrainingError
from ibot_cli.train.step import StepReport


@dataclass(frozen=True, kw_only=True)
class WindowContent:
    """What one reading of the window gives.

    Attributes:
        records: One metrics record per step, in order.
        assignments: Most likely prototype of each image, int64 `[T, B]` over all processes, or None.
        labels: The images' labels, int64 `[T, B]`, or None.
        seconds: Time since the last reading, without what was left out of it.
    """

    records: list[dict[str, Any]]
    assignments: Tensor | None
    labels: Tensor | None
    seconds: float


@dataclass
class Window:
    """Collects steps and reads them in one go.

    Attributes:
        batch_size: Global batch, for the speed.
        max_bad_steps: Consecutive non-finite steps after which training stops.
        bad_steps: Consecutive non-finite steps so far.
        way_out: What to do when training stopped.
    """

    batch_size: int
    max_bad_steps: int
    bad_steps: int = 0
    way_out: str = (
        "Start a new run with a lower optim.lr, with runtime.precision=fp32, or with optim.clip_mode=global and "
        "optim.clip_grad=1."
    )
    _numbers: list[Tensor] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _known: list[dict[str, Any]] = field(default_factory=list)
    _assignments: list[Tensor] = field(default_factory=list)
    _labels: list[Tensor] = field(default_factory=list)
    _waits: list[Wait] = field(default_factory=list)
    _since: float = field(default_factory=time.perf_counter)

    def restart_clock(self) -> None:
        """Leaves the time since the last reading out of the speed; called after evaluations and saving."""
        self._since = time.perf_counter()
        self._waits.clear()

    def add(self, step: int, epoch: int, now: Now, report: StepReport, labels: Tensor | None, wait: Wait) -> None:
        """Takes note of update number `step` (counted from 1) of a pre-training; see `note`."""
        numbers = {f"loss/{name}": value for name, value in report.terms.items()}
        numbers["grad_norm"] = report.grad_norm
        if report.agreement is not None:
            numbers["agreement"] = report.agreement
        known = {
            "step": step,
            "epoch": epoch,
            "lr": now.lr,
            "weight_decay": now.weight_decay,
            "teacher_momentum": now.teacher_momentum,
            "teacher_temp": now.teacher_temp,
            "teacher_patch_temp": now.teacher_patch_temp,
        }
        self.note(known, numbers, report.finite, wait, report.scale)
        if report.assignments is not None and labels is not None:
            self._assignments.append(report.assignments)
            self._labels.append(labels)

    def note(
        self,
        known: Mapping[str, Any],
        numbers: Mapping[str, Tensor],
        finite: Tensor,
        wait: Wait,
        scale: ScaleReport | None = None,
    ) -> None:
        """Takes note of one update; reads nothing from the device.

        Args:
            known: What the host knows: `step` (counted from 1), `epoch`, the schedule's values.
            numbers: Scalars on the device by name, the same names in every step; `loss/*` add up to `loss/total`.
            finite: Whether the update was made, a scalar on the device.
            wait: How long the training waited for the data.
            scale: What the loss scale of float16 did, None without one.
        """
        columns = {**numbers, "finite": finite}
        if scale is not None:
            columns |= {"loss_scale": scale.scale, "overflow": scale.overflow}
        self._names = list(columns)
        self._numbers.append(torch.stack([value.detach().float() for value in columns.values()]))
        self._known.append(dict(known))
        self._waits.append(wait)

    def read(self) -> WindowContent:
        """Fetches everything and empties the window.

        Raises:
            TrainingError: Too many consecutive steps were non-finite; the message names the term.
        """
        rows = torch.stack(self._numbers).cpu().tolist() if self._numbers else []  # the device has finished these steps
        seconds = max(time.perf_counter() - self._since, 1e-9)
        records = list(self._records(rows))
        if records:
            records[-1]["speed/images_per_second"] = len(rows) * self.batch_size / seconds
            records[-1]["speed/wait_share"] = min(sum(wait.seconds() for wait in self._waits) / seconds, 1.0)
        assignments, labels = _joined(self._assignments, self._labels)
        content = WindowContent(records=records, assignments=assignments, labels=labels, seconds=seconds)
        for store in (self._numbers, self._known, self._assignments, self._labels):
            store.clear()
        self.restart_clock()
        return content

    def _records(self, rows: list[list[float]]) -> Iterator[dict[str, Any]]:
        for known, row in zip(self._known, rows, strict=True):
            values = dict(zip(self._names, row, strict=True))
            finite = values.pop("finite") > 0
            losses = {name: value for name, value in values.items() if name.startswith("loss/")}
            scaled = {"overflow": values.pop("overflow") > 0} if "overflow" in values else {}
            record = {**known, "loss/total": sum(losses.values()), **values, "skipped": not finite, **scaled}
            self._count(finite, record)
            yield record

    def _count(self, finite: bool, record: dict[str, Any]) -> None:
        if record.get("overflow"):  # the scale is on its way down; a step is bad where no scale helps
            return
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if self.bad_steps < self.max_bad_steps:
            return
        raise TrainingError(
            f"{self.bad_steps} steps in a row were not finite, the last at step {record['step']}: "
            f"{' and '.join(broken_terms(record))}. Their updates were skipped, so the saved weights are intact.",
            self.way_out,
        )


def broken_terms(record: Mapping[str, Any]) -> list[str]:
    """The loss terms of a step's record that are not finite, or the gradient when all of them are."""
    bad = [name for name, value in record.items() if name.startswith("loss/") and not math.isfinite(value)]
    return [name for name in bad if name != "loss/total"] or ["the gradient"]


def _joined(assignments: list[Tensor], labels: list[Tensor]) -> tuple[Tensor | None, Tensor | None]:
    """Both over all processes; labels stay on the host until they are read, or every step would wait for the device."""
    if not assignments:
        return None, None
    rows = torch.stack(assignments)
    return gather_columns(rows).cpu(), gather_columns(torch.stack(labels).to(rows.device)).cpu()
