"""Compiled blocks: the same numbers, few shapes, and a way on where the compiler fails; it is usually a stand-in."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ibot_cli.config.schema import RuntimeConfig
from ibot_cli.core.batch import Batch
from ibot_cli.core.losses import score_chunk
from ibot_cli.core.masking import MaskSampler
from ibot_cli.core.objective import Objective
from ibot_cli.errors import TrainingError
from ibot_cli.train import compilation as compilation_module
from ibot_cli.train.arithmetic import decide_arithmetic
from ibot_cli.train.choices import Choice
from ibot_cli.train.compilation import Compilation, asked_for
from ibot_cli.train.out_of_memory import OutOfMemory
from ibot_cli.train.reporter import Silent
from ibot_cli.train.step import StepSettings, forget_passes, passes
from tests.core import tiny

MASKS = MaskSampler(grid=tiny.GRID, kind="random", ratio=(0.4,), ratio_var=(0.3,))
SETTINGS = StepSettings(clip_grad=0.0, clip_mode="global", dtype=None, average_over_ranks=lambda tensors: None)
CPU = torch.device("cpu")


class Counter:
    """A compiler that compiles nothing and counts the graphs that it gets."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        found: Callable[..., Any] = graph.forward
        return found


def broken(graph: Any, inputs: list[Tensor]) -> Callable[..., Any]:
    raise RuntimeError("no compiler for this graph\nsecond line")


@pytest.fixture(autouse=True)
def forgetful() -> None:
    torch._dynamo.reset()


def compiled(objective: Objective, backend: Any, **options: Any) -> Compilation:
    backbones = [objective.student.backbone, objective.teacher.backbone]
    return Compilation(backbones, CPU, objective=objective, masks=MASKS, backend=backend, **options)


