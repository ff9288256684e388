"""What a fine-tuning came to, and how it is recorded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ibot_cli.config.load import flatten
from ibot_cli.runs.evaluations import read_evaluations, record_evaluation, run_of
from ibot_cli.train.finetune.plan import FinetunePlan
from ibot_cli.train.finetune.validate import Verdict

COMMAND = "finetune"
BY_TEST, BY_HOLDOUT = "test images", "held-out training images"


@dataclass(frozen=True, kw_only=True)
class BestStep:
    """The step with the most right answers.

    Attributes:
        chosen_on: `held-out training images`, or `test images`: then `top1` is the best of many looks at them, as
            published figures are, and optimistic.
        chosen_top1: Top-1 on those images.
        top1: Top-1 on the test images.
        top5: Top-5 on the test images.
        step: Updates done.
        epoch: Epochs complete.
        checkpoint: The file.
    """

    chosen_on: str
    chosen_top1: float
    top1: float
    top5: float
    step: int
    epoch: int
    checkpoint: str


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """A finished fine-tuning.

    Attributes:
        run: Its directory.
        top1: Top-1 of the last step on the test images: the figure to quote.
        top1_low: Lower end of its 95 % score interval.
        top1_high: Upper end.
        top5: Top-5 of the last step (all classes count when there are fewer than five).
        test_loss: Cross-entropy of the last step on the test images, in nats.
        best: The best step, or None where nothing was measured while training.
        pixels_top1: A k-NN of raw pixels with the same training images; None when not measured.
        pixels: What exactly that is.
        scratch_top1: Best top-1 that is recorded for random weights with the same labels, however many epochs they had;
            None without such a run.
        scratch_run: Its directory.
        num_train: Images trained on.
        num_holdout: Training images that chose the best step.
        labels_available: Labelled training images in the data.
        num_test: Test images that could be read.
        num_classes: Classes.
        from_scratch: Whether it started from random weights.
        head: `new`, `kept` or `replaced` classifier.
        started_from: The weights it started from, or whose architecture it has.
        started_from_hash: sha256 of their tensors.
        weights: The fine-tuned network.
        weights_hash: sha256 of its tensors.
        data: DATA as given.
        fingerprint: Of all training and test images with their labels.
        split: Which images are which.
        first_step: Updates that were done before this call; above 0 for a resumed run.
        steps: Updates in all.
        epochs: Passes over the training images.
        seconds: Wall-clock time of this call.
        bad_files: Unreadable training images that were met.
        peak_memory_gib: Largest memory of this process.
        notes: What the reader should know.
    """

    run: str
    top1: float
    top1_low: float
    top1_high: float
    top5: float
    test_loss: float
    best: BestStep | None
    pixels_top1: float | None
    pixels: str | None
    scratch_top1: float | None
    scratch_run: str | None
    num_train: int
    num_holdout: int
    labels_available: int
    num_test: int
    num_classes: int
    from_scratch: bool
    head: str
    started_from: str
    started_from_hash: str
    weights: str
    weights_hash: str
    data: str
    fingerprint: str
    split: str
    first_step: int
    steps: int
    epochs: int
    seconds: float
    bad_files: int
    peak_memory_gib: float
    notes: tuple[str, ...] = ()


def record_result(result: FinetuneResult, plan: FinetunePlan, verdict: Verdict, weights: str) -> list[str]:
    """Write the result down in its own run, and in the run that the weights belong to.

    Args:
        result: See there.
        plan: Whose configuration is the exact settings.
        verdict: Of the last step on the test images.
        weights: WEIGHTS that it started from.

    Returns:
        The files.
    """
    settings = flatten(plan.config)
    begun_with = replace(result, weights=result.started_from, weights_hash=result.started_from_hash)
    files = [
        record_evaluation(result.run, COMMAND, settings=settings, result=result, correct=verdict.correct),
        record_evaluation(weights, COMMAND, settings=settings, result=begun_with, correct=verdict.correct),
    ]
    return [str(file) for file in files if file is not None]


def recorded_scratch(weights: str, plan: FinetunePlan) -> tuple[float, str] | None:
    """Top-1 and directory of the best recorded run from random weights with the same images and labels, or None.

    Random weights need more epochs than pre-trained ones, so runs of any length count.
    """
    run = run_of(weights)
    if run is None or plan.config.model.from_scratch:
        return None
    ours = flatten(plan.config)
    same = [*(path for path in ours if path.startswith("labels.")), "train.holdout_ratio", "model.image_size"]
    found = [
        (float(record["result"]["top1"]), str(record["result"]["run"]))
        for record in read_evaluations(run)
        if record["command"] == COMMAND
        and record["result"].get("from_scratch")
        and record["result"].get("fingerprint") == plan.images.fingerprint
        and all(record.get("settings", {}).get(path) == ours[path] for path in same)
    ]
    return max(found, default=None)
