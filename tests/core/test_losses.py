"""The fused losses against their formulas, written pair by pair and patch by patch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ibot_cli.core import targets
from ibot_cli.core.batch import Batch
from ibot_cli.core.losses import Lesson, Matched, cross_view_weights, match
from ibot_cli.core.targets import Scores, sinkhorn_offset
from ibot_cli.train.memory import AllocationMeter
from tests import reference

SIZE, TEMP, TEACHER_TEMP = 6, 0.1, 0.07


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(rows, dim=-1).to(dtype)


class Slot:
    """Bottlenecks and prototypes of both networks; the teacher's targets in float64 by the plain formula."""

    def __init__(self, views: tuple[int, int], rows: int, prototypes: int = 7, dtype: Any = torch.float32) -> None:
        self.student = unit(views[1], rows, SIZE, seed=1, dtype=dtype).requires_grad_()
        self.weight = (1.3 * unit(prototypes, SIZE, seed=2, dtype=dtype)).requires_grad_()
        self.teacher = unit(views[0], rows, SIZE, seed=3, dtype=dtype)
        self.teacher_weight = unit(prototypes, SIZE, seed=4, dtype=dtype)
        self.center = 0.2 * unit(1, prototypes, seed=5, dtype=dtype)

    def lesson(self, weights: Tensor, same: bool) -> Lesson:
        scores = Scores.of(self.teacher, self.teacher_weight, TEACHER_TEMP)
        offset = (self.center / TEACHER_TEMP).flatten()
        return Lesson(scores=scores, offset=offset, weights=weights, same=same)

    def match(self, weights: Tensor, same: bool) -> Matched:
        return match(self.student, self.weight, self.lesson(weights, same), TEMP)

    def plain(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Targets `[V, R, K]`, student scores `[S, R, K]` and what these depend on, all in float64."""
        inputs = [x.detach().double().requires_grad_() for x in (self.student, self.weight)]
        raw = self.teacher.double() @ self.teacher_weight.double().T
        return reference.centered(raw, self.center.double(), TEACHER_TEMP), inputs[0] @ inputs[1].T, inputs


def close(ours: Tensor, theirs: Tensor) -> None:
    tolerance = 1e-12 if ours.dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ours.detach().double(), theirs.detach(), atol=tolerance, rtol=tolerance)


@pytest.fixture(params=[1, 10_000])
def small_chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one image or of a few patches; or all at once."""
    monkeypatch.setattr(targets, "CHUNK_ROWS", 4 * request.param)
    monkeypatch.setitem(targets.CHUNK_ELEMENTS, "cpu", 1)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num_global", "num_local"), [(2, 3), (2, 0), (1, 2), (3, 1)])
def test_cls_loss_and_gradients(num_global: int, num_local: int, dtype: torch.dtype) -> None:
    slot = Slot((num_global, num_global + num_local), 4, dtype=dtype)
    ours = slot.match(cross_view_weights(num_global, num_global + num_local, 4, slot.teacher), same=False)
    target, logits, inputs = slot.plain()
    expected = reference.cls_loss(target, logits, TEMP)
    close(ours.loss, expected)
    gradients = torch.autograd.grad(0.3 * ours.loss, [slot.student, slot.weight])
    for gradient, theirs in zip(gradients, torch.autograd.grad(0.3 * expected, inputs), strict=True):
        close(gradient, theirs)


MASK = torch.zeros(2, 3, 6, dtype=torch.bool)
MASK[0, 1, 2] = MASK[1, 0, 3:] = MASK[1, 1] = MASK[1, 2, ::2] = True  # views of 0, 1, few and all masked patches


def weights_of(mask: Tensor, padded: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    views, images, _ = mask.shape
    batch = Batch.make(torch.zeros(views, images, 1, 4, 4), torch.zeros(0, images, 1, 2, 2), mask)
    weights = batch.padded(len(batch.mask_index) + padded).mask_weights.to(dtype)
    return torch.where(weights > 0, 1 / (1 / weights).round(), 0)  # all digits of float64, too


def whole(rows: Tensor, mask: Tensor) -> Tensor:
    """Rows of the masked patches, put in their places `[V, B, N, K]`."""
    return rows.new_zeros(*mask.shape, rows.shape[-1]).masked_scatter(mask[..., None], rows)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [0, 5])
def test_patch_loss_gradients_and_statistics(padding: int, dtype: torch.dtype) -> None:
    """Image views that have any masked patch weigh the same; padding counts nowhere."""
    count = int(MASK.sum())
    slot, weights = Slot((1, 1), count + padding, dtype=dtype), weights_of(MASK, padding, dtype)
    ours = slot.match(weights, same=True)
    target, logits, inputs = slot.plain()
    real = target[0, :count]
    expected = reference.mim_loss(whole(real, MASK), whole(logits[0, :count], MASK), MASK, TEMP)
    close(ours.loss, expected)
    for gradient, theirs in zip(
        torch.autograd.grad(ours.loss, [slot.student, slot.weight]), torch.autograd.grad(expected, inputs), strict=True
    ):
        close(gradient, theirs)
    stats = ours.stats(torch.zeros(7, dtype=dtype), 11, weights)
    close(stats.prob_sum, real.sum(0))
    close(stats.entropy, torch.special.entr(real).sum())
    assert stats.used.tolist() == torch.bincount(real.argmax(-1), minlength=7).tolist()
    assert (stats.rows, stats.logit_rows) == (count, 11)


def test_most_likely_prototypes_by_raw_score() -> None:
    slot = Slot((2, 5), 9)
    ours = slot.match(cross_view_weights(2, 5, 9, slot.teacher), same=False)
    target, logits, _ = slot.plain()
    assert torch.equal(ours.best, target.argmax(-1))
    assert torch.equal(ours.taught, (slot.teacher[0] @ slot.teacher_weight.T).argmax(-1))
    assert torch.equal(ours.learnt, logits[1].argmax(-1))
    assert not torch.equal(ours.taught, target[0].argmax(-1))


def test_one_view_has_no_pair() -> None:
    with pytest.raises(ValueError, match="at least two views"):
        cross_view_weights(1, 1, 2, torch.zeros(1))


def test_views_without_mask_count_as_zero() -> None:
    mask = torch.ones(1, 2, 3, dtype=torch.bool)
    slot = Slot((1, 1), 3)
    alone = slot.match(weights_of(mask[:, :1]), same=True).loss
    mask[0, 1] = False
    close(slot.match(weights_of(mask), same=True).loss, alone.double() / 2)


def test_no_masked_patch_gives_zero_with_zero_gradient() -> None:
    slot = Slot((1, 1), 0)
    ours = slot.match(torch.zeros(0), same=True)
    ours.loss.backward()
    assert ours.loss.item() == 0 and ours.best.shape == (1, 0)
    assert slot.weight.grad is not None and torch.equal(slot.weight.grad, torch.zeros_like(slot.weight))


def test_perfect_student_reaches_the_entropy_of_the_target() -> None:
    """Cross-entropy is smallest, and flat, where the student equals the teacher."""
    slot = Slot((1, 1), 4)
    slot.center.zero_()
    slot.student = (slot.teacher * TEMP / TEACHER_TEMP).requires_grad_()
    slot.weight = slot.teacher_weight.clone().requires_grad_()
    ours = slot.match(torch.full((4,), 0.25), same=True)
    close(ours.loss, ours.entropy.double() / 4)
    ours.loss.backward()
    assert slot.student.grad is not None and slot.student.grad.abs().max() < 1e-5


def test_float16_holds_the_gradient_of_prototypes_that_are_rarely_chosen() -> None:
    """Of 65,536 prototypes most have probabilities that float16 alone would hold with few digits."""
    slot, weights = Slot((1, 1), 8, prototypes=65_536), torch.full((8,), 1 / 8)
    slot.weight = (0.1 * slot.weight.detach()).requires_grad_()
    (exact,) = torch.autograd.grad(slot.match(weights, same=True).loss, slot.weight)
    with torch.autocast("cpu", dtype=torch.float16):
        (rounded,) = torch.autograd.grad(slot.match(weights, same=True).loss, slot.weight)
    assert ((rounded - exact).norm(dim=1) / exact.norm(dim=1)).median() < 1e-3


def test_detached_prototypes_and_rows_cost_no_gradient() -> None:
    slot, weights = Slot((1, 1), 4), torch.full((4,), 0.25)
    both = torch.autograd.grad(slot.match(weights, same=True).loss, [slot.student, slot.weight])
    rows, weight = slot.student, slot.weight
    for frozen, learns, expected in (("weight", rows, both[0]), ("student", weight, both[1])):
        slot.student, slot.weight = rows, weight
        setattr(slot, frozen, getattr(slot, frozen).detach())
        (gradient,) = torch.autograd.grad(slot.match(weights, same=True).loss, [learns])
        assert torch.equal(gradient, expected)
    with torch.no_grad():
        assert not slot.match(weights, same=True).loss.requires_grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_autocast_rounds_the_scores_only(dtype: torch.dtype, tolerance: float) -> None:
    """Loss and gradients stay float32, and small weights do not vanish in the products of half precision."""
    slot, weights = Slot((1, 1), 300, prototypes=2000), torch.full((300,), 1e-7)
    exact = slot.match(weights, same=True)
    with torch.autocast("cpu", dtype=dtype):
        rounded = slot.match(weights, same=True)
    torch.testing.assert_close(rounded.loss, exact.loss, rtol=tolerance, atol=0)
    inputs = [slot.student, slot.weight]
    pairs = zip(torch.autograd.grad(rounded.loss, inputs), torch.autograd.grad(exact.loss, inputs), strict=True)
    for ours, theirs in pairs:
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < tolerance * theirs.norm()


@pytest.mark.parametrize("same", [True, False])
def test_float16_holds_the_gradient_of_rows_that_all_agree(same: bool) -> None:
    """No loss scale could help: what the products sum does not depend on it."""
    slot, rows = Slot((1, 1) if same else (2, 4), 1, prototypes=16), 3000
    slot.student, slot.teacher = (x.detach().repeat(1, rows, 1) for x in (slot.student, slot.teacher))
    weights = torch.full((rows,), 1 / rows)
    exact = torch.autograd.grad(slot.match(weights, same).loss, slot.weight)[0]
    with torch.autocast("cpu", dtype=torch.float16):
        rounded = torch.autograd.grad(slot.match(weights, same).loss, slot.weight)[0]
    assert (rounded - exact).norm() < 0.004 * exact.norm()


@pytest.mark.parametrize(("views", "rows"), [((1, 1), 4096), ((2, 6), 1024)])
def test_no_table_of_all_rows_is_made(views: tuple[int, int], rows: int) -> None:
    """Bytes at the peak of both passes: gradients and copies of rows and prototypes, and a few tables of a chunk."""
    prototypes, all_rows = 2048, views[1] * rows
    with FakeTensorMode(), AllocationMeter() as meter:
        student, teacher = torch.empty(views[1], rows, SIZE, requires_grad=True), torch.empty(views[0], rows, SIZE)
        weight = torch.empty(prototypes, SIZE, requires_grad=True)
        scores = Scores.of(teacher, torch.empty(prototypes, SIZE), TEACHER_TEMP)
        offset = sinkhorn_offset(scores, torch.ones(rows))
        lesson = Lesson(scores=scores, offset=offset, weights=torch.ones(rows), same=views == (1, 1))
        match(student, weight, lesson, TEMP).loss.backward()
    chunk = views[1] * next(targets.chunks(rows, views[1], prototypes, torch.device("cpu"))).stop * prototypes
    assert chunk <= all_rows * prototypes / 4
    assert 4 * chunk < meter.peak < 4 * (5 * chunk + 20 * SIZE * (all_rows + prototypes))


def test_gradients_are_used_once() -> None:
    """They are scaled where they lie, so a second backward pass would be wrong: it is an error."""
    slot = Slot((1, 1), 4)
    loss = slot.match(torch.full((4,), 0.25), same=True).loss
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_large_scores_stay_finite() -> None:
    slot = Slot((2, 3), 2)
    slot.weight = (1e4 * slot.weight.detach()).requires_grad_()
    loss = slot.match(cross_view_weights(2, 3, 2, slot.teacher), same=False).loss
    assert torch.isfinite(loss) and torch.isfinite(torch.autograd.grad(loss, slot.student)[0]).all()