def run(objective: Objective, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses and gradients."""
    (outcome,) = passes(objective, [batch], tiny.now(), SETTINGS)
    grads = {name: p.grad.clone() for name, p in objective.student.named_parameters() if p.grad is not None}
    forget_passes(objective)
    return outcome.terms, grads


def masked(number: int, drop_path: Tensor | None) -> Batch:
    """A batch with so many masked patches."""
    mask = torch.zeros(2 * 3 * tiny.GRID**2, dtype=torch.bool)
    mask[torch.randperm(len(mask), generator=torch.Generator().manual_seed(number))[:number]] = True
    whole = tiny.batch()
    return Batch.make(whole.global_views, whole.local_views, mask.reshape(2, 3, -1), drop_path)


@pytest.mark.parametrize(
    ("balance", "numbers"),
    [
        ("center", (17,)),
        pytest.param("center", (17, 44), marks=pytest.mark.slow),
        pytest.param("sinkhorn", (0, 44, 50, 60), marks=pytest.mark.slow),
    ],
)
def test_each_size_is_compiled_once_and_gives_the_same_numbers(balance: str, numbers: tuple[int, ...]) -> None:
    plain, objective, counter = tiny.objective(balance=balance), tiny.objective(balance=balance), Counter()
    compilation = compiled(objective, counter)
    drop = torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    sizes = {len(compilation.padded(masked(number, drop)).mask_index) for number in range(67)}
    assert len(sizes) == 4
    for number in numbers:
        batch = masked(number, drop)
        padded = compilation.padded(batch)
        assert len(padded.mask_index) in sizes and len(padded.mask_index) > number
        for ours, theirs in zip(run(objective, padded), run(plain, batch), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    seen = counter.graphs
    assert 0 < seen <= 5 + 3 * len(numbers)
    for number in numbers:
        run(objective, compilation.padded(masked(max(number - 1, 0), drop * 2)))
    objective.eval()
    objective.teacher.backbone(torch.zeros(5, 1, 12, 12))
    assert counter.graphs == seen, "nothing is compiled again, and evaluations are not compiled"


@pytest.mark.slow
def test_a_head_with_batch_norm_gets_no_padding_and_its_last_block_is_not_compiled() -> None:
    objective, counter = tiny.objective(head_options={"norm": "batch"}), Counter()
    compilation = Compilation([objective.student.backbone], CPU, ragged=True, backend=counter)
    for number in (3, 9):
        batch = masked(number, None)
        assert compilation.padded(batch) is batch
        run(objective, batch)
    assert counter.graphs == 2  # the first block, for each size of images


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def attempt(objective: Objective, compilation: Compilation) -> Told:
    batch, told = compilation.padded(masked(9, None)), Told()
    work = partial(passes, objective, [batch], tiny.now(), SETTINGS)
    compilation.try_out(work, partial(forget_passes, objective), told)
    return told


def test_a_failing_compiler_is_left_out_and_the_user_is_told() -> None:
    objective = tiny.objective()
    terms, grads = run(objective, masked(9, None))
    before = tiny.snapshot(objective)
    compilation = compiled(objective, broken)
    assert compilation.active
    told = attempt(objective, compilation)
    assert told.said == ["Compiling the networks' blocks; this takes a minute or so, once."]
    assert told.warnings == [
        "Blocks are not compiled, because the compiler failed: RuntimeError: no compiler for this graph. "
        "Steps take longer; nothing else changes."
    ]
    assert (
        not compilation.active
        and objective.score_chunk is score_chunk
        and all(p.grad is None for p in objective.parameters())
    )
    assert tiny.same(tiny.snapshot(objective), before)
    batch = masked(9, None)
    assert compilation.padded(batch) is batch
    again = run(objective, batch)
    assert tiny.same(again[0], terms) and tiny.same(again[1], grads)
    again_told = attempt(objective, compilation)
    assert again_told.said == again_told.warnings == []


def test_a_failing_compiler_that_was_asked_for_is_an_error() -> None:
    compilation = compiled(tiny.objective(), Counter(), required=True)

    def work() -> None:
        if compilation.active:
            raise RuntimeError("no compiler for this graph")

    with pytest.raises(TrainingError) as failed:
        compilation.try_out(work, lambda: None, Silent())
    assert failed.value.message == (
        "runtime.compile is on, but the compiler failed: RuntimeError: no compiler for this graph."
    )
    assert failed.value.hint == (
        "Set runtime.compile=off (a run goes on with --resume), or repair the compiler: a C++ compiler on a CPU, "
        "Triton on a GPU."
    )


def test_what_fails_without_a_compiler_too_is_not_its_failure() -> None:
    compilation = compiled(tiny.objective(), Counter())

    def fails() -> None:
        raise ZeroDivisionError("of the step itself")

    with pytest.raises(ZeroDivisionError, match="of the step itself"):
        compilation.try_out(fails, lambda: None, Silent())


def test_too_little_memory_is_left_to_the_step_and_the_compiler_tried_again() -> None:
    calls: list[str] = []

    def too_large() -> None:
        calls.append("tried")
        if len(calls) == 1:
            raise OutOfMemory(everywhere=True)

    compilation = compiled(tiny.objective(), Counter())
    tried = [compilation.try_out(too_large, lambda: calls.append("forgot"), Silent()) for _ in range(3)]
    assert tried == [True, True, False]
    assert compilation.active and calls == ["tried", "forgot", "tried", "forgot"]


def test_a_failure_elsewhere_ends_compiling_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    compilation = compiled(tiny.objective(), Counter())
    answers = iter([False, True])
    monkeypatch.setattr(compilation_module.distributed, "any_rank", lambda flag, device: next(answers))
    told = Told()
    compilation.try_out(lambda: None, lambda: None, told)
    assert "it failed in another process" in told.warnings[0] and not compilation.active


@pytest.mark.parametrize(
    ("choices", "origin", "wanted"),
    [
        ({"runtime.compile": (True, "why")}, {"runtime.compile": "default"}, False),
        ({}, {"runtime.compile": "--set"}, True),
        ({}, {"runtime.compile": "run/config.yaml"}, False),
    ],
)
def test_who_wants_compiling(choices: dict[str, Any], origin: dict[str, str], wanted: bool) -> None:
    assert asked_for(choices, origin, str(Path("run") / "config.yaml")) is wanted


@pytest.mark.parametrize(("device", "chosen"), [("cuda", True), ("cpu", False)])
def test_blocks_are_compiled_on_a_gpu_unless_the_user_says_otherwise(device: str, chosen: bool) -> None:
    made: dict[str, Choice] = {}
    runtime = RuntimeConfig(device=device, precision="fp32")
    assert decide_arithmetic(runtime, torch.device(device), made).compile is chosen
    assert made.keys() == {"runtime.compile"}
    asked = RuntimeConfig(device=device, precision="fp32", compile=not chosen)
    assert decide_arithmetic(asked, torch.device(device), {}) == asked


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_numbers_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    before = children()
    batch = masked(9, torch.rand(2, 2, 4, 3, generator=torch.Generator().manual_seed(0)))
    plain, objective = tiny.objective(), tiny.objective()
    compilation = compiled(objective, "inductor", required=True)
    attempt(objective, compilation)
    assert any(tmp_path.rglob("*.so")), "it was compiled"
    for ours, theirs in zip(run(objective, compilation.padded(batch)), run(plain, batch), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert children() == before


def children() -> set[str]:
    """Processes that this one started and that still run."""
    found = [Path(f"/proc/{os.getpid()}/task/{task.name}/children") for task in Path("/proc/self/task").iterdir()]
    return {pid for path in found if path.exists() for pid in path.read_text().split()}
