"""The training loop of a classifier: steps, readings, validation, checkpoints, and stopping in good order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import to_yaml
from ibot_cli.core.arithmetic import float32_products
from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.classifier import Classifier
from ibot_cli.core.drop_path import DropPath, placed
from ibot_cli.core.optim import build_optimizer
from ibot_cli.core.scale import LossScale, restore_scale
from ibot_cli.data.finetune_loader import FinetuneLoader, FinetuneStep, LabelledBatch
from ibot_cli.data.rng import step_generator
from ibot_cli.evaluate.labelled import Labelled
from ibot_cli.runs import checkpoint
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.metrics import MetricsLog
from ibot_cli.train.compilation import Compilation, asked_for
from ibot_cli.train.finetune.plan import FinetunePlan, halved_plan, loader_of, wait_watch
from ibot_cli.train.finetune.step import FinetuneStepSettings, finetune_step, passes
from ibot_cli.train.finetune.validate import Verdict, judge
from ibot_cli.train.interrupt import Interrupted, StopRequest
from ibot_cli.train.journal import Journal
from ibot_cli.train.machine import peak_memory
from ibot_cli.train.out_of_memory import Rehearsals, keep_micro_batch, notice, release, until_too_large
from ibot_cli.train.pace import Pace, require_finite
from ibot_cli.train.plan import known
from ibot_cli.train.reporter import Reporter
from ibot_cli.train.tensorboard import Board
from ibot_cli.train.window import Window
from ibot_cli.weights.finetuned import pack

BEST_NAME = "best.pt"  # no name of the checkpoint store, which therefore never removes it
WAY_OUT = "Start a new run with a lower optim.lr, with runtime.precision=fp32, or with optim.clip_grad=1."


@dataclass
class FinetuneLoop:
    """One fine-tuning run in one process.

    Attributes:
        plan: What to do.
        model: The classifier, on the plan's device.
        run: Where to write; only process 0 writes.
        reporter: Who is told.
        step: Updates done.
        best: The validation with the most right answers so far: `right`, `total`, `top1`, `top5`, `step`, `epoch`.
        last: What the last step's validation gave, where there was one.
    """

    plan: FinetunePlan
    model: Classifier
    run: RunDirectory
    reporter: Reporter
    step: int = 0
    best: dict[str, Any] | None = None
    last: Verdict | None = None
    optimizer: torch.optim.Optimizer = field(init=False)
    loader: FinetuneLoader = field(init=False)

    def __post_init__(self) -> None:
        plan, config, schedule = self.plan, self.plan.config, self.plan.schedule
        self.writer = distributed.rank() == 0
        self.model.to(plan.device).train()
        self.model.backbone.checkpointing = config.runtime.checkpointing == "blocks"
        self.compilation = Compilation(
            [self.model.backbone] if config.runtime.compile else [],
            plan.device,
            required=asked_for(plan.choices, plan.origin, str(self.run.config)),
        )
        self.rehearsals = Rehearsals(plan.device)
        optim = config.optim
        self.optimizer = build_optimizer(self.model, betas=optim.betas, eps=optim.eps, layer_decay=optim.layer_decay)
        self.loader = loader_of(plan)
        self.store = CheckpointStore(self.run.checkpoints, keep_last=config.train.keep_last) if self.writer else None
        self.metrics = MetricsLog(self.run.metrics)
        self.window = Window(schedule.batch_size, config.train.max_bad_steps, way_out=WAY_OUT)
        board = Board(self.run.path, self.writer)
        self.journal = Journal(self.metrics, board, self.window, self.reporter, self.writer, wait_watch(plan))
        self.pace = Pace(
            total_steps=schedule.total_steps,
            steps_per_epoch=schedule.steps_per_epoch,
            log_every=config.train.log_every,
            checkpoint_epochs=config.train.checkpoint_epochs,
            device=plan.device,
        )
        self.settings = FinetuneStepSettings(
            weight_decay=optim.weight_decay,
            clip_grad=optim.clip_grad,
            dtype=plan.dtype,
            scaler=LossScale(plan.device) if plan.dtype is torch.float16 else None,
            average_over_ranks=distributed.average_over_ranks,
        )
        self.losses = torch.zeros(2, dtype=torch.float64, device=plan.device)  # sum and number in this epoch
        self._saved_step = self.step

    @property
    def best_path(self) -> Path:
        """The checkpoint of the best validation."""
        return self.run.checkpoints / BEST_NAME

    def train(self) -> None:
        """Runs to the end.

        Raises:
            Interrupted: After a signal, with everything saved.
            TrainingError: Losses stay non-finite, or the fewest images at a time do not fit into memory.
            DataError: Too many images cannot be read.
        """
        schedule = self.plan.schedule
        self.reporter.start(self.step, schedule.total_steps, schedule.steps_per_epoch)
        self.window.restart_clock()
        try:
            with float32_products(tf32=self.plan.tf32), StopRequest(self.reporter.stopping) as stop:
                after = partial(self._after_update, stop)
                while not until_too_large(self.loader.steps(self.step, schedule.total_steps), self._update, after):
                    self._halve_micro_batch()
        finally:
            self._name_bad_files()  # also when they are the reason to stop
            self.journal.close()

    def _halve_micro_batch(self) -> None:
        """Goes on with fewer images at once; the images do not depend on that, so the step is simply done again."""
        before, bad = self.plan, self.loader.bad
        self.model.zero_grad(set_to_none=True)
        release(before.device)
        self.plan = plan = halved_plan(before, self.step)
        if self.writer:
            keep_micro_batch(self.run, FinetuneConfig, known(plan.config.train.micro_batch_size))
        self.rehearsals = Rehearsals(plan.device)
        self.loader = loader_of(plan)
        self.loader.bad = bad
        self.reporter.warn(notice(self.step, known(before.config.train.micro_batch_size), plan.config))
        self.window.restart_clock()

    def _update(self, data: FinetuneStep) -> None:
        lr = self.plan.schedule.lr(self.step)
        batches = list(self._with_drop_path(data))
        attempt, forget = partial(passes, self.model, batches, self.settings), self.model.zero_grad
        if self.compilation.try_out(attempt, forget, self.reporter):
            self.window.restart_clock()
        self.rehearsals.try_out(attempt, forget)
        report = finetune_step(self.model, self.optimizer, batches, lr, self.settings)
        self.step += 1
        self.reporter.advance(self.step)
        known_values = {"step": self.step, "epoch": data.epoch, "lr": lr}
        numbers = {"loss/class": report.loss, "grad_norm": report.grad_norm}
        self.window.note(known_values, numbers, report.finite, data.wait, report.scale)
        counted = torch.stack([report.loss.double(), torch.ones_like(report.loss, dtype=torch.float64)])
        self.losses += torch.where(report.finite, counted, 0.0)

    def _with_drop_path(self, data: FinetuneStep) -> Iterator[tuple[LabelledBatch, DropPath | None]]:
        """The micro-batches with their slices of the step's draws, which are made for the whole global batch."""
        config = self.plan.config
        factors = drop_path_factors(
            config.model.drop_path,
            self.model.backbone.num_blocks,
            1,
            config.train.batch_size,
            step_generator(config.train.seed, self.step, "drop path"),
        )
        start = data.position.start
        for batch in data.micro:
            stop = start + len(batch)
            part = None if factors is None else factors[:, :, 0, start:stop].contiguous()
            yield batch, placed(part, config.model.drop_path, self.plan.device, whole=self.compilation.active)
            start = stop

    def _after_update(self, stop: StopRequest) -> None:
        """Readings, validation and checkpoints after update number `self.step`; the same in every process."""
        moment = self.pace.after(self.step, stop)
        if not moment.reading:
            return
        self.journal.read()
        if moment.epoch_end:
            self._end_epoch()
        stopping = self.pace.stopping(stop)
        if stopping or moment.saving:
            self._save(moment.epoch_end)
        if stopping and self.step < self.plan.schedule.total_steps:
            raise Interrupted(stop.signal_number or 15, self.step, self.run, "finetune")

    def _end_epoch(self) -> None:
        epochs = self.step // self.plan.schedule.steps_per_epoch
        self.loader.bad.load_state_dict(distributed.merged(self.loader.bad.reasons))
        total, number = self.losses.tolist()
        self.losses.zero_()
        record: dict[str, Any] = {"step": self.step, "epochs_done": epochs}
        record["train/loss"] = total / number if number else None
        if self._validation_due(epochs):
            record |= self._validate(epochs)
        record["bad_files"] = len(self.loader.bad)
        record["memory/peak_gib"] = peak_memory(self.plan.device) / 2**30
        if self.writer:
            self.journal.write_epoch(record)
            self._name_bad_files()
        self.window.restart_clock()

    def _validation_due(self, epochs: int) -> bool:
        every = self.plan.config.train.eval_epochs
        return every > 0 and (epochs % every == 0 or self.step == self.plan.schedule.total_steps)

    def _validate(self, epochs: int) -> dict[str, Any]:
        """Judges the hold-out, or the test images where there is none, and keeps the best weights."""
        images = self.plan.images
        name, part = ("test", images.test) if images.holdout is None else ("holdout", images.holdout)
        self.last = verdict = judge(
            self.model,
            part,
            self.plan.transform,
            device=self.plan.device,
            workers=known(self.plan.config.runtime.workers),
        )
        if self.best is None or verdict.right > self.best["right"]:
            self.best = {
                "right": verdict.right,
                "total": verdict.total,
                "top1": verdict.top1,
                "top5": verdict.top5,
                "step": self.step,
                "epoch": epochs,
            }
            self._save_best(epochs)
        values = {"top1_accuracy": verdict.top1, "top5_accuracy": verdict.top5, "loss": verdict.loss}
        return {f"{name}/{key}": value for key, value in values.items()}

    def judge(self, part: Labelled) -> Verdict:
        """How the classifier does on labelled images now."""
        plan = self.plan
        return judge(self.model, part, plan.transform, device=plan.device, workers=known(plan.config.runtime.workers))

    def _save_best(self, epochs: int) -> None:
        require_finite(self.model.state_dict(), self.step)
        if self.writer:
            checkpoint.save(self.best_path, self.network_state(), step=self.step, epoch=epochs)

    def _name_bad_files(self) -> None:
        if self.writer and len(self.loader.bad):
            self.run.write_bad_files(self.loader.bad.reasons)

    def _save(self, epoch_end: bool) -> None:
        if self._saved_step == self.step:
            return
        require_finite(self.model.state_dict(), self.step)
        if self.store is not None:
            self.metrics.sync()
            epoch = self.step // self.plan.schedule.steps_per_epoch
            self.store.save(self.state(), step=self.step, epoch=epoch, epoch_end=epoch_end)
        self._saved_step = self.step
        self.window.restart_clock()

    def network_state(self) -> dict[str, Any]:
        """What makes the classifier; see `ibot_cli.weights.finetuned`."""
        plan = self.plan
        return {
            **pack(plan.shape, plan.images.classes, plan.preparation),
            "config": yaml.safe_load(to_yaml(plan.config)),
            "model": dict(self.model.state_dict()),
        }

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        return {
            **self.network_state(),
            "optimizer": self.optimizer.state_dict(),
            "best": self.best,
            "epoch_losses": self.losses,
            "loss_scale": None if self.settings.scaler is None else self.settings.scaler.state(),
            "bad_steps": self.window.bad_steps,
            "bad_files": self.loader.bad.state_dict(),
            "fingerprint": self.plan.images.fingerprint,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def restore(self, state: dict[str, Any], step: int) -> None:
        """The opposite of `state`, after `step` updates."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = state["best"]
        self.losses.copy_(state["epoch_losses"])
        restore_scale(self.settings.scaler, state.get("loss_scale"))
        self.window.bad_steps = state["bad_steps"]
        self.loader.bad.load_state_dict(state["bad_files"])
        self.step = self._saved_step = step
        if self.writer:
            self.metrics.truncate_after(step)
