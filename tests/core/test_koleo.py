"""The KoLeo term against its definition, pair by pair, and where that definition has no value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ibot_cli.core.koleo import FLOOR, koleo_loss
from tests import reference
from tests.core import tiny
from tests.core.plain_objective import close


def features(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def with_gradient(points: Tensor) -> tuple[Tensor, Tensor]:
    leaf = points.clone().requires_grad_()
    loss = koleo_loss(leaf)
    loss.backward()
    assert leaf.grad is not None
    return loss.detach(), leaf.grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-5)])
def test_value_and_gradient(dtype: torch.dtype, tolerance: float) -> None:
    points = features(2, 7, 5, dtype=dtype)
    plain = points.double().clone().requires_grad_()
    expected = reference.koleo(plain)
    expected.backward()
    loss, gradient = with_gradient(points)
    assert loss.dtype == dtype and plain.grad is not None
    torch.testing.assert_close(loss.double(), expected.detach(), atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(gradient.double(), plain.grad, atol=tolerance, rtol=tolerance)


def test_views_are_apart_and_their_terms_add_up() -> None:
    points = features(2, 4, 3)
    points[1] = points[0]
    torch.testing.assert_close(koleo_loss(points), 2 * koleo_loss(points[:1]))


def test_one_image_has_no_neighbour() -> None:
    loss, gradient = with_gradient(features(2, 1, 3))
    assert loss == 0 and not gradient.any()


def test_duplicates_have_a_value_and_no_gradient() -> None:
    point = features(1, 1, 3, dtype=torch.float32)
    loss, gradient = with_gradient(point.expand(1, 4, 3))
    assert loss.item() == pytest.approx(-math.log(FLOOR)) and not gradient.any()
    near = torch.cat([point, point * 3, point + 1e-4], dim=1)
    loss, gradient = with_gradient(near)
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()
    assert gradient.abs().max() < 1 / FLOOR


def test_zero_features_are_no_accident() -> None:
    loss, gradient = with_gradient(torch.zeros(1, 3, 4))
    assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_distances_are_float32_under_autocast() -> None:
    points = features(1, 6, 8, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = koleo_loss(points)
    assert loss.dtype == torch.float32
    close(loss, reference.koleo(points.double()))


def test_the_objective_spreads_the_class_tokens_of_global_views() -> None:
    plain, spread = tiny.objective(), tiny.objective(koleo_weight=0.1)
    batch, now = tiny.batch(), tiny.now()
    terms = spread.losses(batch, now).terms
    backbone = spread.student.backbone
    cls = backbone(batch.global_views.flatten(0, 1), batch.mask.flatten(0, 1))[:, 0].unflatten(0, (2, 3))
    close(terms["koleo"], 0.1 * reference.koleo(cls))
    expected = torch.autograd.grad(0.1 * reference.koleo(cls.double()), list(backbone.parameters()), allow_unused=True)
    terms["koleo"].backward()
    for (name, value), gradient in zip(backbone.named_parameters(), expected, strict=True):
        assert (value.grad is None) == (gradient is None), name
        if gradient is not None and value.grad is not None:
            close(value.grad, gradient)
    without = plain.losses(batch, now).terms
    assert without.keys() == {"cls", "patch"} and all(torch.equal(without[name], terms[name]) for name in without)


def test_a_frozen_backbone_leaves_the_term_without_gradient() -> None:
    terms = tiny.objective(koleo_weight=0.1).losses(tiny.batch(), tiny.now(freeze_backbone=True)).terms
    assert not terms["koleo"].requires_grad and terms["cls"].requires_grad
