"""How a run went, in words: what its records say is good, what is wrong, and what to change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from ibot_cli.config.schema import Config
from ibot_cli.evaluate.confidence import unpaired_difference
from ibot_cli.quantities import counted
from ibot_cli.train.health import PATIENCE_EPOCHS, SlotHealth, verdict
from ibot_cli.train.interrupt import resume_command
from ibot_cli.visualize.report.evaluations import Evaluated, standing
from ibot_cli.visualize.report.history import sessions
from ibot_cli.visualize.report.record import RunRecord

Tone = Literal["good", "warn", "bad", ""]
LARGE_WAIT = 0.2
MANY_SKIPPED = 0.01
ALMOST_UNIFORM = 0.95
CEILING = 0.98
_SLOTS = {"cls": "class-token", "patch": "patch"}
_TUNED = "fine-tuned top-1"
_FROZEN = ("k-NN top-1", "linear probe top-1", "logistic regression top-1")


@dataclass(frozen=True)
class Finding:
    """One thing to say about a run.

    Attributes:
        tone: `bad` spoils the result, `warn` is worth a look, `good` is as it should be, "" only informs.
        text: What was found, and what to do about it.
    """

    tone: Tone
    text: str


@dataclass(frozen=True)
class Episode:
    """Epochs in a row in which a slot's targets had collapsed; `text` is the last verdict on them."""

    slot: str
    first: int
    last: int
    text: str
    over: bool


def findings(run: RunRecord, evaluated: Evaluated) -> list[Finding]:
    """Everything to say, the worst first."""
    found = [*_progress(run), *_resumes(run), *_targets(run), *_skipped(run), *_quality(run)]
    found += [*_baselines(run, evaluated), *_waiting(run), *_files(run)]
    found += [Finding("warn", problem) for problem in run.problems]
    order: Sequence[Tone] = ("bad", "warn", "", "good")
    return sorted(found, key=lambda each: order.index(each.tone))


def health(run: RunRecord) -> tuple[str, Tone]:
    """The state of the run in a word or two: of its optimisation, not of what it is worth."""
    if run.task == "pretrain" and any(not episode.over for episode in collapses(run)):
        return "Collapsed", "bad"
    if _skipped_share(run) > MANY_SKIPPED:
        return "Unstable", "bad"
    if not run.metrics.epochs:
        return "Not known yet", ""
    if run.task == "pretrain" and _almost_uniform(run):
        return "Almost uniform", "warn"
    if run.metrics.skipped or (run.task == "pretrain" and collapses(run)):
        return "With incidents", "warn"
    return "Healthy", "good"


def collapses(run: RunRecord) -> list[Episode]:
    """Every collapse that lasted as long as a running training waits before it tells of it."""
    if not isinstance(run.config, Config):
        return []
    found = []
    for slot in _SLOTS:
        bad: list[tuple[int, str]] = []
        for epoch, text in [*_verdicts(run, slot, run.config), (0, None)]:
            if text is not None:
                bad.append((epoch, text))
                continue
            if len(bad) >= PATIENCE_EPOCHS:
                found.append(Episode(slot, bad[0][0], bad[-1][0], bad[-1][1], over=epoch > 0))
            bad = []
    return found


def _verdicts(run: RunRecord, slot: str, config: Config) -> Iterator[tuple[int, str | None]]:
    """Epoch by epoch what the training itself would have said."""
    head = config.head
    prototypes = (head.prototypes if slot == "cls" or head.shared else head.patch_prototypes) or 2
    per_view = 1.0 if slot == "cls" else sum(config.mask.ratio) / len(config.mask.ratio)
    rows = (run.steps_per_epoch or 1.0) * (run.batch_size or 1) * config.views.num_global * per_view
    for record in run.metrics.epochs:
        values = [record.get(f"{name}/{slot}") for name in ("target_entropy", "marginal_entropy", "used_prototypes")]
        if any(value is None for value in values):
            continue
        entropy, marginal, used = map(float, values)  # type: ignore[arg-type]
        of_epoch = SlotHealth(
            entropy=entropy, marginal_entropy=marginal, used=int(used), prototypes=prototypes, rows=max(int(rows), 1)
        )
        yield int(record["epochs_done"]), verdict(slot, of_epoch, config.objective.balance)


