"""The two losses against their formulas, written pair by pair and patch by patch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ibot_cli.core.batch import Batch
from ibot_cli.core.losses import cross_view_loss, masked_patch_loss
from tests import reference


def scores(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def distribution(*shape: int, seed: int = 1) -> Tensor:
    return torch.softmax(3 * scores(*shape, seed=seed), dim=-1)


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), theirs.double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("num_global", "num_local"), [(2, 3), (2, 0), (1, 2), (3, 1)])
def test_cls_loss_and_gradient(num_global: int, num_local: int) -> None:
    target = distribution(num_global, 4, 7)
    ours = scores(num_global + num_local, 4, 7).requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    loss, expected = cross_view_loss(target, ours, 0.1), reference.cls_loss(target.double(), theirs, 0.1)
    close(loss, expected)
    loss.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    close(ours.grad, theirs.grad)


def test_cls_loss_of_two_views_by_hand() -> None:
    """With one prototype certain on each side: ln(1 + exp(-d)) per pair, d the scaled distance of the scores."""
    target = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    logits = torch.tensor([[[0.3, 0.1]], [[0.2, 0.5]]])
    first_teacher = torch.log1p(torch.exp(torch.tensor(0.3 / 0.1)))  # view 1's student prefers the other one
    second_teacher = torch.log1p(torch.exp(torch.tensor(0.2 / 0.1)))
    close(cross_view_loss(target, logits, 0.1), (first_teacher + second_teacher) / 2)


def test_cls_loss_ignores_a_view_against_itself() -> None:
    """One global view: its own student scores decide nothing."""
    target, logits = distribution(1, 3, 5), scores(3, 3, 5)
    changed = logits.clone()
    changed[0] = 9.0
    close(cross_view_loss(target, logits, 0.1), cross_view_loss(target, changed, 0.1))


def test_one_view_has_no_pair() -> None:
    with pytest.raises(ValueError, match="at least two views"):
        cross_view_loss(distribution(1, 2, 5), scores(1, 2, 5), 0.1)


def masked(mask: Tensor, target: Tensor, logits: Tensor, temp: float = 0.1) -> Tensor:
    views, images, _ = mask.shape
    batch = Batch.make(torch.zeros(views, images, 1, 4, 4), torch.zeros(0, images, 1, 2, 2), mask)
    flat = logits.flatten(0, 2).index_select(0, batch.mask_index)
    return masked_patch_loss(target.flatten(0, 2)[batch.mask_index], flat, batch.mask_weights, temp)


def test_patch_loss_and_gradient() -> None:
    """Image views of 0, 1, few and all masked patches: each that has any weighs the same."""
    mask = torch.zeros(2, 3, 6, dtype=torch.bool)
    mask[0, 1, 2] = mask[1, 0, 3:] = mask[1, 1] = mask[1, 2, ::2] = True
    target = distribution(2, 3, 6, 5)
    ours = scores(2, 3, 6, 5).requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    loss, expected = masked(mask, target, ours), reference.mim_loss(target.double(), theirs, mask, 0.1)
    close(loss, expected)
    loss.backward()
    expected.backward()
    assert ours.grad is not None and theirs.grad is not None
    close(ours.grad, theirs.grad)
    assert not ours.grad[~mask].any()


def test_views_without_mask_count_as_zero() -> None:
    mask = torch.ones(1, 2, 3, dtype=torch.bool)
    target, logits = distribution(1, 2, 3, 5), scores(1, 2, 3, 5)
    whole = masked(mask, target, logits)
    first = masked(mask[:, :1], target[:, :1], logits[:, :1])
    mask[0, 1] = False
    close(masked(mask, target, logits), first / 2)
    assert not torch.isclose(whole, first / 2)


def test_no_masked_patch_gives_zero_with_zero_gradient() -> None:
    logits = scores(2, 3, 4, 5).requires_grad_()
    loss = masked(torch.zeros(2, 3, 4, dtype=torch.bool), distribution(2, 3, 4, 5), logits)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and torch.equal(logits.grad, torch.zeros_like(logits))


def test_perfect_student_reaches_the_entropy_of_the_target() -> None:
    """Cross-entropy is smallest, and flat, where the student equals the teacher."""
    target = distribution(4, 6)
    logits = (target.log() * 0.1).requires_grad_()
    loss = masked_patch_loss(target, logits, torch.full((4,), 0.25), 0.1)
    close(loss, -(target * target.log()).sum(-1).mean())
    loss.backward()
    assert logits.grad is not None and logits.grad.abs().max() < 1e-5


def test_losses_are_float32_under_autocast() -> None:
    target, logits = distribution(2, 3, 5), scores(3, 3, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cls = cross_view_loss(target, logits, 0.1)
        patch = masked_patch_loss(target[0], logits[0], torch.full((3,), 1 / 3), 0.1)
    close(cls, cross_view_loss(target, logits, 0.1).double())
    close(patch, masked_patch_loss(target[0], logits[0], torch.full((3,), 1 / 3), 0.1).double())


def test_large_scores_stay_finite() -> None:
    logits = 1e4 * scores(3, 2, 5)
    assert torch.isfinite(cross_view_loss(distribution(2, 2, 5), logits, 0.01))
