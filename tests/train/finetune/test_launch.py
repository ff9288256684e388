"""Whole small fine-tunings: what they learn, write, record and refuse."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import from_mapping, to_yaml
from ibot_cli.core.backbone import build_backbone
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import ConfigError, DataError, TrainingError, UsageError
from ibot_cli.evaluate.labelled import open_labelled
from ibot_cli.evaluate.predict import class_scores
from ibot_cli.runs import checkpoint
from ibot_cli.runs.evaluations import correctness, read_evaluations
from ibot_cli.train.finetune import loop as loop_module
from ibot_cli.train.finetune.launch import execute
from ibot_cli.train.finetune.prepare import Prepared, prepare
from ibot_cli.train.finetune.result import FinetuneResult
from ibot_cli.train.reporter import Silent
from ibot_cli.weights.load import load_weights
from tests.train import pictures, runs
from tests.train.finetune import tuned


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.epochs: list[Mapping[str, Any]] = []

    def epoch(self, record: Mapping[str, Any]) -> None:
        self.epochs.append(record)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned.make_images(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return tuned.pretrained(tmp_path / "pretrained")


def prepared(weights: Path, images: Path, out: Path, *sets: str, **options: Any) -> Prepared:
    return prepare(tuned.request(weights, images, out, *sets, **options))


def judged(weights: Path | str, images: Path) -> float:
    """Top-1 of saved weights on the test images, by the way of `ibot predict`."""
    loaded = load_weights(str(weights))
    test = open_labelled(str(images), channels=1).test
    transform = eval_transform(loaded.image_size, loaded.crop_ratio, loaded.channels, loaded.mean, loaded.std)
    found = class_scores(loaded.classifier, test.source, transform)
    return float((found.cls.argmax(dim=1).numpy() == test.labels[found.index]).mean())


def test_it_learns_and_the_last_checkpoint_is_what_was_judged(weights: Path, images: Path, tmp_path: Path) -> None:
    told = Recorder()
    names = ("mixup", "cutmix", "erase_prob", "color_jitter")  # brightness is what tells the classes apart
    plain = ("model.drop_path=0", *(f"augment.{name}=0" for name in names))
    plan = prepared(weights, images, tmp_path / "run", "train.epochs=10", *plain)
    result, recorded = execute(plan, told)
    assert result.top1 == judged(tmp_path / "run", images) >= 0.8
    assert result.top1_low < result.top1 <= result.top1_high
    losses = [record["train/loss"] for record in told.epochs]
    assert losses[-1] < losses[0] and told.warnings == []
    assert result.weights_hash == load_weights(str(tmp_path / "run")).weights_hash
    assert result.weights == load_weights(str(tmp_path / "run")).description
    assert recorded == [str(tmp_path / "run/evaluations.jsonl"), str(weights / "evaluations.jsonl")]
    assert (result.num_train, result.num_test, result.num_classes) == (33, 9, 3)


def test_the_best_step_on_the_test_images_is_called_so(weights: Path, images: Path, tmp_path: Path) -> None:
    result = tuned.finetune(weights, images, tmp_path / "run")
    records = [r for r in runs.metrics(tmp_path / "run") if "epochs_done" in r]
    best = max(record["test/top1_accuracy"] for record in records)
    first = next(record for record in records if record["test/top1_accuracy"] == best)
    assert result.best.chosen_on == "test images"
    assert (result.best.top1, result.best.chosen_top1, result.best.step) == (best, best, first["step"])
    assert judged(result.best.checkpoint, images) == best
    assert result.top1 == records[-1]["test/top1_accuracy"]


def test_a_holdout_chooses_the_best_step_without_looking_at_the_test(
    weights: Path, images: Path, tmp_path: Path
) -> None:
    result = tuned.finetune(weights, images, tmp_path / "run", "train.holdout_ratio=0.3")
    records = [r for r in runs.metrics(tmp_path / "run") if "epochs_done" in r]
    assert not any(name.startswith("test/") for record in records for name in record)
    best = max(record["holdout/top1_accuracy"] for record in records)
    assert result.best.chosen_on == "held-out training images" and result.best.chosen_top1 == best
    assert result.best.top1 == judged(result.best.checkpoint, images)
    assert result.top1 == judged(tmp_path / "run", images)
    assert (result.num_train, result.num_holdout) == (24, 9)


def test_without_validation_there_is_no_best_step(weights: Path, images: Path, tmp_path: Path) -> None:
    result = tuned.finetune(weights, images, tmp_path / "run", "train.eval_epochs=0", "train.checkpoint_epochs=0")
    assert result.best is None and result.top1 == judged(tmp_path / "run", images)
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000012.pt"]


def test_both_checkpoints_stay_whatever_is_pruned(weights: Path, images: Path, tmp_path: Path) -> None:
    tuned.finetune(weights, images, tmp_path / "run", "train.keep_last=1")
    assert sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir()) == ["best.pt", "step-00000012.pt"]


def test_what_is_recorded_in_both_runs(weights: Path, images: Path, tmp_path: Path) -> None:
    result = tuned.finetune(weights, images, tmp_path / "run", labels_per_class=5)
    (own,), (before,) = read_evaluations(tmp_path / "run"), read_evaluations(weights)
    assert own["command"] == before["command"] == "finetune"
    assert own["result"]["run"] == before["result"]["run"] == str(tmp_path / "run")
    assert (own["step"], before["step"]) == (result.steps, 12)
    assert own["weights_hash"] == result.weights_hash
    assert before["weights_hash"] == load_weights(str(weights)).weights_hash == result.started_from_hash
    assert own["settings"]["labels.per_class"] == 5 and own["settings"]["optim.lr"] == 0.01
    assert own["fingerprint"] == open_labelled(str(images), channels=1).fingerprint
    assert float(np.mean(correctness(own))) == result.top1 == own["result"]["top1"]
    assert own["result"]["num_train"] == 15 and own["result"]["labels_available"] == 33


def test_a_recorded_run_from_random_weights_is_shown_beside(weights: Path, images: Path, tmp_path: Path) -> None:
    few = {"labels_per_class": 4}
    alone = tuned.finetune(weights, images, tmp_path / "alone", **few)
    assert alone.scratch_top1 is None and alone.scratch_run is None
    scratch = tuned.finetune(weights, images, tmp_path / "scratch", from_scratch=True, **few)
    assert scratch.from_scratch and scratch.scratch_top1 is None
    longer = tuned.finetune(weights, images, tmp_path / "longer", "train.epochs=5", from_scratch=True, **few)
    beside = tuned.finetune(weights, images, tmp_path / "beside", **few)
    best = max((scratch.top1, scratch.run), (longer.top1, longer.run))
    assert (beside.scratch_top1, beside.scratch_run) == best
    other = tuned.finetune(weights, images, tmp_path / "other", labels_per_class=5)
    assert other.scratch_top1 is None


def test_pixels_with_the_same_labels(weights: Path, images: Path, tmp_path: Path) -> None:
    result = tuned.finetune(weights, images, tmp_path / "run", baselines=True, labels_per_class=5)
    assert 0 <= result.pixels_top1 <= 1 and result.pixels.startswith("raw pixels 32 x 32, k-NN, k = ")


def test_the_configuration_of_a_run_reads_back_exactly(weights: Path, images: Path, tmp_path: Path) -> None:
    tuned.finetune(weights, images, tmp_path / "run")
    text = (tmp_path / "run/config.yaml").read_text()
    import yaml

    config = from_mapping(yaml.safe_load(text), "run", FinetuneConfig)
    assert to_yaml(config) == text and config.data.channels == 1 and config.model.image_size == 16
    assert (config.data.mean, config.data.std) == ((0.3,), (0.4,))
    data = json.loads((tmp_path / "run/data.json").read_text())
    assert data["task"] == "finetune" and data["classes"] == ["class0", "class1", "class2"]
    assert data["origin"]["weights"] == str(weights) and Path(data["data"]) == images
    assert (tmp_path / "run/env.json").is_file()


def test_preparing_writes_nothing(weights: Path, images: Path, tmp_path: Path) -> None:
    def written() -> list[Path]:
        """The index of the images may be kept in the cache."""
        return sorted(path for path in tmp_path.rglob("*") if "default-cache" not in path.parts)

    before = written()
    plan = prepared(weights, images, tmp_path / "run", preset=None)
    assert written() == before
    assert plan.plan.choices["preset"][0] == "finetune_small"


def test_a_batch_larger_than_the_images_is_cut(weights: Path, images: Path, tmp_path: Path) -> None:
    plan = prepared(weights, images, tmp_path / "run", "train.batch_size=64", "train.micro_batch_size=auto").plan
    assert plan.config.train.batch_size == 32
    assert plan.choices["train.batch_size"][1] == "33 training images do not fill a batch of 64"
    assert plan.schedule.peak == pytest.approx(0.04) and plan.schedule.steps_per_epoch == 1


def test_a_warm_up_longer_than_the_run_is_cut(weights: Path, images: Path, tmp_path: Path) -> None:
    plan = prepared(weights, images, tmp_path / "run", "train.epochs=4", "optim.warmup_epochs=50").plan
    assert plan.config.optim.warmup_epochs == 2
    assert "optim.warmup_epochs = 50 epochs is longer than this run allows; scaled to 2." in plan.warnings


def test_intermediate_fine_tuning(weights: Path, images: Path, tmp_path: Path) -> None:
    tuned.finetune(weights, images, tmp_path / "first")
    again = prepared(tmp_path / "first", images, tmp_path / "second")
    assert again.start.head == "kept"
    model, loaded = again.start.model.eval(), load_weights(str(tmp_path / "first"))
    with torch.no_grad():
        pixels = torch.rand(2, 1, 16, 16)
        assert torch.equal(model(pixels), loaded.classifier(pixels))
    other = tuned.make_images(tmp_path / "other", classes=2)
    assert prepared(tmp_path / "first", other, tmp_path / "third").start.head == "replaced"


def test_larger_images_than_in_pre_training(weights: Path, images: Path, tmp_path: Path) -> None:
    tuned.finetune(weights, images, tmp_path / "run", "model.image_size=24", "train.epochs=1")
    loaded = load_weights(str(tmp_path / "run"))
    assert loaded.image_size == 24 and loaded.backbone.pos_embed.shape[1] == 37


@pytest.mark.slow
def test_swin(images: Path, tmp_path: Path) -> None:
    swin = build_backbone(arch="swin_tiny", image_size=64, channels=1, window_size=2)
    torch.save(swin.state_dict(), tmp_path / "swin.pth")
    sets = ("model.image_size=64", "train.epochs=1", "train.batch_size=4", "data.mean=0.4", "data.std=0.3")
    result = tuned.finetune(tmp_path / "swin.pth", images, tmp_path / "run", *sets, labels_per_class=2)
    assert result.steps == 1 and math.isfinite(result.test_loss)
    assert result.top1 == judged(tmp_path / "run", images)


def test_bad_files_are_replaced_counted_and_named(weights: Path, tmp_path: Path) -> None:
    folder = tuned.make_images(tmp_path / "images")
    for name in ("class0/3.png", "class1/5.png"):
        (folder / name).write_bytes(b"")
    result = tuned.finetune(weights, folder, tmp_path / "run", "data.max_bad_ratio=0.5")
    test_bad = [note for note in result.notes if "could not be read" in note]
    named = json.loads((tmp_path / "run/bad_files.json").read_text())["files"] if result.bad_files else {}
    assert result.bad_files + (9 - result.num_test) == 2 and len(named) == result.bad_files
    assert bool(test_bad) == (result.num_test < 9)


def test_too_many_bad_files_are_refused_before_anything_is_written(weights: Path, tmp_path: Path) -> None:
    folder = tuned.make_images(tmp_path / "images")
    for number in range(14):
        (folder / f"class0/{number}.png").write_bytes(b"")
    plan = prepared(weights, folder, tmp_path / "run")
    with pytest.raises(DataError, match="files cannot be read; a run stops above 10 files"):
        execute(plan, Silent())
    assert not (tmp_path / "run").exists()


def test_losses_that_stay_infinite_stop_the_run(
    weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = loop_module.finetune_step

    def spoiled(model: Any, optimizer: Any, batches: Any, lr: float, settings: Any) -> Any:
        for batch, _ in batches if optimizer.state and len(seen) > 5 else []:
            batch.images.fill_(math.nan)
        seen.append(1)
        return original(model, optimizer, batches, lr, settings)

    seen: list[int] = []
    monkeypatch.setattr(loop_module, "finetune_step", spoiled)
    told = Recorder()
    plan = prepared(weights, images, tmp_path / "run", "train.max_bad_steps=4")
    with pytest.raises(
        TrainingError, match=r"4 steps in a row were not finite, the last at step 10: loss/class"
    ) as stop:
        execute(plan, told)
    assert "optim.clip_grad=1" in str(stop.value.hint) and "updates were skipped" in told.warnings[0]
    saved = checkpoint.latest(tmp_path / "run/checkpoints")
    assert saved.step == 8 and all(value.isfinite().all() for value in saved.state["model"].values())
    before = checkpoint.load(tmp_path / "run/checkpoints/step-00000004.pt").state
    assert saved.state["optimizer"]["state"][0]["step"] == 6 > before["optimizer"]["state"][0]["step"]


@pytest.mark.parametrize(
    ("sets", "error", "message"),
    [
        (("data.channels=3",), UsageError, r"data\.channels = 3, but .* sees 1"),
        (("model.image_size=18",), UsageError, r"model\.image_size = 18 is no multiple of 4"),
        (("model.pooling=mean", "model.keep_projection=1"), ConfigError, r"model\.keep_projection"),
        (("runtime.device=cuda:7",), UsageError, "cuda:7"),
    ],
)
def test_settings_that_cannot_be(
    weights: Path, images: Path, tmp_path: Path, sets: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prepared(weights, images, tmp_path / "run", *sets)
    assert not (tmp_path / "run").exists()


def test_a_memory_estimate_that_grows_with_the_images(weights: Path, images: Path, tmp_path: Path) -> None:
    peaks = []
    for micro in (2, 8):
        request = tuned.request(weights, images, tmp_path / "run", f"train.micro_batch_size={micro}")
        memory = prepare(request, want_memory=True).plan.memory
        peaks.append(memory.step)
    assert 0 < peaks[0] < peaks[1]


def test_a_micro_batch_that_fits(weights: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ibot_cli.train.finetune import memory

    def new() -> Prepared:
        return prepared(weights, images, tmp_path / "run", "train.micro_batch_size=auto", "train.epochs=2")

    assert new().plan.config.train.micro_batch_size == 8
    monkeypatch.setattr(memory, "available_memory", lambda device: 540_000)
    small = new()
    assert small.plan.config.train.micro_batch_size in (2, 4, 6)
    assert small.plan.memory.step <= 540_000 * 0.7
    result = execute(small, Silent())[0]
    assert isinstance(result, FinetuneResult) and result.steps == 8


def test_flat_images_have_no_labels(weights: Path, tmp_path: Path) -> None:
    folder = pictures.mixed(tmp_path / "flat", 4)
    with pytest.raises(DataError, match="has no labels"):
        prepared(weights, folder, tmp_path / "run")