def _targets(run: RunRecord) -> Iterator[Finding]:
    if run.task != "pretrain" or not run.metrics.epochs:
        return
    episodes = collapses(run)
    for each in episodes:
        span = f"epoch {each.first:,}" if each.first == each.last else f"epochs {each.first:,} to {each.last:,}"
        if each.over:
            yield Finding("warn", f"In {span} the run looked collapsed, and recovered. {each.text}")
        else:
            yield Finding("bad", f"Since epoch {each.first:,}: {each.text}")
    if not episodes and (told := _last_targets(run)):
        if names := _almost_uniform(run):
            advice = "Early in a run that is usual; later, lower the teacher's temperature for them."
            yield Finding("warn", f"{told} The {' and '.join(names)} targets are almost uniform. {advice}")
        else:
            yield Finding("good", f"No collapse. {told}")


def _almost_uniform(run: RunRecord) -> list[str]:
    """The targets that carry next to nothing in the last epoch, by name."""
    last = run.metrics.epochs[-1]
    entropies = {name: last.get(f"target_entropy/{slot}") for slot, name in _SLOTS.items()}
    return [name for name, entropy in entropies.items() if entropy is not None and entropy > ALMOST_UNIFORM]


def _last_targets(run: RunRecord) -> str | None:
    last = run.metrics.epochs[-1]
    parts = [
        f"{name} targets carry {last[f'target_entropy/{slot}']:.1%} of the largest possible entropy and use "
        f"{last[f'used_prototypes/{slot}']:,} prototypes"
        for slot, name in _SLOTS.items()
        if last.get(f"target_entropy/{slot}") is not None and last.get(f"used_prototypes/{slot}") is not None
    ]
    return f"In the last epoch the teacher's {', its '.join(parts)}." if parts else None


def _progress(run: RunRecord) -> Iterator[Finding]:
    planned = run.epochs_planned
    if run.finished:
        yield Finding("good", f"All {counted(planned or 0, 'epoch')} that were planned are complete.")
        return
    of = "" if planned is None else f" of {planned:,}"
    resume = f"`{resume_command(run.path, run.task)}`"
    saved = f"Go on with {resume}." if run.checkpoints else f"There is no checkpoint yet; {resume} begins again."
    yield Finding("warn", f"The run is not complete: {counted(run.epochs_done, 'epoch')}{of} done. {saved}")


def _resumes(run: RunRecord) -> Iterator[Finding]:
    """Going on is exact on the same machine with the same versions only."""
    if not run.resumes:
        return
    text = f"The run was stopped and went on {counted(len(run.resumes), 'time')}, the last time after step "
    text += f"{run.resumes[-1]['step']:,}; see Environment."
    if any(each.changes for each in sessions(run)):
        yield Finding("warn", f"{text} Versions or the machine changed, so it may not equal a run without a stop.")
    else:
        yield Finding("", text)


def _skipped(run: RunRecord) -> Iterator[Finding]:
    skipped, steps = run.metrics.skipped, run.metrics.last_step
    if not skipped:
        if steps:
            yield Finding("good", f"Every one of {counted(steps, 'update')} was finite; none was skipped.")
        return
    share = _skipped_share(run)
    advice = (
        ""
        if share <= MANY_SKIPPED
        else " Lower optim.lr, set runtime.precision=fp32, or clip with optim.clip_mode=global."
    )
    yield Finding(
        "bad" if share > MANY_SKIPPED else "warn",
        f"{counted(len(skipped), 'update')} of {steps:,} ({share:.2%}) not finite and skipped, the first at step "
        f"{skipped[0]:,}.{advice}",
    )


