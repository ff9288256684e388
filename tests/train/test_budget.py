"""The micro-batch that fits, and how good the memory estimate is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ibot_cli.config.load import resolve
from ibot_cli.config.schema import Config
from ibot_cli.errors import UsageError
from ibot_cli.train import budget
from ibot_cli.train.budget import Memory, decide_micro_batch, shortage
from ibot_cli.train.choices import Choice
from ibot_cli.train.memory import MemoryEstimate
from tests.train import pictures, runs

CPU = torch.device("cpu")
MIB = 2**20


def config(*sets: str) -> Config:
    return resolve(preset=None, file=None, sets=[*runs.SMALL, "train.micro_batch_size=auto", *sets]).config


@pytest.fixture
def linear(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A step that takes 100 MiB, 10 MiB per image and 5 MiB where gradients add up; returns what was estimated."""
    asked: list[tuple[int, int]] = []

    def estimate(config: Config, micro: int, dtype: torch.dtype | None, micro_batches: int) -> MemoryEstimate:
        asked.append((micro, micro_batches))
        return MemoryEstimate(peak=MIB * (100 + 10 * micro + 5 * (micro_batches > 1)), resident=0)

    monkeypatch.setattr(budget, "estimate_step", estimate)
    return asked


def decide(monkeypatch: pytest.MonkeyPatch, free: float) -> tuple[Config, Memory, Choice]:
    """Configuration, memory and reason for 24 images with `free` MiB left."""
    monkeypatch.setattr(budget, "available_memory", lambda device: int(free * MIB))
    made: dict[str, Choice] = {}
    decided, memory = decide_micro_batch(config("train.batch_size=24"), CPU, 24, made, False)
    assert memory is not None
    assert made["train.micro_batch_size"][0] == decided.train.micro_batch_size
    return decided, memory, made["train.micro_batch_size"]


def test_everything_at_once_where_it_fits(monkeypatch: pytest.MonkeyPatch, linear: list[tuple[int, int]]) -> None:
    decided, memory, choice = decide(monkeypatch, 608)  # 0.7 x 608 = 425.6; what the process has already is not in it
    assert decided.train.micro_batch_size == 24
    assert memory.step == 1.25 * 340 * MIB and memory.available == 608 * MIB and memory.peak > memory.available
    assert choice[1] == "all 24 images of a process fit into 0.6 GiB"
    assert linear == [(24, 1)]  # an estimate takes seconds


@pytest.mark.parametrize(("free", "micro"), [(606, 12), (402, 12), (401, 8), (331, 8), (330, 6), (206, 1), (1, 1)])
@pytest.mark.usefixtures("linear")
def test_the_largest_divisor_that_fits(monkeypatch: pytest.MonkeyPatch, free: float, micro: int) -> None:
    decided, memory, choice = decide(monkeypatch, free)
    assert decided.train.micro_batch_size == micro
    assert memory.step == int(1.25 * (105 + 10 * micro) * MIB)
    assert memory.step <= 0.7 * free * MIB or micro == 1
    assert choice[1] == f"the largest share of 24 images per process that fits into {free / 1024:.1f} GiB"


@pytest.mark.usefixtures("linear")
def test_where_nothing_fits_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    decided, memory, _ = decide(monkeypatch, 103)
    assert shortage(memory, decided.train.micro_batch_size, "blocks") == [
        "A step needs about 0.1 GiB, but only 0.1 GiB are left on the device. Choose a smaller model.arch or fewer "
        "views."
    ]
    (warning,) = shortage(memory, 4, "none")
    assert warning.endswith("Set runtime.checkpointing=blocks, or lower train.micro_batch_size = 4.")


def test_no_shortage() -> None:
    assert shortage(None, 1, "none") == []
    assert shortage(Memory(base=5, step=10, available=10), 1, "none") == []


def test_a_given_micro_batch_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"train\.micro_batch_size = 5 does not divide the 24 images") as refused:
        decide_micro_batch(config("train.micro_batch_size=5", "train.batch_size=24"), CPU, 24, {}, False)
    assert refused.value.hint == "Choose one of 1, 2, 3, 4, 6, 8, 12, 24, or auto."


def test_a_given_micro_batch_is_no_choice_and_costs_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "estimate_step", lambda *_: pytest.fail("estimated"))
    made: dict[str, Choice] = {}
    decided, memory = decide_micro_batch(config("train.micro_batch_size=6"), CPU, 24, made, False)
    assert decided.train.micro_batch_size == 6 and memory is None and made == {}


MIDDLE = (
    "data.channels=3", "model.width=192", "model.depth=6", "model.heads=3", "model.patch_size=16",
    "views.global_size=96", "views.local_size=48", "views.num_local=4", "head.prototypes=4096",
    "head.hidden_size=2048", "head.bottleneck_size=256", "train.epochs=2", "train.batch_size=16",
)  # fmt: skip


def ibot(folder: Path, sets: Sequence[str], *flags: str) -> dict[str, object]:
    """The JSON that `ibot pretrain` prints in a fresh process, and its peak as the kernel counts it."""
    probe = (
        "import sys; from pathlib import Path; from ibot_cli.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        # not ru_maxrss, which a process takes over from the one that started it
        "status = Path('/proc/self/status').read_text().split('VmHWM:')[1]\n"
        "print(int(status.split()[0]) * 1024, file=sys.stderr)"
    )
    args = ["pretrain", str(folder), "--preset", "ibot_vits16", *flags, "--json"]
    for text in (*runs.SMALL, *sets):
        args += ["--set", text]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", probe, *args], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "peak": int(done.stderr.splitlines()[-1])}


@pytest.mark.slow
@pytest.mark.parametrize(
    "sets",
    [
        ("train.micro_batch_size=16",),
        ("train.micro_batch_size=4",),
        ("train.micro_batch_size=16", "runtime.precision=bf16"),
        ("train.micro_batch_size=16", "head.norm=batch", "objective.balance=sinkhorn"),
    ],
    ids=["fp32", "accumulated", "bf16", "batch norm and Sinkhorn"],
)
def test_the_estimate_of_a_dry_run_is_within_30_percent_of_the_peak(tmp_path: Path, sets: tuple[str, ...]) -> None:
    folder = pictures.mixed(tmp_path / "images", 16)
    plan = ibot(folder, (*MIDDLE, *sets), "--dry-run")["memory"]
    assert isinstance(plan, dict)
    measured = ibot(folder, (*MIDDLE, *sets), "--out", str(tmp_path / "run"))["peak"]
    assert isinstance(measured, int)
    print(f"estimated {plan['peak'] / MIB:.0f} MiB, measured {measured / MIB:.0f} MiB, base {plan['base'] / MIB:.0f}")
    assert measured / 1.3 <= plan["peak"] <= 1.3 * measured
    # the part that is not libraries, which are most of the peak here
    assert (measured - plan["base"]) / 1.6 <= plan["peak"] - plan["base"] <= 1.6 * (measured - plan["base"])
