"""Passes that do not fit: the run goes on with fewer images at once, and ends where it would have ended with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ibot_cli import distributed
from ibot_cli.config.load import resolve
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.batch import Batch
from ibot_cli.core.objective import Objective
from ibot_cli.errors import TrainingError
from ibot_cli.train.compilation import Compilation
from ibot_cli.train.launch import Request, execute, prepare
from ibot_cli.train.out_of_memory import OutOfMemory, composed_terms, halved, is_out_of_memory, notice, within_memory
from ibot_cli.train.reporter import Silent
from tests.train import runs
from tests.train.test_distributed import exit_codes, run


class Told(Silent):
    """Keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return runs.make_images(tmp_path_factory.mktemp("data") / "images", per_class=9)


def train(images: Path, out: Path, *sets: str, resume: bool = False) -> list[str]:
    """Warnings of a run with micro-batches of 8 images, if nothing else is said."""
    told = Told()
    sets = (
        sets if resume else (*runs.SMALL, "monitor.knn_epochs=0", "train.epochs=1", "train.micro_batch_size=8", *sets)
    )
    preset = None if resume else "ibot_vits16"
    execute(prepare(Request(data=str(images), preset=preset, sets=list(sets), out=out, resume=resume)), told)
    return told.warnings


def allocate_too_much() -> None:
    """What the allocator says when there is not enough memory."""
    torch.empty(2**60, dtype=torch.uint8)


def fail_where(monkeypatch: pytest.MonkeyPatch, lacking: Callable[[Batch], bool]) -> None:
    """From now on there is no memory for the backward pass of some micro-batches."""
    original = Objective.losses

    class Growing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, term: torch.Tensor) -> torch.Tensor:
            return term.clone()

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
            allocate_too_much()
            return grads[0]

    def losses(self: Objective, batch: Batch, now: Any) -> Any:
        outcome = original(self, batch, now)
        if lacking(batch):
            outcome.terms["cls"] = Growing.apply(outcome.terms["cls"])
        return outcome

    monkeypatch.setattr(Objective, "losses", losses)


def results(out: Path) -> dict[str, Any]:
    return {"metrics": runs.metrics(out), "state": runs.final_state(out), "config": (out / "config.yaml").read_text()}


def test_the_allocators_errors_are_known() -> None:
    with pytest.raises(RuntimeError) as real:
        allocate_too_much()
    assert is_out_of_memory(real.value)
    assert is_out_of_memory(
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    ) and is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def test_only_a_lack_of_memory_is_taken_for_one() -> None:
    with pytest.raises(OutOfMemory, match="do not fit into memory") as found, within_memory():
        allocate_too_much()
    assert found.value.everywhere and "runtime.checkpointing=blocks" in str(found.value.hint)
    with pytest.raises(RuntimeError, match="another") as other, within_memory():
        raise RuntimeError("another")
    assert not isinstance(other.value, OutOfMemory)


@pytest.mark.parametrize(
    ("micro", "whole", "expected"), [(8, 8, 4), (6, 12, 3), (3, 6, 1), (7, 14, 2), (5, 15, 1), (1, 4, None)]
)
def test_half_or_less_that_divides(micro: int, whole: int, expected: int | None) -> None:
    assert halved(micro, lambda size: whole % size == 0) == expected


