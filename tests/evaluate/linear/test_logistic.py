import numpy as np
import pytest
import torch
from torch.nn import functional

from ibot_cli.evaluate.linear.logistic import fit, logistic_sweep, penalties
from ibot_cli.evaluate.linear.sweep import Judged


def blobs(num: int, seed: int, classes: tuple[int, ...] = (0, 1, 2, 4)) -> Judged:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 6, generator=torch.Generator().manual_seed(7))
    labels = torch.tensor(classes)[torch.arange(num) % len(classes)]
    rows = 2 * centres[labels] + torch.randn(num, 6, generator=generator)
    return Judged({"cls": rows, "mean": rows[:, :3].contiguous()}, labels)


def test_penalties_are_the_authors_numbers_and_those_by_image() -> None:
    assert penalties(100) == (1.0, 0.1, 0.01, 0.001, 0.0001, 0.00001)
    assert len(penalties(1000)) == 7


@pytest.mark.parametrize("penalty", [0.1, 0.001])
def test_the_objective_is_at_its_minimum(penalty: float) -> None:
    part = blobs(120, 0)
    rows = functional.normalize(part.features["cls"], dim=1).double()
    model = fit(rows, part.labels, penalty)
    weight = torch.from_numpy(model.coef_).requires_grad_()
    answers = torch.from_numpy(np.searchsorted(model.classes_, part.labels.numpy()))
    loss = functional.cross_entropy(rows @ weight.T, answers) + penalty / 2 * weight.square().sum()
    loss.backward()
    assert weight.grad is not None and weight.grad.abs().max() < 2e-4
    assert (model.intercept_ == 0).all()


def test_held_out_images_choose_a_penalty() -> None:
    parts = blobs(120, 0), blobs(40, 1), blobs(60, 2)
    steps: list[tuple[int, int]] = []
    found = logistic_sweep(*parts, lambda done, total: steps.append((done, total)))
    assert steps[-1] == (14, 14) and len(found.heads) == 14
    assert {head.pooling for head in found.heads} == {"cls", "mean"}
    accuracies = [head.holdout_top1 or 0 for head in found.heads]
    assert accuracies == sorted(accuracies, reverse=True)
    assert found.correct.double().mean().item() == found.heads[0].test_top1
    assert found.best_on_test_top1 == max(head.test_top1 or 0 for head in found.heads)
    assert found.best_on_test.epoch is None and found.heads[0].lr is None
    again = logistic_sweep(*parts)
    assert again.heads == found.heads


def test_the_scale_of_features_does_not_matter() -> None:
    parts = blobs(80, 0), blobs(40, 1), blobs(40, 2)
    scaled = [Judged({name: 16 * rows for name, rows in part.features.items()}, part.labels) for part in parts]
    assert logistic_sweep(*parts).heads == logistic_sweep(*scaled).heads


def test_a_class_that_only_the_test_part_has_is_never_right() -> None:
    train, test = blobs(80, 0), blobs(40, 2, classes=(0, 3))
    found = logistic_sweep(train, blobs(40, 1), test)
    assert not found.correct[test.labels == 3].any()
    assert found.correct[test.labels == 0].any()


def test_two_classes() -> None:
    found = logistic_sweep(blobs(80, 0, (1, 4)), blobs(40, 1, (1, 4)), blobs(40, 2, (1, 4)))
    assert (found.heads[0].test_top1 or 0) > 0.8 and found.heads[0].test_top5 == 1.0
    assert all(head.holdout_loss is not None and head.holdout_loss < 1 for head in found.heads)
