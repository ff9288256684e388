"""The sweep: all heads on the same batches, epoch by epoch, then the choice of one of them.

Under `torchrun` the heads are shared out: every process trains some of them on all batches, so no gradients travel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ibot_cli import distributed
from ibot_cli.data.rng import step_generator
from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.linear.bank import HeadBank, Scores, head_bytes
from ibot_cli.evaluate.linear.feed import Feed
from ibot_cli.evaluate.linear.grid import HeadSpec
from ibot_cli.evaluate.linear.heads import initial_weight
from ibot_cli.evaluate.linear.result import BestOnTest, HeadResult
from ibot_cli.evaluate.linear.settings import Means, ProbeSettings
from ibot_cli.evaluate.linear.table import ScoreTable

ROUND_BYTES = 4 * 2**30  # of heads that are trained at once
Place = tuple[str, HeadSpec]


@dataclass(frozen=True)
class Judged:
    """Images that judge heads: pooling -> features `[m, D]`, and int64 labels `[m]`; all on the CPU."""

    features: Mapping[str, Tensor]
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a solver found.

    Attributes:
        heads: All heads, best on the held-out images first; the first one is the chosen one.
        best_on_test_top1: The largest test accuracy of any head after any epoch.
        best_on_test: Which head, and when.
        correct: Whether the chosen head is right, bool `[m]`, by test image.
    """

    heads: tuple[HeadResult, ...]
    best_on_test_top1: float
    best_on_test: BestOnTest
    correct: Tensor


def sweep(
    feed: Feed,
    holdout: Judged | None,
    test: Judged,
    num_classes: int,
    settings: ProbeSettings,
    means: Means,
    prefix: str = "",
) -> Outcome:
    """Train all heads and choose one.

    Args:
        feed: The batches.
        holdout: Held-out training images, which choose; None where there is a single head.
        test: Test images; every head is tested after every epoch, but they choose nothing.
        num_classes: C.
        settings: Heads and schedule.
        means: Where, and whom to tell.
        prefix: Goes before the name of the stage.

    Raises:
        DataError: All heads diverged.
        UsageError: More processes than heads, or heads that do not fit into memory at once.
    """
    heads: list[Place] = [(pooling, spec) for pooling in settings.poolings for spec in settings.specs]
    if distributed.world() > len(heads):
        raise UsageError(
            f"{distributed.world()} processes share {len(heads)} heads.", "Start as many as heads at most."
        )
    table = ScoreTable.empty(len(heads))
    rounds = list(_rounds(heads, test, num_classes, means.device, once=settings.augment))
    report = means.report(prefix, f"training {len(heads)} linear heads")
    shown, total = 0, len(rounds) * settings.epochs * feed.steps_per_epoch * settings.batch_size

    def stepped(rows: int) -> None:
        nonlocal shown
        shown += rows
        if report is not None:
            report(shown, total)

    def bank(pooling: str, specs: list[HeadSpec]) -> HeadBank:
        return _bank(specs, test.features[pooling], num_classes, settings, means)

    for places in rounds:
        together = _Round(heads, places, bank)
        together.train(feed, settings.epochs, test, table, stepped)
        together.judge(holdout, test, table)
    return _outcome(heads, table.shared(), holdout is not None, len(test.labels))


class _Round:
    """Heads that are trained at once: a bank per pooling, and the places of its heads among all."""

    def __init__(self, heads: Sequence[Place], places: Sequence[int], bank: Callable[[str, list[HeadSpec]], HeadBank]):
        self.places = {
            pooling: [place for place in places if heads[place][0] == pooling]
            for pooling in dict.fromkeys(heads[place][0] for place in places)
        }
        self.banks = {
            pooling: bank(pooling, [heads[place][1] for place in inside]) for pooling, inside in self.places.items()
        }

    def train(self, feed: Feed, epochs: int, test: Judged, table: ScoreTable, stepped: Callable[[int], None]) -> None:
        """All epochs; after each of them, every head is tested."""
        for epoch in range(epochs):
            factor = cosine(epoch, epochs)
            for features, labels in feed.epoch(epoch):
                for pooling, bank in self.banks.items():
                    bank.train(features[pooling], labels, factor)
                stepped(len(labels))
            for pooling, scores in self._scores(test).items():
                table.after_epoch(self.places[pooling], scores, epoch + 1)

    def judge(self, holdout: Judged | None, test: Judged, table: ScoreTable) -> None:
        """The figures of the trained heads."""
        held = None if holdout is None else self._scores(holdout)
        for pooling, scores in self._scores(test).items():
            finite = self.banks[pooling].finite()
            table.at_end(self.places[pooling], finite, None if held is None else held[pooling], scores)

    def _scores(self, judged: Judged) -> dict[str, Scores]:
        return {pooling: bank.score(judged.features[pooling], judged.labels) for pooling, bank in self.banks.items()}