def _skipped_share(run: RunRecord) -> float:
    return len(run.metrics.skipped) / max(run.metrics.last_step, 1)


def _quality(run: RunRecord) -> Iterator[Finding]:
    """Whether the last weights are the best ones, as far as the held-out images tell."""
    name = next(
        (n for n in ("knn_accuracy", "holdout/top1_accuracy", "test/top1_accuracy") if len(run.metrics.of_epochs(n))),
        None,
    )
    if name is None:
        return
    series = run.metrics.of_epochs(name)
    what = "k-NN accuracy on held-out training images" if name == "knn_accuracy" else "top-1 accuracy"
    first, last, best = float(series.values[0]), float(series.values[-1]), float(series.values.max())
    where = int(series.steps[series.values.argmax()])
    images = _judged(run, name)
    if _above(best, last, images):
        see = " See `ibot knn-eval RUN DATA --checkpoints all`." if name == "knn_accuracy" else ""
        yield Finding(
            "warn",
            f"The {what} was best after epoch {where:,} ({best:.1%}) and fell to {last:.1%}, by more "
            f"than chance explains.{see}",
        )
    elif len(series) > 1 and _above(last, first, images):
        yield Finding("good", f"The {what} rose from {first:.1%} (epoch {series.steps[0]:,.0f}) to {last:.1%}.")
    elif len(series) > 1 and min(first, last) >= CEILING:
        yield Finding(
            "",
            f"The {what} was {first:.1%} at first and {last:.1%} at last: these images are too easy to tell good "
            "weights from better ones.",
        )
    elif len(series) > 1:
        yield Finding(
            "warn",
            f"The {what} was {first:.1%} at first and {last:.1%} at last; with about {counted(images, 'image')} to "
            "judge by, that is no more than chance explains.",
        )


def _above(share: float, other: float, images: int) -> bool:
    """Whether one accuracy is above another by more than the choice of the images explains, to 95 %."""
    return unpaired_difference(round(share * images), images, round(other * images), images)[1] > 0


def _judged(run: RunRecord, name: str) -> int:
    """About how many images an accuracy is a share of."""
    if name == "test/top1_accuracy":
        return max(run.data.get("num_test") or 100, 1)
    if name == "holdout/top1_accuracy":
        return max(run.data.get("num_holdout") or 100, 1)
    if not isinstance(run.config, Config):
        return 100
    images = min(run.data.get("num_images") or 1000, run.config.monitor.knn_max_images)
    return max(round(images * run.config.monitor.knn_holdout), 1)


def _baselines(run: RunRecord, evaluated: Evaluated) -> Iterator[Finding]:
    main = evaluated.find(*([_TUNED, *_FROZEN] if run.task == "finetune" else [*_FROZEN, _TUNED]))
    if main is None:
        if not evaluated.columns:
            yield Finding(
                "", "The run was not evaluated yet, so nothing is known against random weights and raw pixels."
            )
        return
    column, cell = main
    each = standing(cell)
    tone: Tone = "good" if each.tone == "good" else "warn" if each.tone else ""
    yield Finding(tone, f"{column.title} on {column.data} is {cell.value:.1%}: {each.words}.")


def _waiting(run: RunRecord) -> Iterator[Finding]:
    series = run.metrics.of_steps("speed/wait_share")
    recent = series.values[-max(len(series) // 4, 1) :] if len(series) else series.values
    if len(recent) and float(recent.mean()) > LARGE_WAIT:
        yield Finding(
            "",
            f"Training spent {recent.mean():.0%} of its time waiting for images; with free cores, raise "
            "runtime.workers.",
        )


def _files(run: RunRecord) -> Iterator[Finding]:
    if run.bad_files:
        were = "was" if len(run.bad_files) == 1 else "were"
        yield Finding(
            "warn", f"{counted(len(run.bad_files), 'image')} could not be read and {were} replaced by others; see Data."
        )
