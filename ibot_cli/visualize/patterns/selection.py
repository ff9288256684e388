"""Which prototypes are shown, and how pure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ibot_cli.errors import UsageError
from ibot_cli.quantities import counted
from ibot_cli.visualize.patterns.collector import Collector
from ibot_cli.visualize.patterns.result import Order, PatternOptions, Purity
from ibot_cli.visualize.patterns.wording import item, items

ORDERS = ("population", "confidence", "purity")


@dataclass(frozen=True, eq=False)
class Selection:
    """Prototypes in the order in which they are shown.

    Attributes:
        prototypes: Each has at least one patch that is not dark.
        min_count: Patches that each needed.
        warnings: What is not as it was asked for.
    """

    prototypes: tuple[int, ...]
    min_count: int
    warnings: tuple[str, ...]


def check_options(options: PatternOptions, num_prototypes: int, labelled: bool) -> None:
    """Refuse what cannot be, before anything is computed.

    Raises:
        UsageError: A count below 1, an even window, a brightness that is no number, an unknown kind or order, an order
            by purity without labels, or a prototype that does not exist.
    """
    for name in ("top_k", "num_patterns", "batch_size"):
        if getattr(options, name) < 1:
            raise UsageError(f"{name} is {getattr(options, name)}.", "Give 1 or more.")
    if options.window < 1 or options.window % 2 == 0:
        raise UsageError(f"A window of {options.window} patches has no middle.", "Give an odd number: 1, 3, 5, ...")
    if math.isnan(options.min_brightness):
        raise UsageError("The minimal brightness is not a number.", "Give a level of 0 to 255, or -1 to keep all.")
    if options.kind not in ("patch", "cls"):
        raise UsageError(f"There is no kind {options.kind!r} of pattern.", "Kinds: patch, cls.")
    if options.order not in ORDERS:
        raise UsageError(f"There is no order {options.order!r}.", f"Orders: {', '.join(ORDERS)}.")
    if options.order == "purity" and options.prototypes is None and not labelled:
        raise UsageError(
            "The images have no labels, so prototypes cannot be ordered by purity.",
            "Order them by population or confidence, or put the images into class folders.",
        )
    wrong = [number for number in options.prototypes or () if not 0 <= number < num_prototypes]
    if wrong:
        raise UsageError(
            f"There is no prototype {', '.join(map(str, wrong))}: these weights have {num_prototypes:,}.",
            f"Prototypes are numbered 0 to {num_prototypes - 1}.",
        )
    if options.prototypes == ():
        raise UsageError("No prototype was named.", "Name at least one, or none at all to have them chosen.")


def select(collector: Collector, options: PatternOptions) -> Selection:
    """The prototypes that `options` ask for.

    The order `confidence` or `purity` considers only prototypes with as many patches as the smaller of `top_k` and the
    median over the prototypes in use: one lucky patch would win both.
    """
    if options.prototypes is not None:
        named = tuple(dict.fromkeys(options.prototypes))
        found = tuple(number for number in named if collector.counts[number])
        empty = [str(number) for number in named if not collector.counts[number]]
        left_out = f"Without any {item(options.kind)} here, and left out: prototype {', '.join(empty)}."
        return Selection(found, 1, (left_out,) if empty else ())
    min_count = 1 if options.order == "population" else minimal_count(collector)
    ranked = _ranked(collector, options.order, min_count)[: options.num_patterns]
    warnings: tuple[str, ...] = ()
    if len(ranked) < options.num_patterns:
        one = "a patch" if options.kind == "patch" else "an image"
        enough = f"{one} here" if min_count == 1 else f"the {items(options.kind, min_count)} that this order asks for"
        only = f"{counted(len(ranked), 'prototype')} {'has' if len(ranked) == 1 else 'have'}"
        warnings = (f"{options.num_patterns:,} patterns were asked for; only {only} {enough}.",)
    return Selection(tuple(map(int, ranked)), min_count, warnings)


def minimal_count(collector: Collector) -> int:
    """The smaller of `top_k` and the median number of patches over the prototypes in use."""
    used = collector.counts[collector.counts > 0]
    return max(1, min(collector.top_k, int(np.median(used)))) if len(used) else 1


def purity(collector: Collector, options: PatternOptions, labels: NDArray[np.int64]) -> Purity:
    """How well the prototypes that `options` select agree with the labels `[n]` of the source; NaN for none."""
    chosen = select(collector, options).prototypes
    means = [members_purity(labels[collector.members(number).image]) for number in chosen]
    shares = [class_share(collector, number)[1] for number in chosen]
    return Purity(
        members=float(np.mean(means)) if means else float("nan"),
        patches=float(np.mean(shares)) if shares else float("nan"),
        overall=overall_purity(collector),
        used=int((collector.counts > 0).sum()),
        num_patterns=len(chosen),
    )


def members_purity(labels: NDArray[np.int64]) -> float:
    """Share of the most common of the labels that are there (not negative)."""
    return members_class(labels)[1]


def members_class(labels: NDArray[np.int64], preferred: int | None = None) -> tuple[int | None, float]:
    """Most common of the labels that are there (not negative), of equals `preferred`, else the lowest; and its share.

    None and 0 where no label is there.
    """
    known = labels[labels >= 0]
    if len(known) == 0:
        return None, 0.0
    counts = np.bincount(known)
    most = np.flatnonzero(counts == counts.max()).tolist()
    label = preferred if preferred in most else most[0]
    return label, float(counts.max() / len(known))


def class_share(collector: Collector, prototype: int) -> tuple[int, float]:
    """Most common class of a prototype's patches, the lowest of equals, and its share."""
    histogram = collector.histogram[prototype]
    label = int(histogram.argmax())
    return label, float(histogram[label] / max(1, int(histogram.sum(dtype=np.int64))))


def overall_purity(collector: Collector) -> float:
    """Share of all patches whose class is the most common one of their prototype."""
    total = int(collector.histogram.sum(dtype=np.int64))
    return float(collector.histogram.max(axis=1).sum(dtype=np.int64) / max(1, total))


def _ranked(collector: Collector, order: Order, min_count: int) -> NDArray[np.int64]:
    """Prototypes with at least `min_count` patches, best first; of equals the larger, then the lower number."""
    counts = collector.counts
    value = counts.astype(np.float64)
    if order == "confidence":
        value = collector.probability_sum / np.maximum(counts, 1)
    elif order == "purity":
        value = collector.histogram.max(axis=1) / np.maximum(collector.histogram.sum(axis=1, dtype=np.int64), 1)
    ranked = np.lexsort((-counts, -value))
    return ranked[counts[ranked] >= min_count]
