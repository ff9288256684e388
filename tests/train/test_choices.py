"""What is chosen for the size of a set, and durations cut to the run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ibot_cli.config.schema import Config, InitConfig, MaskConfig, ObjectiveConfig, OptimConfig, TrainConfig
from ibot_cli.train.choices import (
    automatic_choices,
    changed_paths,
    continued_choices,
    fit_durations,
    frozen_epochs,
)
from ibot_cli.train.schedule import Schedule

SIZES = [1, 2, 9, 100, 333, 1000, 1797, 5000, 8191, 8192, 49_999, 50_000, 131_071, 131_072, 1_281_167, 14_000_000]
OPEN = Config(train=TrainConfig(epochs=None))


def chosen(path: str) -> list[Any]:
    return [automatic_choices(size, OPEN)[path][0] for size in SIZES]


@pytest.mark.parametrize(
    ("path", "low", "high", "rising"),
    [
        ("train.epochs", 100, 800, False),
        ("train.batch_size", 2, 1024, True),
        ("head.prototypes", 256, 8192, True),
        ("optim.warmup_epochs", 1, 10, False),
        ("objective.teacher_temp_warmup_epochs", 1, 30, False),
    ],
)
def test_monotone_and_within_bounds(path: str, low: int, high: int, rising: bool) -> None:
    values = chosen(path)
    assert all(low <= value <= high and isinstance(value, int) for value in values)
    assert values == sorted(values, reverse=not rising)
    assert values[-1] == (high if rising or "warmup" in path else low)


def test_published_values_at_the_size_of_imagenet() -> None:
    choices = automatic_choices(1_281_167, OPEN)
    values = {path: value for path, (value, _) in choices.items()}
    assert values["train.epochs"] == 100
    assert (values["train.batch_size"], values["head.prototypes"]) == (1024, 8192)
    assert values["objective.teacher_temp_warmup_epochs"] == 30
    assert "objective.balance" not in values


@pytest.mark.parametrize("size", [16, 100, 1797, 8191, 20_000])
def test_enough_updates_per_epoch(size: int) -> None:
    batch = automatic_choices(size, OPEN)["train.batch_size"][0]
    assert size // batch >= 8


def test_small_sets_are_balanced_by_sinkhorn() -> None:
    value, reason = automatic_choices(49_999, OPEN)["objective.balance"]
    assert value == "sinkhorn" and "50,000" in reason and "collapse" in reason
    assert "objective.balance" not in automatic_choices(50_000, OPEN)


def test_every_choice_has_a_reason_with_its_numbers() -> None:
    choices = automatic_choices(1797, OPEN)
    for path in ("train.epochs", "train.batch_size", "head.prototypes"):
        assert "1,797 images" in choices[path][1]
    assert "800 epochs" in choices["optim.warmup_epochs"][1]


def test_epochs_of_the_user_decide_the_warm_ups() -> None:
    choices = automatic_choices(1797, Config(train=TrainConfig(epochs=20)))
    assert choices["optim.warmup_epochs"][0] == 2
    assert choices["objective.teacher_temp_warmup_epochs"][0] == 6
    assert automatic_choices(1797, Config(train=TrainConfig(epochs=1)))["optim.warmup_epochs"][0] == 1


def config(warmup: int, temps: int, freeze: int, start: int) -> Config:
    return Config(
        optim=OptimConfig(warmup_epochs=warmup, freeze_prototypes_epochs=freeze),
        objective=ObjectiveConfig(teacher_temp_warmup_epochs=temps),
        mask=MaskConfig(start_epoch=start),
    )


def durations(cfg: Config) -> tuple[int, int, int, int]:
    optim = cfg.optim
    temps = cfg.objective.teacher_temp_warmup_epochs
    return optim.warmup_epochs, temps, optim.freeze_prototypes_epochs, cfg.mask.start_epoch


def test_durations_that_fit_stay() -> None:
    for epochs in (31, 100, 800):
        kept, cuts = fit_durations(config(10, 30, 1, 0), epochs, 800)
        assert durations(kept) == (10, 30, 1, 0) and not cuts
    exact, cuts = fit_durations(config(10, 5, 9, 5), 10, 10)
    assert durations(exact) == (10, 5, 9, 5) and not cuts


def test_longer_ones_keep_their_share_of_the_recipe() -> None:
    fitted, cuts = fit_durations(config(10, 30, 3, 50), 20, 100)
    assert durations(fitted) == (10, 6, 3, 10)
    assert [(cut.path, cut.was, cut.now) for cut in cuts] == [
        ("mask.start_epoch", 50, 10),
        ("objective.teacher_temp_warmup_epochs", 30, 6),
    ]
    assert str(cuts[1]) == (
        "objective.teacher_temp_warmup_epochs = 30 epochs is longer than this run allows; scaled to 6."
    )


def test_start_epoch_shortens_what_the_patch_temperature_has() -> None:
    fitted, cuts = fit_durations(config(1, 8, 0, 4), 10, 100)
    assert durations(fitted)[3] == 4 and durations(fitted)[1] <= 6 and len(cuts) == 1


@pytest.mark.parametrize("epochs", [1, 2, 3, 7])
@pytest.mark.parametrize("reference_epochs", [5, 100, 800])
def test_every_run_length_gives_a_schedule(epochs: int, reference_epochs: int) -> None:
    """The authors' code crashes here; ours reaches an epoch with masks and trained prototypes."""
    fitted, cuts = fit_durations(config(10, 30, 3, 50), epochs, reference_epochs)
    warmup, temps, freeze, start = durations(fitted)
    assert warmup <= epochs and start + temps <= epochs and freeze < epochs and start < epochs
    assert cuts
    run = Schedule(
        epochs=epochs,
        steps_per_epoch=3,
        batch_size=8,
        mask_start_epoch=start,
        optim=fitted.optim,
        objective=fitted.objective,
    )
    assert all(run.now(step).lr >= 0 for step in range(run.total_steps))


