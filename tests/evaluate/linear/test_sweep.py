from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from ibot_cli.data.rng import epoch_order, step_generator
from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.linear import sweep as linear_sweep
from ibot_cli.evaluate.linear.feed import CachedFeed
from ibot_cli.evaluate.linear.grid import HeadSpec
from ibot_cli.evaluate.linear.heads import initial_weight
from ibot_cli.evaluate.linear.result import HeadResult
from ibot_cli.evaluate.linear.settings import Means, ProbeSettings
from ibot_cli.evaluate.linear.sweep import Judged, Outcome, chosen_order, cosine, sweep
from tests.evaluate.plain_probe import train_alone

CPU = torch.device("cpu")
CLASSES, BATCH, TRAIN = 3, 16, 70
SETTINGS = ProbeSettings(poolings=("cls", "mean"), rates=(0.01, 0.5, 3.0), epochs=4, batch_size=BATCH)


def blobs(num: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(num) % CLASSES
    centres = torch.randn(CLASSES, dim, generator=torch.Generator().manual_seed(9))
    return centres[labels] + torch.randn(num, dim, generator=generator), labels


def judged(num: int, seed: int) -> Judged:
    (narrow, labels), (wide, _) = blobs(num, 4, seed), blobs(num, 6, seed)
    return Judged({"cls": narrow, "mean": wide}, labels)


WHOLE, TEST = judged(100, 0), judged(40, 1)
HOLDOUT = Judged({name: rows[TRAIN:] for name, rows in WHOLE.features.items()}, WHOLE.labels[TRAIN:])


def feed(settings: ProbeSettings, features: dict[str, Tensor] | None = None) -> CachedFeed:
    rows = np.arange(TRAIN)
    return CachedFeed(
        features or WHOLE.features, WHOLE.labels, rows, batch=settings.batch_size, seed=settings.seed, device=CPU
    )


def run(settings: ProbeSettings = SETTINGS) -> Outcome:
    return sweep(feed(settings), HOLDOUT, TEST, CLASSES, settings, Means(device=CPU))


def batches(features: Tensor, settings: ProbeSettings) -> Iterator[tuple[Tensor, Tensor, float]]:
    for epoch in range(settings.epochs):
        order = torch.from_numpy(epoch_order(settings.seed, epoch, TRAIN))
        for rows in order[: TRAIN // BATCH * BATCH].split(BATCH):
            yield features[rows], WHOLE.labels[rows], cosine(epoch, settings.epochs)


def comparable(head: HeadResult) -> HeadResult:
    """Products of other shapes round the last digits otherwise."""
    return replace(head, holdout_loss=None if head.holdout_loss is None else round(head.holdout_loss, 4))


def test_every_head_is_a_run_of_its_own() -> None:
    found = run()
    assert len(found.heads) == 6 and not any(head.diverged for head in found.heads)
    for head in found.heads:
        assert head.lr is not None
        dim = WHOLE.features[head.pooling].shape[1]
        initial = initial_weight(CLASSES, dim, step_generator(0, 0, "linear weights"))
        alone = train_alone(HeadSpec(lr=head.lr), initial, batches(WHOLE.features[head.pooling], SETTINGS), BATCH)
        with torch.no_grad():
            held, tested = alone(HOLDOUT.features[head.pooling]), alone(TEST.features[head.pooling])
        assert head.holdout_top1 == pytest.approx((held.argmax(1) == HOLDOUT.labels).double().mean().item())
        loss = torch.nn.functional.cross_entropy(held, HOLDOUT.labels).item()
        assert head.holdout_loss == pytest.approx(loss, rel=1e-4)
        assert head.test_top1 == pytest.approx((tested.argmax(1) == TEST.labels).double().mean().item())
        assert head.test_top5 == 1.0


def test_held_out_images_choose_and_the_best_on_test_is_reported_beside() -> None:
    found = run()
    order = [(head.holdout_top1, head.holdout_loss) for head in found.heads]
    assert order == sorted(order, key=lambda pair: (-(pair[0] or 0), pair[1] or 0))
    assert found.correct.double().mean().item() == pytest.approx(found.heads[0].test_top1)
    assert found.best_on_test_top1 >= max(head.test_top1 or 0 for head in found.heads)
    assert found.best_on_test.epoch in range(1, 5) and found.best_on_test.solver == "sgd"


def test_the_order_of_heads() -> None:
    finite, accuracy, loss = [True, False, True, True], [0.5, 0.0, 0.9, 0.9], [1.0, 0.0, 0.7, 0.6]
    assert chosen_order(finite, accuracy, loss) == [3, 2, 0, 1]


def test_rounds_that_fit_into_memory_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run()
    shown: list[tuple[int, int]] = []
    monkeypatch.setattr(linear_sweep, "ROUND_BYTES", 2 * linear_sweep.head_bytes(6, CLASSES))
    means = Means(device=CPU, progress=lambda stage, done, total: shown.append((done, total)))
    parts = sweep(feed(SETTINGS), HOLDOUT, TEST, CLASSES, SETTINGS, means)
    assert [comparable(head) for head in parts.heads] == [comparable(head) for head in whole.heads]
    assert parts.best_on_test == whole.best_on_test
    assert len({total for _, total in shown}) == 1 and shown[-1][0] == shown[-1][1] == 3 * 4 * 4 * BATCH
    with pytest.raises(UsageError, match=r"6 heads for 3 classes take 0\.0 GiB at once"):
        run(replace(SETTINGS, augment=True))  # whose epochs cannot be repeated


def test_diverged_heads_never_win() -> None:
    settings = replace(SETTINGS, rates=(1e39, 0.5), poolings=("cls",))
    found = run(settings)
    assert [head.diverged for head in found.heads] == [False, True]
    last = found.heads[1]
    assert (last.holdout_top1, last.holdout_loss, last.test_top1, last.test_top5) == (None,) * 4
    alone = run(replace(settings, rates=(0.5,)))
    assert comparable(alone.heads[0]) == comparable(found.heads[0])
    with pytest.raises(DataError, match="All heads diverged") as caught:
        run(replace(settings, rates=(1e39, 2e39)))
    assert caught.value.hint == "Give smaller rates with --lrs."


def test_bf16_products_find_nearly_the_same() -> None:
    exact, low = run(), run(replace(SETTINGS, precision="bf16"))
    for head in exact.heads:
        other = next(each for each in low.heads if (each.pooling, each.lr) == (head.pooling, head.lr))
        assert other.test_top1 == pytest.approx(head.test_top1, abs=0.1)
        assert other.holdout_loss == pytest.approx(head.holdout_loss, rel=0.1)


def test_epochs_show_whole_batches_in_an_order_of_their_own() -> None:
    found = list(feed(SETTINGS).epoch(0)), list(feed(SETTINGS).epoch(1))
    first, second = (torch.cat([labels for _, labels in epoch]) for epoch in found)
    assert len(first) == len(second) == 64 and not torch.equal(first, second)
    rows = torch.from_numpy(epoch_order(0, 0, TRAIN)[:64])
    assert torch.equal(torch.cat([features["mean"] for features, _ in found[0]]), WHOLE.features["mean"][rows])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 0}, "must be at least 1"),
        ({"batch_size": 0}, "must be at least 1"),
        ({"holdout": 0.6}, r"--holdout 0\.6 is not between 0 and 0\.5"),
        ({"holdout": 0.0}, "nothing can choose"),
        ({"holdout": 0.0, "solver": "lbfgs", "rates": (1.0,), "poolings": ("cls",)}, "nothing can choose"),
        ({"solver": "adam"}, "no solver 'adam'"),
        ({"solver": "lbfgs", "augment": True}, "same features in every pass"),
        ({"precision": "fp8"}, "no precision 'fp8'"),
    ],
)
def test_impossible_settings(changes: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        replace(SETTINGS, **changes)  # type: ignore[arg-type]
