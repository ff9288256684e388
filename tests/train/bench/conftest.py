"""Plans without the estimate of their memory, which takes longer than all else here."""

from collections.abc import Iterator

import pytest

from ibot_cli.train import budget
from ibot_cli.train.memory import MemoryEstimate


@pytest.fixture(autouse=True, scope="module")
def no_estimates() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget, "estimate_step", lambda *sizes: MemoryEstimate(peak=1 << 20, resident=1 << 10))
        yield
