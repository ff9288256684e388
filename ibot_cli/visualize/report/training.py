"""The section of curves: losses, targets, quality, schedules and speed over epochs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ibot_cli.config.schema import Config
from ibot_cli.train.health import UNIFORM
from ibot_cli.visualize.pages.numbers import count, number, percent
from ibot_cli.visualize.report.charts import Curve, LineChart, draw
from ibot_cli.visualize.report.metrics import Series
from ibot_cli.visualize.report.record import RunRecord
from ibot_cli.visualize.report.section import Section

_SLOTS = {"cls": "class token", "patch": "patches"}
_LOSSES = {"loss/total": "total", "loss/cls": "class token", "loss/patch": "masked patches", "loss/koleo": "KoLeo"}


@dataclass(frozen=True)
class Group:
    """Charts under one heading; `folded` ones are shown when they are asked for."""

    title: str
    charts: Sequence[LineChart]
    folded: bool = False


def curves_section(run: RunRecord) -> Section:
    """What the run recorded over epochs, and how to read it."""
    groups = list(_finetune_groups(run) if run.task == "finetune" else _pretrain_groups(run))
    numbered = itertools.count()
    drawn = [
        (group.title, group.folded, [chart for each in group.charts if (chart := draw(each, next(numbered)))])
        for group in groups
    ]
    shown = [entry for entry in drawn if entry[2]]
    return Section(
        id="curves",
        title="Training curves",
        short="Curves",
        template="report/curves.html",
        values={"groups": shown, "missing": _missing(run, bool(shown))},
        styles=("report/curves.css",),
    )


def _missing(run: RunRecord, anything: bool) -> list[str]:
    if not anything:
        return ["The run has not recorded a single step yet, so there is nothing to draw."]
    told = []
    if not run.metrics.epochs:
        told.append("No epoch is complete yet; what is measured once per epoch comes later.")
    elif run.task == "pretrain" and not len(run.metrics.of_epochs("knn_accuracy")):
        told.append("There is no curve of k-NN accuracy: the images have no labels, or monitor.knn_epochs is 0.")
    return told


def _pretrain_groups(run: RunRecord) -> Iterator[Group]:
    yield Group("Losses and targets", [_losses(run), _agreement(run), *_targets(run)])
    yield Group("What the network learnt", _quality(run))
    yield Group("Optimisation and speed", [_gradient(run), _rate(run), _speed(run), _waiting(run)])
    yield Group("Schedules", _schedules(run), folded=True)


def _finetune_groups(run: RunRecord) -> Iterator[Group]:
    names = {"test": "test images", "holdout": "held-out training images"}
    accuracy = [_epochs(run, f"{part}/top1_accuracy", text) for part, text in names.items()]
    losses = [_epochs(run, f"{part}/loss", text) for part, text in {"train": "training images", **names}.items()]
    yield Group(
        "Accuracy and loss",
        [
            LineChart(
                title="Top-1 accuracy",
                about="Right answers of the classifier.",
                curves=accuracy,
                show=percent,
                span=0.1,
                most=1.0,
            ),
            LineChart(
                title="Loss per epoch",
                about="The training loss has augmentation and label smoothing in it, the others have not. A test loss "
                "that rises while the training loss falls means that the network learns its images by heart.",
                curves=losses,
                show=lambda value: number(value, 2),
                bounds=(0.0, None),
            ),
        ],
    )
    yield Group("Optimisation and speed", [_gradient(run), _rate(run), _speed(run), _waiting(run)])


def _losses(run: RunRecord) -> LineChart:
    curves = [_steps(run, name, text, rough=True) for name, text in _LOSSES.items()]
    return LineChart(
        title="Losses",
        about="Cross-entropy between teacher and student in nats. The teacher learns too, so a loss may rise for a "
        "while in a healthy run. Where steps are many, their averages are drawn over them.",
        curves=curves,
        show=lambda value: number(value, 2),
    )


def _agreement(run: RunRecord) -> LineChart:
    return LineChart(
        title="Agreement of teacher and student",
        about="Share of images whose class tokens get the same most likely prototype from both.",
        curves=[_steps(run, "agreement", "agreement", rough=True)],
        show=lambda value: percent(value, 0),
        bounds=(0.0, None),
        most=1.0,
    )


def _targets(run: RunRecord) -> list[LineChart]:
    def curves(name: str) -> list[Curve]:
        return [_epochs(run, f"{name}/{slot}", text) for slot, text in _SLOTS.items()]

    return [
        LineChart(
            title="Entropy of a target",
            about=f"Of the largest possible, ln K. Above {UNIFORM:.0%} targets are uniform and teach nothing.",
            curves=curves("target_entropy"),
            show=lambda value: percent(value, 0),
            bounds=(0.0, 1.0),
            most=1.0,
            limits=[(UNIFORM, "uniform: collapse")],
        ),
        LineChart(
            title="Entropy of the mean target",
            about="Of ln K: 100 % means that all prototypes are used equally. Near 0 few prototypes take everything.",
            curves=curves("marginal_entropy"),
            show=lambda value: percent(value, 0),
            bounds=(0.0, 1.0),
            most=1.0,
        ),
        LineChart(
            title="Prototypes in use",
            about="That were the most likely one of at least one target in an epoch.",
            curves=curves("used_prototypes"),
            show=count,
            bounds=(0.0, None),
            limits=[(float(size), f"all {size:,}") for size in _sizes(run)],
        ),
    ]


def _sizes(run: RunRecord) -> list[int]:
    """Numbers of prototypes of the heads."""
    if not isinstance(run.config, Config):
        return []
    head = run.config.head
    sizes = [head.prototypes] if head.shared else [head.prototypes, head.patch_prototypes]
    return sorted({size for size in sizes if size is not None})


def _quality(run: RunRecord) -> list[LineChart]:
    return [
        LineChart(
            title="k-NN accuracy while training",
            about="Of the teacher, on training images that were held out of the neighbours; the "
            "network saw them, but never their labels.",
            curves=[_epochs(run, "knn_accuracy", "k-NN top-1")],
            show=percent,
            span=0.1,
            most=1.0,
        ),
        LineChart(
            title="Prototypes and classes",
            about="How well the prototype of each training view agrees with its label: 0 is chance, 1 is perfect.",
            curves=[_epochs(run, "clusters/nmi", "NMI"), _epochs(run, "clusters/ami", "AMI")],
            show=lambda value: number(value, 2),
            bounds=(0.0, None),
        ),
    ]


def _gradient(run: RunRecord) -> LineChart:
    series = run.metrics.of_steps("grad_norm")
    positive = series.values[series.values > 0]
    spread = len(positive) > 0 and positive.max() > 30 * positive.min()
    curve = _steps(run, "grad_norm", "gradient norm", rough=True)
    if spread:
        kept = curve.series.values > 0
        curve = Curve(curve.name, Series(curve.series.steps[kept], curve.series.values[kept]), True)
    return LineChart(
        title="Gradient norm",
        about="Over all parameters, before clipping. Spikes that grow announce a run that falls apart.",
        curves=[curve],
        show=lambda value: f"{value:,.4g}" if spread else number(value, 2),
        bounds=(0.0, None),
        logarithmic=bool(spread),
    )


def _rate(run: RunRecord) -> LineChart:
    return LineChart(
        title="Learning rate",
        about="Linear warm-up, then a cosine.",
        curves=[_steps(run, "lr", "learning rate")],
        show=lambda value: f"{value:.2g}",
        bounds=(0.0, None),
    )


def _schedules(run: RunRecord) -> list[LineChart]:
    temps = [_steps(run, "teacher_temp", "class token"), _steps(run, "teacher_patch_temp", "patches")]
    return [
        LineChart(
            title="Weight decay",
            about="On a cosine.",
            curves=[_steps(run, "weight_decay", "weight decay")],
            show=lambda value: f"{value:.3g}",
            bounds=(0.0, None),
        ),
        LineChart(
            title="Momentum of the teacher",
            about="The teacher is the moving average of the student; at 1 it stands still.",
            curves=[_steps(run, "teacher_momentum", "momentum")],
            show=lambda value: f"{value:.5g}",
        ),
        LineChart(
            title="Temperature of the teacher",
            about="Lower is sharper.",
            curves=temps,
            show=lambda value: f"{value:.3g}",
            bounds=(0.0, None),
        ),
    ]


def _speed(run: RunRecord) -> LineChart:
    return LineChart(
        title="Images per second",
        about="Of training steps; evaluations and saving are left out.",
        curves=[_steps(run, "speed/images_per_second", "images per second", rough=True)],
        show=lambda value: f"{value:,.4g}",
        bounds=(0.0, None),
    )


def _waiting(run: RunRecord) -> LineChart:
    return LineChart(
        title="Time spent waiting for images",
        about="Where it is large, loading limits the speed; more runtime.workers help while there are free cores.",
        curves=[_steps(run, "speed/wait_share", "waiting", rough=True)],
        show=lambda value: percent(value, 0),
        bounds=(0.0, None),
        most=1.0,
    )


def _epochs(run: RunRecord, name: str, text: str) -> Curve:
    return Curve(text, run.metrics.of_epochs(name))


def _steps(run: RunRecord, name: str, text: str, *, rough: bool = False) -> Curve:
    """Values of steps over epochs; nothing where it is not known how many steps an epoch has."""
    series, per_epoch = run.metrics.of_steps(name), run.steps_per_epoch
    if per_epoch is None:
        return Curve(text, Series(series.steps[:0], series.values[:0]))
    return Curve(text, Series(series.steps / per_epoch, series.values), rough)
