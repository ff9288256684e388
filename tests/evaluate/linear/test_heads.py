from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ibot_cli.evaluate.linear import bank as linear_bank
from ibot_cli.evaluate.linear.bank import HeadBank
from ibot_cli.evaluate.linear.grid import HeadSpec, head_grid
from ibot_cli.evaluate.linear.heads import initial_weight, push
from tests.evaluate.plain_probe import train_alone

DIM, CLASSES, BATCH = 12, 5, 16
DOUBLE = torch.float64


def problem(steps: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Features `[steps * B, D]`, labels, initial weights."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLASSES, DIM, generator=generator, dtype=DOUBLE)
    labels = torch.randint(CLASSES, (steps * BATCH,), generator=generator)
    features = centres[labels] + torch.randn(steps * BATCH, DIM, generator=generator, dtype=DOUBLE)
    return features, labels, initial_weight(CLASSES, DIM, generator).double()


def factor(step: int) -> float:
    return 1.0 if step < 25 else 0.6  # a new epoch in the middle


def bank(specs: tuple[HeadSpec, ...], initial: Tensor, **options: object) -> HeadBank:
    return HeadBank(specs, initial, batch=BATCH, dtype=DOUBLE, **options)  # type: ignore[arg-type]


def train(heads: HeadBank, features: Tensor, labels: Tensor, per_call: int = 1) -> HeadBank:
    for first in range(0, len(labels), per_call * BATCH):
        rows = slice(first, first + per_call * BATCH)
        heads.train(features[rows], labels[rows], factor(first // BATCH))
    return heads


def steps(features: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
    for index, (rows, answers) in enumerate(zip(features.split(BATCH), labels.split(BATCH), strict=True)):
        yield rows, answers, factor(index)


def largest_difference(heads: HeadBank, features: Tensor, labels: Tensor, initial: Tensor) -> Tensor:
    """Of weights and biases from those of heads trained alone, per head, relative to the largest weight."""
    weights, biases = heads.weights()
    found = []
    for spec, weight, bias in zip(heads.specs, weights, biases, strict=True):
        alone = train_alone(spec, initial, steps(features, labels), BATCH)
        scale = alone.weight.abs().max()
        found.append(max((alone.weight - weight).abs().max() / scale, (alone.bias - bias).abs().max() / scale))
    return torch.stack(found).detach()


ALL = head_grid(all_optimizers=True)
STRONG = tuple(replace(spec, weight_decay=0.01) for spec in ALL if spec.weight_decay)  # 1e-6 alone would hide an error


@pytest.mark.parametrize("windowed", [False, True])
def test_one_step_is_that_of_heads_trained_alone(windowed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(linear_bank.GROUP_COLUMNS, "cpu", 7 * CLASSES)  # groups of unequal size
    features, labels, initial = problem(1)
    heads = train(bank(ALL, initial, windowed=windowed), features, labels)
    assert len(heads.groups) == 28
    assert largest_difference(heads, features, labels, initial).max() < 1e-10


@pytest.mark.parametrize(("windowed", "per_call"), [(False, 1), (False, 5), (True, 1), (True, 5), (True, 25)])
def test_fifty_steps_are_those_of_heads_trained_alone(windowed: bool, per_call: int) -> None:
    features, labels, initial = problem(50)
    specs = tuple(spec for spec in head_grid() if spec.lr <= 0.05)
    heads = train(bank(specs, initial, windowed=windowed), features, labels, per_call)
    assert len(specs) == 23
    assert largest_difference(heads, features, labels, initial).max() < 1e-6


def test_lars_and_weight_decay_are_those_of_heads_trained_alone() -> None:
    features, labels, initial = problem(50, seed=1)
    specs = tuple(spec for spec in STRONG if spec.optimizer == "lars" or spec.lr <= 0.05)
    heads = train(bank(specs, initial), features, labels)
    assert {spec.optimizer for spec in specs} == {"sgd", "lars"}
    assert largest_difference(heads, features, labels, initial).max() < 1e-6


def test_lars_from_zero_weights_takes_the_plain_step() -> None:
    features, labels, initial = problem(3)
    specs = (HeadSpec(lr=0.1, optimizer="lars"),)
    heads = train(bank(specs, torch.zeros_like(initial)), features, labels)
    alone = train_alone(specs[0], torch.zeros_like(initial), steps(features, labels), BATCH)
    torch.testing.assert_close(heads.weights()[0][0], alone.weight.detach())


def test_push_is_minus_the_gradient() -> None:
    logits = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0), dtype=DOUBLE).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 3, 0])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(2), reduction="sum")
    loss.backward()
    scale = torch.tensor([[0.5], [2.0]], dtype=DOUBLE)
    assert logits.grad is not None
    torch.testing.assert_close(push(logits.detach(), labels, scale), -logits.grad * scale)


