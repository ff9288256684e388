"""Trains what was prepared, judges the last and the best step, and records the result."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ibot_cli import distributed
from ibot_cli.config.load import to_yaml
from ibot_cli.evaluate.pixel_baseline import PixelBaseline, pixel_baseline
from ibot_cli.runs import checkpoint
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.environment import describe
from ibot_cli.runs.evaluations import read_evaluations
from ibot_cli.train.finetune.loop import FinetuneLoop
from ibot_cli.train.finetune.prepare import Prepared, description
from ibot_cli.train.finetune.result import (
    BY_HOLDOUT,
    BY_TEST,
    BestStep,
    FinetuneResult,
    record_result,
    recorded_scratch,
)
from ibot_cli.train.finetune.validate import Verdict
from ibot_cli.train.machine import peak_memory
from ibot_cli.train.opening import open_run
from ibot_cli.train.out_of_memory import explained_shortage
from ibot_cli.train.plan import known
from ibot_cli.train.reporter import Reporter
from ibot_cli.weights.load import weights_hash


def execute(prepared: Prepared, reporter: Reporter) -> tuple[FinetuneResult, list[str]]:
    """Trains to the end, from the beginning or from the checkpoint, and judges the result.

    Returns:
        The result, and the files in which it was recorded; a complete run that is resumed is not recorded again.

    Raises:
        Interrupted: A signal ended it; everything is saved.
        RunError: The directory is in use or cannot be written.
        TrainingError: Losses stay non-finite, or there is not enough memory.
        DataError: Too many images cannot be read.
    """
    if prepared.refusal is not None:
        raise prepared.refusal
    begun = time.monotonic()
    with distributed.process_group(), explained_shortage():
        run, lock = open_run(prepared.out, prepared.request.resume, lambda run: _describe(run, prepared))
        try:
            loop = FinetuneLoop(prepared.plan, prepared.start.model, run, reporter)
            if prepared.checkpoint is not None:
                loop.restore(prepared.checkpoint.state, prepared.checkpoint.step)
            elif prepared.request.resume and loop.writer:
                loop.metrics.truncate_after(0)
            first_step = loop.step
            if prepared.request.resume and loop.writer and first_step < prepared.plan.schedule.total_steps:
                run.append_resume(first_step, describe(list(prepared.request.arguments)))
            loop.train()
            found = _judge(loop, prepared)
            result = _result(prepared, loop, found, first_step, time.monotonic() - begun)
            recorded = []
            if loop.writer and (first_step < loop.step or not read_evaluations(run.path)):
                recorded = record_result(result, prepared.plan, found.last, prepared.origin.weights)
            return result, recorded
        finally:
            if lock is not None:
                lock.release()


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What is measured when training is over."""

    last: Verdict
    weights_hash: str
    best: BestStep | None
    pixels: PixelBaseline | None


def _judge(loop: FinetuneLoop, prepared: Prepared) -> _Findings:
    """The last step and the best one on the test images, and the baseline; every process calls it."""
    images, plan = prepared.plan.images, prepared.plan
    watched_test = images.holdout is None and loop.last is not None
    last = loop.last if watched_test and loop.last is not None else loop.judge(images.test)
    last_hash = weights_hash(loop.model)
    best = _best(loop, last)
    pixels = None
    if prepared.request.baselines and loop.writer:
        pixels = pixel_baseline(
            images.train,
            images.test,
            channels=known(plan.config.data.channels),
            num_classes=len(images.classes),
            device=plan.device,
        )
    return _Findings(last=last, weights_hash=last_hash, best=best, pixels=pixels)


def _best(loop: FinetuneLoop, last: Verdict) -> BestStep | None:
    """The best step; one that a hold-out chose is judged on the test images now, which leaves its weights loaded."""
    best, images = loop.best, loop.plan.images
    if best is None:
        return None
    if images.holdout is None:
        chosen_on, top1, top5 = BY_TEST, best["top1"], best["top5"]
    else:
        verdict = last
        if best["step"] != loop.step:
            distributed.agree(None)  # process 0 has written the file
            loop.model.load_state_dict(checkpoint.load(loop.best_path).state["model"])
            verdict = loop.judge(images.test)
        chosen_on, top1, top5 = BY_HOLDOUT, verdict.top1, verdict.top5
    return BestStep(
        chosen_on=chosen_on,
        chosen_top1=best["top1"],
        top1=top1,
        top5=top5,
        step=best["step"],
        epoch=best["epoch"],
        checkpoint=str(loop.best_path),
    )


def _result(
    prepared: Prepared, loop: FinetuneLoop, found: _Findings, first_step: int, seconds: float
) -> FinetuneResult:
    plan, images, last, origin = prepared.plan, prepared.plan.images, found.last, prepared.origin
    low, high = last.interval
    scratch = recorded_scratch(origin.weights, plan) if loop.writer else None
    notes = [*images.notes, *_bad_test_note(last)]
    if plan.config.model.from_scratch:
        notes.append(
            "Random weights often need more updates than pre-trained ones; raise train.epochs to be fair to them."
        )
    if found.pixels is not None and found.pixels.num_test < last.total:
        notes.append(
            f"The pixel baseline uses {found.pixels.num_train:,} training and {found.pixels.num_test:,} images."
        )
    return FinetuneResult(
        run=str(prepared.out),
        top1=last.top1,
        top1_low=low,
        top1_high=high,
        top5=last.top5,
        test_loss=last.loss,
        best=found.best,
        pixels_top1=None if found.pixels is None else found.pixels.top1,
        pixels=None if found.pixels is None else found.pixels.label,
        scratch_top1=None if scratch is None else scratch[0],
        scratch_run=None if scratch is None else scratch[1],
        num_train=len(images.train.source),
        num_holdout=0 if images.holdout is None else len(images.holdout.source),
        labels_available=images.available,
        num_test=last.total,
        num_classes=len(images.classes),
        from_scratch=plan.config.model.from_scratch,
        head=prepared.start.head,
        started_from=origin.description,
        started_from_hash=origin.weights_hash,
        weights=f"fine-tuned network of {prepared.out / 'checkpoints' / f'step-{loop.step:08d}.pt'}, step {loop.step}",
        weights_hash=found.weights_hash,
        data=prepared.data,
        fingerprint=images.fingerprint,
        split=images.sentence,
        first_step=first_step,
        steps=loop.step,
        epochs=plan.schedule.epochs,
        seconds=seconds,
        bad_files=len(loop.loader.bad),
        peak_memory_gib=peak_memory(plan.device) / 2**30,
        notes=tuple(notes),
    )


def _bad_test_note(last: Verdict) -> list[str]:
    if not last.bad:
        return []
    first = next(f"{path}: {reason}" for path, reason in last.bad.items())
    return [f"Test images that could not be read and were left out: {len(last.bad)} ({first})."]


def _describe(run: RunDirectory, prepared: Prepared) -> None:
    """The small files; the configuration comes last, because with it the directory counts as a run."""
    run.write_data(description(prepared))
    run.write_environment(describe(list(prepared.request.arguments)))
    run.write_config(to_yaml(prepared.plan.config))
