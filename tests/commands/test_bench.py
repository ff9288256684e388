"""`ibot bench`, as people type it."""

import json

import pytest

from ibot_cli.train import budget
from ibot_cli.train.bench import measure
from ibot_cli.train.memory import MemoryEstimate
from tests.commands.conftest import Ibot
from tests.train import runs

SETS = [part for text in runs.SMALL for part in ("--set", text)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No estimate of memory, no search for the best product."""
    monkeypatch.setattr(budget, "estimate_step", lambda *sizes: MemoryEstimate(peak=1 << 20, resident=1 << 10))
    monkeypatch.setattr(measure, "gemm_rate", lambda products, dtype, device: 1e9)


def test_a_table_for_people_and_json_for_programs(ibot: Ibot) -> None:
    shown = ibot("bench", *SETS, "--steps", "2", "--warmup", "1")
    assert shown.code == 0
    assert "ibot_vits16: vit_tiny" in shown.out and "synthetic views" in shown.out and "8 images = 2 x 4" in shown.out
    assert "Training, 1 step to warm up and 2 that count" in shown.err
    found = json.loads(ibot("bench", *SETS, "--batch-size", "4", "--steps", "1", "--warmup", "1", "--json").out)
    assert (found["batch_size"], found["precision"], len(found["seconds"])) == (4, "fp32", 1)


def test_what_goes_wrong_is_said_before_anything_is_loaded(ibot: Ibot) -> None:
    both = ibot("bench", "--row", "--json")
    assert (both.code, both.err) == (2, "error: --row and --json exclude each other.\nhint: Leave one of them out.\n")
    assert "did you mean ibot_vits16?" in ibot("bench", "--preset", "ibot_vist16").err
