"""Every open setting is decided, with a reason, and what the user said stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibot_cli.config.load import flatten
from ibot_cli.errors import DataError, UsageError
from ibot_cli.train import plan as plan_module
from ibot_cli.train.launch import prepare
from ibot_cli.train.plan import Plan, known, loader_of
from ibot_cli.train.request import Request
from tests.train import pictures, runs

OPEN = (
    "optim.warmup_epochs", "train.epochs", "train.batch_size", "train.micro_batch_size", "head.prototypes",
    "runtime.device", "runtime.precision", "runtime.workers", "runtime.threads",
    "runtime.compile", "optim.lr",
)  # fmt: skip
SHAPES = [text for text in runs.SMALL if not text.startswith(OPEN)] + ["data.channels=3"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures.mixed(tmp_path_factory.mktemp("data") / "flat", 16)


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four free cores, one CPU without fast bf16, and no change of this process's threads."""
    monkeypatch.setattr(plan_module, "free_cores", lambda: 4)
    monkeypatch.setattr("ibot_cli.train.arithmetic.has_native_bf16", lambda device: False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.set_num_threads", lambda count: None)


def planned(data: Path, *sets: str, preset: str | None = None) -> Plan:
    return prepare(Request(data=str(data), preset=preset, sets=[*SHAPES, *sets], out=Path("nowhere"))).plan


def test_what_is_chosen_for_a_folder_without_a_preset(flat: Path) -> None:
    plan = planned(flat)
    chosen = {path: value for path, (value, _) in plan.choices.items()}
    assert chosen.keys() == {
        "train.epochs", "train.batch_size", "train.micro_batch_size", "head.prototypes", "optim.warmup_epochs",
        "objective.teacher_temp_warmup_epochs", "objective.balance", "runtime.device", "runtime.precision",
        "runtime.workers", "runtime.threads", "runtime.compile",
    }  # fmt: skip
    values = flatten(plan.config)
    assert {path: values[path] for path in chosen} == chosen
    assert all(len(reason) > 10 for _, reason in plan.choices.values())
    assert (chosen["train.epochs"], chosen["train.batch_size"], chosen["head.prototypes"]) == (800, 2, 256)
    assert plan.choices["runtime.device"] == ("cpu", "there is no GPU")
    assert plan.choices["runtime.precision"] == ("fp32", "the CPU has no fast bf16 products")
    assert plan.warnings == []


def test_nothing_stays_open(flat: Path) -> None:
    open_ones = {path for path, value in flatten(planned(flat).config).items() if value is None}
    assert open_ones == {"init.weights"}


def test_nothing_stays_open_for_an_architecture_as_it_is_named(flat: Path) -> None:
    plan = planned(flat, "model.width=auto", "model.depth=auto", "model.heads=auto", "train.micro_batch_size=1")
    open_ones = {path for path, value in flatten(plan.config).items() if value is None}
    assert open_ones == {"model.width", "model.depth", "model.heads", "init.weights"}


def test_the_user_overrules_every_choice(flat: Path) -> None:
    said = {
        "train.epochs": 7, "train.batch_size": 4, "train.micro_batch_size": 2, "head.prototypes": 99,
        "optim.warmup_epochs": 3, "objective.teacher_temp_warmup_epochs": 2, "objective.balance": "center",
        "runtime.device": "cpu", "runtime.precision": "bf16", "runtime.workers": 1, "runtime.threads": 2,
        "runtime.compile": True,
    }  # fmt: skip
    plan = planned(flat, *(f"{path}={value}" for path, value in said.items()))
    values = flatten(plan.config)
    assert {path: values[path] for path in said} == said
    assert plan.choices == {} and all(plan.origin[path] == "--set" for path in said)
    assert plan.dtype is torch.bfloat16 and plan.micro_batches == 2 and plan.schedule.total_steps == 7 * 4


def test_warm_ups_are_chosen_for_the_epochs_that_the_user_gave(flat: Path) -> None:
    plan = planned(flat, "train.epochs=20")
    assert "train.epochs" not in plan.choices
    assert plan.choices["optim.warmup_epochs"] == (2, "a tenth of 20 epochs, 10 at most as published")
    assert plan.choices["objective.teacher_temp_warmup_epochs"][0] == 6
    assert plan.warnings == []


def test_a_recipe_keeps_its_values_and_its_long_durations_are_scaled(flat: Path) -> None:
    sets = ("train.epochs=8", "train.batch_size=8", "mask.start_epoch=50")
    plan = planned(flat, *sets, preset="ibot_vits16")
    assert not {"head.prototypes", "objective.balance", "optim.warmup_epochs"} & plan.choices.keys()
    assert plan.config.head.prototypes == 8192 and plan.config.objective.balance == "center"
    assert plan.warnings == [
        "optim.warmup_epochs = 10 epochs is longer than this run allows; scaled to 1.",
        "mask.start_epoch = 50 epochs is longer than this run allows; scaled to 1.",
        "objective.teacher_temp_warmup_epochs = 30 epochs is longer than this run allows; scaled to 1.",
    ]
    assert plan.schedule.mask_start_epoch == 1 and plan.schedule.optim.warmup_epochs == 1


def test_shapes_and_statistics(flat: Path) -> None:
    plan = planned(flat, "train.micro_batch_size=1")
    assert plan.tokens == (1 + (16 // 4) ** 2, 1 + (8 // 4) ** 2)
    assert plan.parameters["backbone"] > 0 and plan.parameters["head"] > 0
    assert plan.config.data.mean == (0.485, 0.456, 0.406) and len(known(plan.config.data.std)) == 3
    assert plan.memory is None
    grey = planned(flat, "train.micro_batch_size=1", "data.channels=1")
    assert len(known(grey.config.data.mean)) == 1
    with_registers = planned(flat, "train.micro_batch_size=1", "model.registers=4")
    assert with_registers.tokens == (plan.tokens[0] + 4, plan.tokens[1] + 4)
    width = known(plan.config.model.width)
    assert with_registers.parameters["backbone"] == plan.parameters["backbone"] + 4 * width


def test_separate_heads_take_the_chosen_number_of_prototypes(flat: Path) -> None:
    plan = planned(flat, "train.micro_batch_size=1", "head.shared=false", "head.patch_prototypes=auto")
    assert plan.config.head.prototypes == plan.config.head.patch_prototypes == 256
    assert plan.choices["head.patch_prototypes"] == (256, "as many as head.prototypes")


def test_prototypes_that_a_recipe_leaves_open_are_the_published_ones(flat: Path) -> None:
    sets = ("train.batch_size=8", "train.micro_batch_size=1", "head.prototypes=auto", "head.patch_prototypes=auto")
    plan = planned(flat, *sets, preset="ibot_vits16")
    assert plan.config.head.prototypes == plan.config.head.patch_prototypes == 8192
    assert plan.choices["head.prototypes"] == (8192, "as published") and "head.patch_prototypes" not in plan.choices


def test_fast_bf16_is_used_where_it_is(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ibot_cli.train.arithmetic.has_native_bf16", lambda device: True)
    plan = planned(flat, "train.micro_batch_size=1")
    assert plan.dtype is torch.bfloat16 and plan.choices["runtime.precision"] == (
        "bf16",
        "the CPU has fast bf16 products",
    )


def test_threads_and_workers_share_the_cores(flat: Path) -> None:
    plan = planned(flat, "train.micro_batch_size=1")
    workers, threads = plan.config.runtime.workers, plan.config.runtime.threads
    assert known(workers) + known(threads) == 4
    assert plan.choices["runtime.workers"][1] == plan.choices["runtime.threads"][1]
    given = planned(flat, "train.micro_batch_size=1", "runtime.workers=3")
    assert given.config.runtime.workers == 3 and "runtime.workers" not in given.choices
    for workers, threads in ((0, 4), (3, 1), (9, 1)):  # whatever loading takes: it is not asked
        given = planned(flat, "train.micro_batch_size=1", f"runtime.workers={workers}")
        assert given.config.runtime.threads == threads
    assert given.choices["runtime.threads"][1] == "free cores (4) less runtime.workers (9), at least one."


def test_a_batch_that_processes_cannot_share(flat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match=r"train\.batch_size = 4 cannot be shared out over 3 processes") as refused:
        planned(flat, "train.batch_size=4", "train.micro_batch_size=1")
    assert refused.value.hint == "Choose a multiple of 3."


def test_fewer_images_than_a_batch(flat: Path) -> None:
    with pytest.raises(DataError, match="16 images do not fill a batch of 17") as refused:
        planned(flat, "train.batch_size=17", "train.micro_batch_size=1")
    assert refused.value.hint == "Set train.batch_size to at most 16, or add images."


def test_the_remainder_of_an_epoch_is_left_out(flat: Path) -> None:
    plan = planned(flat, "train.batch_size=6", "train.micro_batch_size=3", "train.epochs=5")
    assert (plan.schedule.steps_per_epoch, plan.schedule.total_steps, plan.micro_batches) == (2, 10, 2)


def test_the_loader_of_a_plan(flat: Path) -> None:
    prepared = prepare(
        Request(data=str(flat), sets=[*runs.SMALL, "data.channels=3", "mask.start_epoch=1"], out=Path("nowhere"))
    )
    loader = loader_of(prepared.plan, prepared.source)
    first = next(iter(loader.steps(0, 1)))
    assert loader.steps_per_epoch == prepared.plan.schedule.steps_per_epoch == 2
    assert [batch.num_images for batch in first.micro] == [4, 4]
    assert first.micro[0].global_views.shape == (2, 4, 3, 16, 16) and not first.micro[0].mask.any()
