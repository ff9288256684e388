"""A fine-tuning whose passes do not fit goes on with fewer images at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ibot_cli.errors import TrainingError
from ibot_cli.train.finetune import step
from tests.train import runs
from tests.train.finetune import tuned

SHORT = ("train.epochs=1", "train.eval_epochs=0")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.make_images(tmp_path_factory.mktemp("data") / "images", per_class=9)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.pretrained(tmp_path_factory.mktemp("weights") / "pretrained")


@pytest.fixture
def room_for(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of images whose passes fit; more fail with the allocator's own error."""
    limit, original = [10**6], step.soft_cross_entropy

    def limited(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if len(logits) > limit[0]:
            torch.empty(2**60, dtype=torch.uint8)
        return original(logits, targets)

    monkeypatch.setattr(step, "soft_cross_entropy", limited)
    yield limit


def results(out: Path) -> dict[str, Any]:
    return {"metrics": runs.metrics(out), "state": runs.final_state(out), "config": (out / "config.yaml").read_text()}


def test_a_run_is_the_one_with_the_smaller_micro_batch(
    weights: Path, images: Path, tmp_path: Path, room_for: list[int]
) -> None:
    tuned.finetune(weights, images, tmp_path / "small", *SHORT, "train.micro_batch_size=2")
    room_for[0] = 3
    tuned.finetune(weights, images, tmp_path / "large", *SHORT, "train.micro_batch_size=8")
    runs.assert_same(results(tmp_path / "large"), results(tmp_path / "small"))


def test_pairs_that_are_mixed_stay_together(weights: Path, images: Path, tmp_path: Path, room_for: list[int]) -> None:
    room_for[0] = 1
    with pytest.raises(TrainingError, match=r"even with train\.micro_batch_size = 2, and images are mixed in pairs"):
        tuned.finetune(weights, images, tmp_path / "mixed", *SHORT)
    tuned.finetune(weights, images, tmp_path / "plain", *SHORT, "augment.mixup=0", "augment.cutmix=0")
    assert "micro_batch_size: 1\n" in (tmp_path / "plain" / "config.yaml").read_text()


def test_checkpointing_changes_no_bit(weights: Path, images: Path, tmp_path: Path) -> None:
    for name, way in (("kept", "none"), ("again", "blocks")):
        tuned.finetune(weights, images, tmp_path / name, *SHORT, f"runtime.checkpointing={way}")
    kept, again = results(tmp_path / "kept"), results(tmp_path / "again")
    for result in (kept, again):
        del result["config"], result["state"]["config"]
    runs.assert_same(again, kept)