def test_only_what_nobody_overruled_counts_as_chosen() -> None:
    choices = automatic_choices(1797, OPEN)
    origin = dict.fromkeys(choices, "chosen: because") | {"train.epochs": "--set"}
    assert changed_paths(choices, origin).keys() == choices.keys() - {"train.epochs"}
    assert changed_paths(choices, {}) == {}


def test_other_settings_are_untouched() -> None:
    before = config(10, 30, 3, 50)
    fitted, _ = fit_durations(before, 5, 100)
    changing = {name: getattr(before, name) for name in ("optim", "objective", "mask", "init")}
    assert replace(fitted, **changing) == before


@pytest.mark.parametrize("size", SIZES)
def test_trained_networks_get_a_quarter_of_the_passes_and_the_targets_of_the_recipe(size: int) -> None:
    fresh, later = automatic_choices(size, OPEN), continued_choices(size, OPEN)
    assert later["train.epochs"][0] == fresh["train.epochs"][0] // 4 >= 25
    assert later["train.batch_size"] == fresh["train.batch_size"]
    assert later["head.prototypes"] == fresh["head.prototypes"]
    assert later["optim.warmup_epochs"][0] == max(1, min(10, round(later["train.epochs"][0] / 10)))
    assert not any(path.startswith("objective.") for path in later)
    assert f"a quarter of the {fresh['train.epochs'][0]}" in later["train.epochs"][1]


@pytest.mark.parametrize(
    ("epochs", "steps", "kept", "frozen"),
    [(30, 22, True, 0), (30, 22, False, 6), (100, 22, False, 10), (100, 1251, False, 1), (2, 5, False, 1),
     (1, 5, False, 0)],
)  # fmt: skip
def test_how_long_a_new_head_learns_alone(epochs: int, steps: int, kept: bool, frozen: int) -> None:
    value, reason = frozen_epochs(epochs, steps, kept)
    assert value == frozen < max(epochs, 1)
    assert reason.startswith("the head comes with the weights" if kept else "the head is new")


def test_a_frozen_phase_is_cut_to_the_run_and_the_warm_up_comes_after_it() -> None:
    wanted = replace(config(4, 0, 0, 0), init=InitConfig(freeze_backbone_epochs=6))
    fitted, cuts = fit_durations(wanted, 8, 20)
    assert (fitted.init.freeze_backbone_epochs, fitted.optim.warmup_epochs) == (6, 2)
    assert [cut.path for cut in cuts] == ["optim.warmup_epochs"]
    fitted, cuts = fit_durations(wanted, 4, 20)
    assert fitted.init.freeze_backbone_epochs == 1 and fitted.optim.warmup_epochs <= 3
    assert str(cuts[0]) == "init.freeze_backbone_epochs = 6 epochs is longer than this run allows; scaled to 1."
    assert fit_durations(Config(), 800, 800)[0].init.freeze_backbone_epochs == 0