@pytest.mark.parametrize("windowed", [False, True])
def test_a_diverged_head_stays_alone(windowed: bool) -> None:
    features, labels, initial = problem(24)
    calm = (HeadSpec(lr=0.01), HeadSpec(lr=0.02))
    wild = (calm[0], HeadSpec(lr=1e308), calm[1])
    together = train(bank(wild, initial, windowed=windowed), features, labels, 8)
    assert together.finite().tolist() == [True, False, True]
    apart = train(bank(calm, initial, windowed=windowed), features, labels, 8)
    torch.testing.assert_close(together.weights()[0][[0, 2]], apart.weights()[0], rtol=1e-12, atol=1e-12)
    scores = together.score(features, labels)
    assert scores.loss.isfinite().tolist() == [True, False, True]
    assert not scores.top1[:, 1].any() and not scores.top5[:, 1].any() and scores.top1[:, 0].any()


def test_bf16_products_end_near_float32() -> None:
    features, labels, initial = (part.float() if part.is_floating_point() else part for part in problem(64, seed=2))
    specs = (*head_grid([0.01, 0.1, 1.0]), HeadSpec(lr=1.0, optimizer="lars"), HeadSpec(lr=0.1, weight_decay=1e-3))
    exact, low = (
        train(HeadBank(specs, initial, batch=BATCH, products=products), features, labels, 8)
        for products in (None, torch.bfloat16)
    )
    difference = (exact.weights()[0] - low.weights()[0]).flatten(1).norm(dim=1)
    assert (difference < 0.03 * exact.weights()[0].flatten(1).norm(dim=1)).all()
    assert difference.min() > 0  # the products really were in bf16
    assert low.weights()[0].dtype == torch.float32


def test_scores_are_those_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels, initial = problem(8)
    heads = train(bank(head_grid([0.01, 1.0]), initial), features, labels)
    whole = heads.score(features, labels)
    monkeypatch.setattr(linear_bank, "_SCORED_ELEMENTS", 50)
    torch.testing.assert_close(whole.loss, heads.score(features, labels).loss)
    weight, bias = heads.weights()
    for place in range(2):
        logits = features @ weight[place].T + bias[place]
        ranked = logits.argsort(dim=1, descending=True)
        assert whole.top1[:, place].tolist() == (ranked[:, 0] == labels).tolist()
        assert whole.loss[place].item() == pytest.approx(torch.nn.functional.cross_entropy(logits, labels).item())
    assert whole.top5.all()  # five classes


def test_scores_count_the_five_best_and_ties_as_errors() -> None:
    heads = HeadBank([HeadSpec(lr=1.0)], torch.eye(8), batch=4)
    features = torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8], [0.0] * 8])
    for label, first, fifth in ((7, True, True), (3, False, True), (2, False, False)):
        scores = heads.score(features, torch.tensor([label, label]))
        assert scores.top1[:, 0].tolist() == [first, False]
        assert scores.top5[:, 0].tolist() == [fifth, False]
