"""What fine-tuning decides by itself."""

from __future__ import annotations

from typing import Any

import pytest

from ibot_cli.config.finetune import FinetuneOptimConfig
from ibot_cli.core.schedules import warmup_cosine
from ibot_cli.train.finetune.choices import choose_preset, recipe_choices
from ibot_cli.train.finetune.request import FinetuneRequest
from ibot_cli.train.finetune.schedule import FinetuneSchedule, fitted_warmup
from ibot_cli.weights.shapes import BackboneShape

SMALL = BackboneShape(arch="vit_small", image_size=224)


@pytest.mark.parametrize(
    ("data", "images", "shape", "expected"),
    [
        ("builtin:digits", 1437, SMALL, "finetune_digits"),
        ("photos", 49_999, SMALL, "finetune_small"),
        ("photos", 1_281_167, SMALL, "finetune_vits16"),
        ("photos", 1_281_167, BackboneShape(arch="vit_base", image_size=224), "finetune_vitb16"),
        ("photos", 1_281_167, BackboneShape(arch="vit_small", image_size=224, width=1024), "finetune_vitl16"),
        ("photos", 50_000, BackboneShape(arch="swin_tiny", image_size=224), "finetune_vits16"),
    ],
)
def test_a_preset_that_suits(data: str, images: int, shape: BackboneShape, expected: str) -> None:
    assert choose_preset(FinetuneRequest(data=data), images, shape)[0] == expected
    assert choose_preset(FinetuneRequest(data=data, preset="finetune_vitl16"), images, shape)[0] == "finetune_vitl16"


def chosen(available: int, used: int, *sets: str, preset: str = "finetune_small", **options: Any) -> dict[str, Any]:
    request = FinetuneRequest(sets=sets, **options)
    return {path: value for path, (value, _) in recipe_choices(request.resolve(preset), available, used).items()}


def test_few_labels_stretch_what_is_counted_in_epochs() -> None:
    """100 epochs, warm-up 5, of one update each."""
    found = chosen(6400, 64, label_fraction=0.01)
    assert found == {
        "train.epochs": 200, "optim.warmup_epochs": 10, "train.eval_epochs": 10, "train.checkpoint_epochs": 20,
    }  # fmt: skip
    assert chosen(640, 100, "train.epochs=30", label_fraction=0.1) == {}
    assert chosen(6400, 128, label_fraction=0.02) == {}  # 200 updates already


def test_all_labels_or_epochs_that_were_given_stretch_nothing() -> None:
    assert chosen(64, 64) == {}
    assert chosen(6400, 64) == {}
    assert chosen(6400, 64, "train.epochs=7", label_fraction=0.01) == {}
    assert chosen(6400, 64, preset="finetune_semi_vits16", label_fraction=0.01) == {}


def test_what_the_user_gave_stays() -> None:
    found = chosen(6400, 64, "optim.warmup_epochs=3", "train.eval_epochs=0", label_fraction=0.01)
    assert found == {"train.epochs": 200, "train.checkpoint_epochs": 20}


def test_random_weights_have_the_same_recipe() -> None:
    assert chosen(6400, 640, label_fraction=0.1, from_scratch=True) == chosen(6400, 640, label_fraction=0.1)


def schedule(**changes: Any) -> FinetuneSchedule:
    optim = FinetuneOptimConfig(**{"lr": 4e-3, "lr_batch_size": 1024, "warmup_epochs": 2, "min_lr": 1e-5, **changes})
    return FinetuneSchedule(epochs=10, steps_per_epoch=5, batch_size=256, optim=optim)


def test_the_rate_is_scaled_to_the_batch_unless_it_is_absolute() -> None:
    assert schedule().peak == pytest.approx(1e-3)
    assert schedule(lr_batch_size=0).peak == 4e-3


def test_the_rate_warms_up_and_falls_per_step() -> None:
    plan = schedule()
    rates = [plan.lr(step) for step in range(plan.total_steps)]
    assert rates == [warmup_cosine(step, total=50, warmup=10, peak=1e-3, final=1e-5) for step in range(50)]
    assert rates[0] == 0 and max(rates) == rates[9] == pytest.approx(1e-3)
    assert rates[10:] == sorted(set(rates[10:]), reverse=True) and rates[-1] > 1e-5


@pytest.mark.parametrize(
    ("warmup", "epochs", "reference", "expected"), [(5, 100, 100, 5), (20, 10, 200, 1), (5, 5, 10, 2), (5, 1, 100, 0)]
)
def test_a_warm_up_ends_within_the_run(warmup: int, epochs: int, reference: int, expected: int) -> None:
    assert fitted_warmup(warmup, epochs, reference) == expected
