"""Which numbers of a recorded evaluation are compared, and under which settings they mean the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Record = Mapping[str, Any]

# options that decide how long an evaluation takes and what is shown, never a figure
_SPEED = frozenset({"device", "workers", "heads", "cache", "no_cache"})
_SHOWN = frozenset({"baselines", "no_baselines", "json", "csv", "out", "figures", "plot", "html", "per_class"})
_BOOKKEEPING = frozenset(
    {"train.eval_epochs", "train.checkpoint_epochs", "train.keep_last", "train.log_every", "train.micro_batch_size"}
    | {"runtime.device", "runtime.workers", "runtime.threads"}
)
_CLUSTER_SCORES = {"ACC": "hungarian_accuracy", "NMI": "nmi", "AMI": "ami"}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of one evaluation; more is better.

    Attributes:
        measure: What was measured.
        value: The number; a share of the test images where `total` is known.
        percent: Whether people read it as a percentage.
        total: Test images.
        random: The same of random weights; None when not measured.
        pixels: The same of raw pixels; None when not measured.
        same_place: The same of the guess that a patch stays where it was; None where that is no answer.
        interval: Its 95 % interval as recorded; None where it follows from `total`, or is not known.
        scored: Whether the record's correctness of each image belongs to this number.
        random_of: The measure whose value for random weights this is; None for all others.
    """

    measure: str
    value: float
    percent: bool = True
    total: int | None = None
    random: float | None = None
    pixels: float | None = None
    same_place: float | None = None
    interval: tuple[float, float] | None = None
    scored: bool = False
    random_of: str | None = None


@dataclass(frozen=True)
class _Command:
    figures: Callable[[Record], list[Figure]]
    ignored: frozenset[str] = frozenset()  # options that only widen what is shown
    only: frozenset[str] | None = None  # the only options that tell columns apart; None means all but the ignored
    chosen: tuple[str, ...] = ()  # fields of the result that say what the figures were measured with


def figures_of(record: Record) -> list[Figure]:
    """The numbers of a record that are compared; none of commands that are unknown."""
    known = _COMMANDS.get(str(record["command"]))
    return [] if known is None else known.figures(record)


def settings_of(record: Record) -> dict[str, str]:
    """Settings that a figure depends on, as text; equal settings and equal data may be compared."""
    known = _COMMANDS[str(record["command"])]
    chosen = {name: record["result"][name] for name in known.chosen if record["result"].get(name) is not None}
    stated = {name: value for name, value in _stated(record, known).items() if known.only is None or name in known.only}
    return {name: _text(value) for name, value in sorted((stated | chosen).items())}


def recipe_of(record: Record) -> dict[str, str]:
    """Settings that the figure depends on too, but in which runs may differ that are compared."""
    known = _COMMANDS[str(record["command"])]
    rest = {name: value for name, value in _stated(record, known).items() if name not in (known.only or ())}
    return {} if known.only is None else {name: _text(value) for name, value in rest.items()}


def _stated(record: Record, known: _Command) -> dict[str, Any]:
    left_out = _SPEED | _SHOWN | known.ignored
    return {name: value for name, value in (record.get("settings") or {}).items() if name not in left_out}


def _knn(record: Record) -> list[Figure]:
    result = record["result"]
    return _figures(
        Figure(
            measure="k-NN top-1",
            value=_number(result.get("top1")),
            total=result.get("num_test"),
            random=result.get("baseline_random"),
            pixels=result.get("baseline_pixels"),
            scored=True,
        )
    )


def _linear(record: Record) -> list[Figure]:
    result = record["result"]
    logistic = (result.get("chosen") or {}).get("solver") == "lbfgs"
    return _figures(
        Figure(
            measure="logistic regression top-1" if logistic else "linear probe top-1",
            value=_number(result.get("top1")),
            total=result.get("num_test"),
            random=result.get("baseline_random"),
            pixels=result.get("baseline_pixels"),
            scored=True,
        )
    )


def _cluster(record: Record) -> list[Figure]:
    """Random weights and raw pixels are clustered by k-means; the prototypes belong to the network."""
    result = record["result"]
    baselines = {(each["features"], each["k"]): each for each in result.get("baselines") or ()}
    found = []
    for row in result.get("rows") or ():
        means, scores = row["method"] == "kmeans", row.get("scores") or {}
        random, pixels = (
            baselines.get((features, row["k"]), {}) if means else {} for features in ("random weights", "raw pixels")
        )
        size = f", {row['k']:,} clusters" if means and row["k"] != result.get("num_classes") else ""
        found += [
            Figure(
                measure=f"{'k-means' if means else 'prototypes'} {name}{size}",
                value=_number(scores.get(field)),
                percent=name == "ACC",
                random=random.get(field),
                pixels=pixels.get(field),
            )
            for name, field in _CLUSTER_SCORES.items()
        ]
    return _figures(*found)


def _retrieval(record: Record) -> list[Figure]:
    result = record["result"]
    baselines = result.get("baselines") or {}
    return _figures(
        Figure(
            measure="retrieval mAP",
            value=_number(result.get("mean_average_precision")),
            random=baselines.get("random_map"),
            pixels=baselines.get("pixels_map"),
        )
    )


def _finetune(record: Record) -> list[Figure]:
    """In the run that it began with, a training from scratch is a baseline; in its own run it is the run's result."""
    result = record["result"]
    used, available = result.get("num_train", 0) + result.get("num_holdout", 0), result.get("labels_available")
    few = f", {used:,} of {available:,} labels" if available and used < available else ""
    baseline = bool(result.get("from_scratch")) and str(record.get("weights")) != str(result.get("run"))
    return _figures(
        Figure(
            measure=("from scratch top-1" if baseline else "fine-tuned top-1") + few,
            value=_number(result.get("top1")),
            total=result.get("num_test"),
            random=result.get("scratch_top1"),
            pixels=result.get("pixels_top1"),
            scored=True,
            random_of="fine-tuned top-1" + few if baseline else None,
        )
    )


def _correspondence(record: Record) -> list[Figure]:
    result = record["result"]
    random = [_number(each.get("accuracy")) for each in result.get("random") or ()]
    trained = result.get("trained") or {}
    low, high = trained.get("interval") or (None, None)
    return _figures(
        Figure(
            measure="patches found again",
            value=_number(trained.get("accuracy")),
            random=sum(random) / len(random) if random else None,
            same_place=(result.get("chance") or {}).get("same_place"),
            interval=None if low is None or high is None else (float(low), float(high)),
        )
    )


def _figures(*found: Figure) -> list[Figure]:
    """Those that were measured."""
    return [figure for figure in found if figure.value == figure.value]


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ",".join(map(_text, value))
    return str(value)


_COMMANDS: Mapping[str, _Command] = {
    "knn-eval": _Command(
        _knn,
        ignored=frozenset({"k", "ks", "temperature", "temperatures", "checkpoints", "seed"}),
        chosen=("k", "temperature"),
    ),
    "linear-probe": _Command(_linear),
    "finetune": _Command(
        _finetune,
        ignored=_BOOKKEEPING,
        only=frozenset({"labels.fraction", "labels.per_class", "labels.seed", "model.image_size"}),
    ),
    "cluster": _Command(_cluster, ignored=frozenset({"k"})),
    "retrieve": _Command(_retrieval, ignored=frozenset({"k"})),
    "visualize-correspondence": _Command(
        _correspondence,
        ignored=frozenset({"changes"}),  # the request; what came of it differs between runs, and is chosen
        chosen=("size", "grid", "changes"),
    ),
}
COMMANDS = tuple(_COMMANDS)
