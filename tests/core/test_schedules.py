"""The schedules at every step against the tables of section 1.4 and 3.2."""

from __future__ import annotations

import numpy as np
import pytest

from ibot_cli.core.schedules import cosine, teacher_temp, warmup_cosine
from tests import reference


@pytest.mark.parametrize("warmup_epochs", [0, 1, 3, 6])
@pytest.mark.parametrize("steps", [1, 5])
def test_learning_rate(warmup_epochs: int, steps: int) -> None:
    table = reference.cosine_table(2e-3, 1e-6, 6, steps, warmup_epochs)
    ours = [
        warmup_cosine(i, total=6 * steps, warmup=warmup_epochs * steps, peak=2e-3, final=1e-6) for i in range(6 * steps)
    ]
    np.testing.assert_allclose(ours, table, rtol=1e-12, atol=1e-18)


@pytest.mark.parametrize(("start", "final"), [(0.04, 0.4), (0.996, 1.0), (0.3, 0.3)])
def test_cosine(start: float, final: float) -> None:
    ours = [cosine(i, total=28, start=start, final=final) for i in range(28)]
    np.testing.assert_allclose(ours, reference.cosine_table(start, final, 7, 4), rtol=1e-12)
    assert ours[0] == pytest.approx(start)


@pytest.mark.parametrize("hold", [0, 3])
@pytest.mark.parametrize("warmup_epochs", [0, 1, 2, 5, 7])
def test_teacher_temperature(warmup_epochs: int, hold: int) -> None:
    table = reference.temp_table(0.04, 0.07, warmup_epochs, 10, hold)
    ours = [
        teacher_temp(epoch, warmup_epochs=warmup_epochs, start=0.04, final=0.07, hold_epochs=hold)
        for epoch in range(10)
    ]
    np.testing.assert_allclose(ours, table, rtol=1e-12)
