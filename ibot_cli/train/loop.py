"""The training loop: steps, readings, epochs, checkpoints, and stopping in good order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.load import to_yaml
from ibot_cli.config.schema import Config
from ibot_cli.core.arithmetic import float32_products
from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.objective import Objective
from ibot_cli.core.scale import LossScale, restore_scale
from ibot_cli.data.loader import StepData, ViewLoader
from ibot_cli.data.rng import step_generator
from ibot_cli.data.sources import Source, known_fingerprint
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.metrics import MetricsLog
from ibot_cli.train.build import objective_of, optimizer_of
from ibot_cli.train.compilation import Compilation, asked_for
from ibot_cli.train.epoch import EpochSums
from ibot_cli.train.health import Watch
from ibot_cli.train.interrupt import Interrupted, StopRequest
from ibot_cli.train.journal import Journal
from ibot_cli.train.machine import peak_memory
from ibot_cli.train.monitor import OnlineKnn, epoch_record
from ibot_cli.train.opening import check_same_images
from ibot_cli.train.out_of_memory import Rehearsals, keep_micro_batch, notice, release, until_too_large
from ibot_cli.train.pace import Pace, require_finite
from ibot_cli.train.plan import Plan, halved_plan, known, loader_of, wait_watch
from ibot_cli.train.reporter import Reporter
from ibot_cli.train.start import Beginning
from ibot_cli.train.step import StepSettings, forget_passes, passes, train_step
from ibot_cli.train.tensorboard import Board
from ibot_cli.train.window import Window


@dataclass
class Loop:
    """One run in one process.

    Attributes:
        plan: What to do.
        source: The images.
        run: Where to write; only process 0 writes.
        reporter: Who is told.
        beginning: Weights to start from instead of random ones; not where a checkpoint follows.
        step: Updates done.
    """

    plan: Plan
    source: Source
    run: RunDirectory
    reporter: Reporter
    beginning: Beginning | None = None
    step: int = 0
    objective: Objective = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    loader: ViewLoader = field(init=False)
    sums: EpochSums = field(default_factory=EpochSums)

    def __post_init__(self) -> None:
        plan, config = self.plan, self.plan.config
        self.writer = distributed.rank() == 0
        self.objective = objective_of(config, distributed.sum_over_ranks)
        if self.beginning is not None:
            self.beginning.fill(self.objective)
        self.objective.to(plan.device)
        self.optimizer = optimizer_of(self.objective, config)
        check_same_images(self.source)
        self.fingerprint = known_fingerprint(self.source)  # before anything is read; on every rank
        self.loader = loader_of(plan, self.source)
        self.store = (
            CheckpointStore(
                self.run.checkpoints, keep_last=config.train.keep_last, keep_epochs=config.train.keep_every_epochs
            )
            if self.writer
            else None
        )
        self.metrics = MetricsLog(self.run.metrics)
        self.window = Window(plan.schedule.batch_size, config.train.max_bad_steps)
        board = Board(self.run.path, config.monitor.tensorboard and self.writer)
        self.journal = Journal(self.metrics, board, self.window, self.reporter, self.writer, wait_watch(plan))
        self.pace = Pace(
            total_steps=plan.schedule.total_steps,
            steps_per_epoch=plan.schedule.steps_per_epoch,
            log_every=config.train.log_every,
            checkpoint_epochs=config.train.checkpoint_epochs,
            checkpoint_steps=config.train.checkpoint_steps,
            device=plan.device,
        )
        self.watch = Watch(config.objective.balance)
        self.knn = OnlineKnn(self.source, config, plan.device) if self._wants_knn() else None
        self.settings = StepSettings(
            clip_grad=config.optim.clip_grad,
            clip_mode=config.optim.clip_mode,
            dtype=plan.dtype,
            scaler=LossScale(plan.device) if plan.dtype is torch.float16 else None,
            average_over_ranks=distributed.average_over_ranks,
        )
        required = asked_for(plan.choices, plan.origin, str(self.run.config))
        self.compilation = Compilation.of_objective(self.objective, config, plan.device, required=required)
        self.rehearsals = Rehearsals(plan.device)
        self._saved_step = self.step
        self._saved_at = time.monotonic()

    def _wants_knn(self) -> bool:
        labels = self.source.labels
        return self.writer and self.plan.config.monitor.knn_epochs > 0 and labels is not None and len(set(labels)) > 1

    def train(self) -> None:
        """Runs to the end.

        Raises:
            Interrupted: After a signal, with everything saved.
            TrainingError: Losses stay non-finite, or one image at a time does not fit into memory.
            DataError: Too many images cannot be read.
        """
        schedule = self.plan.schedule
        self.reporter.start(self.step, schedule.total_steps, schedule.steps_per_epoch)
        self.window.restart_clock()
        try:
            if self.beginning is not None:
                self._keep_beginning()
            with float32_products(tf32=self.plan.tf32), StopRequest(self.reporter.stopping) as stop:
                after = partial(self._after_update, stop)
                while not until_too_large(self.loader.steps(self.step, schedule.total_steps), self.update, after):
                    self._halve_micro_batch()
        finally:
            self._name_bad_files()  # also when they are the reason to stop
            self.journal.close()

    def _halve_micro_batch(self) -> None:
        """Goes on with fewer images at once; the views do not depend on that, so the step is simply done again."""
        before, bad = self.plan, self.loader.bad
        forget_passes(self.objective)
        release(before.device)
        self.plan = plan = halved_plan(before, self.step)
        if self.writer:
            keep_micro_batch(self.run, Config, plan.micro_batch_size)
        self.rehearsals = Rehearsals(plan.device)
        self.loader = loader_of(plan, self.source)
        self.loader.bad = bad
        self.reporter.warn(notice(self.step, before.micro_batch_size, plan.config))
        self.window.restart_clock()

    def _keep_beginning(self) -> None:
        """Measures and saves the weights as they are before the first update, so that the run needs no other file."""
        if self.writer:
            record: dict[str, Any] = {"step": 0, "epochs_done": 0}
            if self.knn is not None:
                record["knn_accuracy"] = self.knn.accuracy(self.objective.teacher.backbone)
            self.journal.write_epoch(record)
        self._saved_step = -1
        self._save(epoch_end=False)

    def update(self, data: StepData) -> None:
        """One optimiser update from the images of a step; its numbers wait on the device for the next reading."""
        plan = self.plan
        now = plan.schedule.now(self.step)
        batches = [self.compilation.padded(batch.to(plan.device)) for batch in self._with_drop_path(data)]
        objective, settings, forget = self.objective, self.settings, partial(forget_passes, self.objective)
        if self.compilation.try_out(partial(passes, objective, batches[:1], now, settings), forget, self.reporter):
            self.window.restart_clock()
        self.rehearsals.try_out(partial(passes, objective, batches, now, settings), forget)
        report = train_step(objective, self.optimizer, batches, now, settings)
        self.sums.add_stats(report.stats, report.finite)
        labels = None if data.labels is None else torch.as_tensor(data.labels)
        self.step += 1
        self.reporter.advance(self.step)
        self.window.add(self.step, data.epoch, now, report, labels, data.wait)

    def _with_drop_path(self, data: StepData) -> Iterator[Any]:
        """The micro-batches with their slices of the step's drop-path draws, made for the whole global batch."""
        config = self.plan.config
        views = config.views.num_global + config.views.num_local
        factors = drop_path_factors(
            config.model.drop_path,
            self.objective.student.backbone.num_blocks,
            views,
            known(config.train.batch_size),
            step_generator(config.train.seed, self.step, "drop path"),
        )
        start = data.position.start
        for batch in data.micro:
            stop = start + batch.num_images
            yield batch if factors is None else batch.with_drop_path(factors[..., start:stop].contiguous())
            start = stop

    def _after_update(self, stop: StopRequest) -> None:
        """Readings, epoch end and checkpoints after update number `self.step`; the same in every process."""
        moment = self.pace.after(self.step, stop)
        if not moment.reading:
            return
        self._read()
        if moment.epoch_end:
            self._end_epoch()
        stopping = self.pace.stopping(stop)
        if stopping or moment.saving or self._minutes_over():
            self._save(moment.epoch_end)
        if stopping and self.step < self.plan.schedule.total_steps:
            raise Interrupted(stop.signal_number or 15, self.step, self.run)

    def _minutes_over(self) -> bool:
        minutes = self.plan.config.train.checkpoint_minutes
        over: bool = distributed.agree(minutes > 0 and time.monotonic() - self._saved_at > 60 * minutes)
        return over

    def _read(self) -> None:
        content = self.journal.read()
        self.sums.add_assignments(content.assignments, content.labels)

    def _end_epoch(self) -> None:
        epochs = self.step // self.plan.schedule.steps_per_epoch
        self.loader.bad.load_state_dict(distributed.merged(self.loader.bad.reasons))
        if self.writer:
            record = {"step": self.step, "epochs_done": epochs, **epoch_record(self.sums)}
            if self.knn is not None and self._knn_due(epochs):
                record["knn_accuracy"] = self.knn.accuracy(self.objective.teacher.backbone)
            record["bad_files"] = len(self.loader.bad)
            record["memory/peak_gib"] = peak_memory(self.plan.device) / 2**30
            self.journal.write_epoch(record)
            self._name_bad_files()
        # the targets of a new head say little until it has learnt
        if epochs > self.plan.schedule.freeze_backbone_epochs:
            for message in self.watch.look(self.sums.health()):
                self.reporter.warn(message)
        self.sums.clear()
        self.window.restart_clock()

    def _name_bad_files(self) -> None:
        if self.writer and len(self.loader.bad):
            self.run.write_bad_files(self.loader.bad.reasons)

    def _knn_due(self, epochs: int) -> bool:
        return epochs % self.plan.config.monitor.knn_epochs == 0 or self.step == self.plan.schedule.total_steps

    def _save(self, epoch_end: bool) -> None:
        if self._saved_step == self.step:
            return
        require_finite(self.objective.state_dict(), self.step)
        if self.store is not None:
            self.metrics.sync()
            epoch = self.step // self.plan.schedule.steps_per_epoch
            self.store.save(self.state(), step=self.step, epoch=epoch, epoch_end=epoch_end)
        self._saved_step, self._saved_at = self.step, time.monotonic()
        self.window.restart_clock()

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; see `ibot_cli.runs.checkpoint` for the entries' use."""
        objective = self.objective
        return {
            "config": yaml.safe_load(to_yaml(self.plan.config)),
            "student": dict(objective.student.state_dict()),
            "teacher": dict(objective.teacher.state_dict()),
            "centers": {"cls": objective.center, "patch": objective.patch_center},
            "optimizer": self.optimizer.state_dict(),
            "epoch_sums": self.sums.state(),
            "watch": self.watch.state(),
            "loss_scale": None if self.settings.scaler is None else self.settings.scaler.state(),
            "bad_steps": self.window.bad_steps,
            "bad_files": self.loader.bad.state_dict(),
            "fingerprint": self.fingerprint,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """The opposite of `state`, after `step` updates."""
        objective, device = self.objective, self.plan.device
        objective.student.load_state_dict(state["student"])
        objective.teacher.load_state_dict(state["teacher"])
        objective.center.copy_(state["centers"]["cls"])
        objective.patch_center.copy_(state["centers"]["patch"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sums.restore(state["epoch_sums"], device)
        self.watch.restore(state["watch"])
        restore_scale(self.settings.scaler, state.get("loss_scale"))
        self.window.bad_steps = state["bad_steps"]
        self.loader.bad.load_state_dict(state["bad_files"])
        self.step = self._saved_step = step
        if self.writer:
            self.metrics.truncate_after(step)

    def start_knn(self) -> float | None:
        """The k-NN accuracy that was written before the first update, or None."""
        return next((r.get("knn_accuracy") for r in self.metrics.read() if r["step"] == 0), None)

    def final_knn(self) -> float | None:
        """The last k-NN accuracy that was written, or None."""
        values = [r["knn_accuracy"] for r in self.metrics.read() if r.get("knn_accuracy") is not None]
        return values[-1] if values else None