def test_a_run_is_the_one_with_the_smaller_micro_batch(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the broken-off passes is left: weights, moments, batch statistics and draws are those of that run."""
    train(images, tmp_path / "small", "head.norm=batch", "train.micro_batch_size=2")
    fail_where(monkeypatch, lambda batch: batch.num_images > 2)
    warnings = train(images, tmp_path / "large", "head.norm=batch")
    runs.assert_same(results(tmp_path / "large"), results(tmp_path / "small"))
    assert [text.split(",")[0] for text in warnings] == [
        "Step 1 did not fit into memory: train.micro_batch_size was 8 and is 4 from now on",
        "Step 1 did not fit into memory: train.micro_batch_size was 4 and is 2 from now on",
    ]
    assert warnings[0].endswith(
        "also in config.yaml; an update takes more passes. What depends on the images of a pass changes with it: batch "
        "normalisation. All else stays the same up to rounding."
    )


def test_in_the_middle_of_a_run(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second micro-batch of the third step: the first has left gradients, the optimiser has its moments."""
    train(images, tmp_path / "whole", "train.micro_batch_size=4")
    seen = []
    fail_where(monkeypatch, lambda batch: seen.append(batch.num_images) or len(seen) == 6)
    (warning,) = train(images, tmp_path / "run", "train.micro_batch_size=4")
    assert seen == [4] * 6 + [2] * 4
    assert warning.startswith("Step 3 did not fit")
    assert warning.endswith("Losses and gradients stay the same up to rounding.")
    whole, run = results(tmp_path / "whole"), results(tmp_path / "run")
    for ours, theirs in zip(run["metrics"], whole["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    torch.testing.assert_close(run["state"]["teacher"], whole["state"]["teacher"], rtol=1e-3, atol=1e-4)
    assert yaml.safe_load(run["config"])["train"]["micro_batch_size"] == 2


@pytest.mark.slow
def test_resumed_with_what_fitted(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ("train.micro_batch_size=4", "train.keep_last=9", "train.checkpoint_steps=1")
    train(images, tmp_path / "small", *whole)
    with monkeypatch.context() as patch:
        fail_where(patch, lambda batch: batch.num_images > 4)
        train(images, tmp_path / "run", *whole, "train.micro_batch_size=8")
    for path in (tmp_path / "run" / "checkpoints").glob("*3.pt"):
        path.unlink()
    assert train(images, tmp_path / "run", resume=True) == []
    runs.assert_same(results(tmp_path / "run"), results(tmp_path / "small"))


@pytest.mark.parametrize("required", [False, True])
def test_a_compiler_that_fails_where_memory_lacks_too(monkeypatch: pytest.MonkeyPatch, required: bool) -> None:
    """The user learns of the compiler, the other processes hear of both, and the step finds its shortage itself."""
    answers: list[bool] = []
    monkeypatch.setattr(distributed, "any_rank", lambda flag, device: answers.append(flag) or flag)
    backbone = build_backbone(arch="vit_tiny", image_size=32, width=6, depth=1, heads=1)
    compilation, told = Compilation([backbone], torch.device("cpu"), required=required), Told()

    def work() -> None:
        if compilation.active:
            raise RuntimeError("no compiler for this graph")
        raise OutOfMemory(everywhere=False)

    if required:
        with pytest.raises(TrainingError, match="no compiler for this graph"):
            compilation.try_out(work, lambda: None, told)
    else:
        compilation.try_out(work, lambda: None, told)
        assert "no compiler for this graph" in told.warnings[0]
    assert answers == [True, True] and not compilation.active and not compilation.due


def test_one_image_is_too_much(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_where(monkeypatch, lambda batch: True)
    with pytest.raises(TrainingError) as ended:
        train(images, tmp_path / "run", "train.micro_batch_size=1")
    assert ended.value.message == (
        "Step 1 does not fit into memory, even with train.micro_batch_size = 1. "
        "Updates and checkpoints before it are intact."
    )
    assert ended.value.hint == (
        "Set runtime.checkpointing=blocks, runtime.precision=bf16, fewer or smaller views, or a smaller model.arch."
    )


def fail_in_the_second_process(monkeypatch: pytest.MonkeyPatch, lacking: Callable[[Batch], bool]) -> None:
    """From now on, there only; whoever waits in vain gives up after a minute."""
    monkeypatch.setattr(distributed, "TIMEOUT", timedelta(minutes=1))
    fail_where(monkeypatch, lambda batch: distributed.rank() == 1 and lacking(batch))


def test_two_processes_halve_together(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sinkhorn and batch normalisation wait for the other process in the middle of a pass."""
    sets = ("objective.balance=sinkhorn", "head.norm=batch", "train.batch_size=16", "monitor.knn_epochs=0")
    run(images, tmp_path / "small", 2, *sets, "train.micro_batch_size=4")
    fail_in_the_second_process(monkeypatch, lambda batch: batch.num_images > 4)
    run(images, tmp_path / "large", 2, *sets, "train.micro_batch_size=8")
    runs.assert_same(results(tmp_path / "large"), results(tmp_path / "small"))


@pytest.mark.slow
def test_a_process_that_fails_later_takes_the_others_along(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[int] = []
    fail_in_the_second_process(monkeypatch, lambda batch: seen.append(0) or len(seen) > 2 * 2)
    assert exit_codes(images, tmp_path / "run", 2, "monitor.knn_epochs=0", "train.log_every=1") == [1, 1]
    assert "OutOfMemory: The images of a forward pass do not fit into memory." in capfd.readouterr().err


def test_what_fewer_images_would_not_mend(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Objective, "after_update", lambda *_: allocate_too_much())
    with pytest.raises(TrainingError) as ended:
        train(images, tmp_path / "run")
    assert ended.value.message.startswith("There is not enough memory beside the forward and backward passes: [")
    assert "DefaultCPUAllocator" in ended.value.message
    assert str(ended.value.hint).startswith("Make room on the device, or start a new run with a smaller model.arch")


def test_what_depends_on_the_composition_is_named() -> None:
    def config(*sets: str) -> Any:
        return resolve(preset=None, file=None, sets=[*runs.SMALL, *sets]).config

    several = config("objective.balance=sinkhorn", "objective.koleo_weight=0.1", "head.norm=batch")
    assert composed_terms(config()) == []
    assert composed_terms(several) == ["Sinkhorn", "KoLeo", "batch normalisation"]
    assert "with it: Sinkhorn and KoLeo and batch normalisation. All else" in notice(4, 8, several)


@pytest.mark.slow
def test_checkpointing_changes_no_bit_of_a_run(images: Path, tmp_path: Path) -> None:
    for name, blocks in (("kept", "none"), ("again", "blocks")):
        train(images, tmp_path / name, f"runtime.checkpointing={blocks}")
    kept, again = results(tmp_path / "kept"), results(tmp_path / "again")
    for result in (kept, again):
        del result["config"], result["state"]["config"]
    runs.assert_same(again, kept)
