"""Both sides of the benchmark compute the same."""

from __future__ import annotations

import pytest
import torch

from benchmarks.losses import SIDES, Rows


@pytest.mark.parametrize("balance", ["center", "sinkhorn"])
def test_sides_agree(balance: str) -> None:
    results = []
    for loss_of in SIDES.values():
        rows = Rows.draw(2, 300)
        loss = loss_of(rows, balance)
        results.append([loss.detach(), *torch.autograd.grad(loss, [*rows.student.values(), rows.weight])])
    for plain, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, plain, atol=1e-5, rtol=1e-4)