def cosine(epoch: int, epochs: int) -> float:
    """Share of the learning rate in an epoch: from 1 to nearly 0, constant within the epoch, as published."""
    return (1 + math.cos(math.pi * epoch / epochs)) / 2


def chosen_order(finite: Sequence[bool], accuracy: Sequence[float], loss: Sequence[float]) -> list[int]:
    """Heads from best to worst on held-out images: by accuracy, among equals by loss; diverged ones last."""
    return sorted(range(len(finite)), key=lambda head: (not finite[head], -accuracy[head], loss[head], head))


def _bank(
    specs: Sequence[HeadSpec], features: Tensor, num_classes: int, settings: ProbeSettings, means: Means
) -> HeadBank:
    """Heads that all start from the weights of this seed."""
    generator = step_generator(settings.seed, 0, "linear weights")
    return HeadBank(
        specs,
        initial_weight(num_classes, features.shape[1], generator),
        batch=settings.batch_size,
        device=means.device,
        products=torch.bfloat16 if settings.precision == "bf16" else None,
    )


def _rounds(
    heads: Sequence[Place], test: Judged, num_classes: int, device: torch.device, *, once: bool
) -> Iterator[list[int]]:
    """The heads of this process, in parts that fit into memory."""
    most = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else ROUND_BYTES
    mine = list(range(len(heads)))[distributed.rank() :: distributed.world()]
    sizes = [head_bytes(test.features[heads[place][0]].shape[1], num_classes) for place in mine]
    if once:
        if sum(sizes) > most:
            raise UsageError(
                f"{len(mine)} heads for {num_classes:,} classes take {sum(sizes) / 2**30:.1f} GiB at once.",
                "Give fewer --lrs or --pooling, use more processes, or leave out --augment.",
            )
        yield mine
        return
    part, taken = [mine[0]], sizes[0]
    for place, size in zip(mine[1:], sizes[1:], strict=True):
        if taken + size > most:
            yield part
            part, taken = [], 0
        part.append(place)
        taken += size
    yield part


def _outcome(heads: Sequence[Place], table: ScoreTable, judged: bool, num_test: int) -> Outcome:
    values = {name: column.tolist() for name, column in table.values.items()}
    finite = [value == 1.0 for value in values["finite"]]
    if not any(finite):
        raise DataError("All heads diverged: their weights are not finite.", "Give smaller rates with --lrs.")
    order = chosen_order(finite, values["holdout_top1"], values["holdout_loss"])
    results = tuple(_result(heads[place], values, place, finite[place], judged) for place in order)
    best = max(range(len(heads)), key=lambda place: values["best_top1"][place])
    pooling, spec = heads[best]
    own = table.correct.get(order[0], torch.zeros(num_test, dtype=torch.bool))
    return Outcome(
        heads=results,
        best_on_test_top1=values["best_top1"][best],
        best_on_test=BestOnTest(
            pooling=pooling,
            solver=spec.optimizer,
            lr=spec.lr,
            weight_decay=spec.weight_decay,
            epoch=int(values["best_epoch"][best]),
        ),
        correct=distributed.sum_over_ranks(own.double()) > 0,
    )


def _result(head: Place, values: Mapping[str, Sequence[float]], place: int, finite: bool, judged: bool) -> HeadResult:
    pooling, spec = head
    return HeadResult(
        pooling=pooling,
        solver=spec.optimizer,
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        diverged=not finite,
        holdout_top1=values["holdout_top1"][place] if finite and judged else None,
        holdout_loss=values["holdout_loss"][place] if finite and judged else None,
        test_top1=values["test_top1"][place] if finite else None,
        test_top5=values["test_top5"][place] if finite else None,
    )
