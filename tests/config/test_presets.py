from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibot_cli.config import presets
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.kinds import FINETUNE as FINETUNE_KIND
from ibot_cli.config.kinds import KINDS, PRETRAIN, Kind
from ibot_cli.config.load import flatten, resolve
from ibot_cli.config.schema import Config
from ibot_cli.config.settings import settings
from ibot_cli.data.sources import BUILTINS, open_source
from ibot_cli.errors import ConfigError
from ibot_cli.train.request import EMBEDDED_PRESETS

EXPECTED = {
    "ibot_continue",
    "ibot_plus_vits16",
    "ibot_vits16",
    "ibot_vits16_100ep",
    "ibot_vits16_k1000",
    "ibot_vitb16",
    "ibot_vitb16_rand",
    "ibot_vitl16",
    "ibot_vitl16_rand",
    "ibot_vitb16_in22k",
    "ibot_vitl16_in22k",
    "ibot_swint7",
    "ibot_swint14",
    "dino_vits16",
    "digits",
    "finetune_beit_vitb16",
    "finetune_digits",
    "finetune_semi_vits16",
    "finetune_small",
    "finetune_vitb16",
    "finetune_vitl16",
    "finetune_vits16",
    "photos",
}
EVERY = pytest.mark.parametrize("name", presets.names())

# The published models as the reference table has them; a row left out is the value of ViT-S/16.
SMALL = {
    "data.channels": 3,
    "views.num_global": 2,
    "views.num_local": 10,
    "views.global_size": 224,
    "views.local_size": 96,
    "views.global_scale": [0.25, 1.0],
    "views.local_scale": [0.05, 0.25],
    "mask.kind": "block",
    "mask.ratio": [0.0, 0.3],
    "mask.ratio_var": [0.0, 0.2],
    "mask.start_epoch": 0,
    "model.arch": "vit_small",
    "model.patch_size": 16,
    "model.window_size": 7,
    "model.drop_path": 0.1,
    "head.prototypes": 8192,
    "head.shared": True,
    "head.hidden_size": 2048,
    "head.bottleneck_size": 256,
    "head.num_layers": 3,
    "head.activation": "gelu",
    "head.norm": "none",
    "head.trainable_norm": True,
    "objective.cls": "online",
    "objective.patch": "online",
    "objective.balance": "center",
    "objective.center_momentum": 0.9,
    "objective.patch_center_momentum": 0.9,
    "objective.student_temp": 0.1,
    "objective.warmup_teacher_temp": 0.04,
    "objective.warmup_teacher_patch_temp": 0.04,
    "objective.teacher_temp": 0.07,
    "objective.teacher_patch_temp": 0.07,
    "objective.teacher_temp_warmup_epochs": 30,
    "objective.teacher_momentum": 0.996,
    "optim.lr": 5e-4,
    "optim.min_lr": 1e-6,
    "optim.warmup_epochs": 10,
    "optim.weight_decay": 0.04,
    "optim.weight_decay_end": 0.4,
    "optim.clip_grad": 3.0,
    "optim.clip_mode": "tensor",
    "optim.freeze_prototypes_epochs": 1,
    "train.epochs": 800,
    "train.batch_size": 1024,
}
BASE = {
    "views.global_scale": [0.32, 1.0],
    "views.local_scale": [0.05, 0.32],
    "model.arch": "vit_base",
    "head.trainable_norm": False,
    "objective.teacher_temp_warmup_epochs": 50,
    "optim.lr": 7.5e-4,
    "optim.min_lr": 2e-6,
    "optim.clip_grad": 0.3,
    "optim.freeze_prototypes_epochs": 3,
    "train.epochs": 400,
}
RAND = {"mask.kind": "random", "mask.ratio": [0.0, 0.7], "mask.ratio_var": [0.0, 0.05]}
SWIN = {"mask.start_epoch": 50, "model.arch": "swin_tiny", "model.patch_size": 4, "train.epochs": 300}
PUBLISHED = {
    "ibot_vits16": {},
    "ibot_vits16_100ep": {"mask.ratio_var": [0.0, 0.0], "train.epochs": 100},
    "ibot_vits16_k1000": {"head.prototypes": 1000},
    "ibot_vitb16": BASE,
    "ibot_vitb16_rand": {**BASE, **RAND},
    "ibot_swint7": SWIN,
    "ibot_swint14": {**SWIN, "model.window_size": 14, "train.batch_size": 1040},
    "dino_vits16": {
        "views.num_local": 8,
        "views.global_scale": [0.4, 1.0],
        "views.local_scale": [0.05, 0.4],
        "mask.ratio": [0.0],
        "mask.ratio_var": [0.0],
        "head.prototypes": 65536,
        "objective.patch": "none",
        "train.epochs": 300,
    },
}
# Where the arguments of the released model are not available, only these are known.
PARTLY_PUBLISHED = {
    "ibot_vitl16": {"model.arch": "vit_large", "mask.kind": "block"},
    "ibot_vitl16_rand": {"model.arch": "vit_large", **RAND},
    "ibot_vitb16_in22k": {"model.arch": "vit_base", "train.epochs": 80, "train.batch_size": 1024},
    "ibot_vitl16_in22k": {"model.arch": "vit_large", "train.epochs": 50, "train.batch_size": 1024},
}
# Fine-tuning as the reference tables have it; a row left out is the value of ViT-S/16.
FINETUNE_SMALL = {
    "model.pooling": "cls",
    "model.drop_path": 0.1,
    "model.head_init_scale": 0.001,
    "model.keep_projection": 0,
    "augment.interpolation": "bicubic",
    "augment.auto_augment": "rand-m9-mstd0.5-inc1",
    "augment.color_jitter": 0.4,
    "augment.erase_prob": 0.25,
    "augment.mixup": 0.8,
    "augment.cutmix": 1.0,
    "augment.mix_prob": 1.0,
    "augment.mix_switch_prob": 0.5,
    "augment.smoothing": 0.1,
    "augment.repeats": 1,
    "data.eval_crop_ratio": 0.875,
    "optim.lr": 4e-3,
    "optim.lr_batch_size": 1024,
    "optim.layer_decay": 0.75,
    "optim.min_lr": 1e-6,
    "optim.warmup_epochs": 20,
    "optim.weight_decay": 0.05,
    "optim.betas": [0.9, 0.999],
    "optim.eps": 1e-8,
    "optim.clip_grad": 0.0,
    "train.epochs": 200,
    "train.batch_size": 1024,
}
FINETUNE = {
    "finetune_vits16": {},
    "finetune_vitb16": {"model.drop_path": 0.2, "optim.layer_decay": 0.65, "train.epochs": 100},
    "finetune_vitl16": {"model.drop_path": 0.4, "optim.warmup_epochs": 5, "train.epochs": 50},
    "finetune_beit_vitb16": {"model.pooling": "mean", "optim.layer_decay": 0.65, "train.epochs": 100},
    "finetune_semi_vits16": {
        "model.keep_projection": 1,
        "model.head_init_scale": 1.0,
        "augment.repeats": 3,
        "optim.lr": 5e-6,
        "optim.lr_batch_size": 512,
        "optim.layer_decay": 1.0,
        "optim.min_lr": 1e-5,
        "optim.warmup_epochs": 5,
        "train.epochs": 1000,
    },
}


def root_of(name: str) -> Any:
    return presets.load(name).kind.root


def test_the_presets_are_all_there() -> None:
    assert set(presets.names()) == EXPECTED


# What DINOv2 added to iBOT.
ADDED = {"model.layer_scale": 0, "objective.koleo_weight": 0, "head.separate_mlp": False}


@pytest.mark.parametrize("name", [*PUBLISHED, *PARTLY_PUBLISHED])
def test_published_recipes_have_nothing_that_came_later(name: str) -> None:
    values = flatten(resolve(root=Config, preset=name, file=None, sets=()).config)
    assert {path: values[path] for path in ADDED} == ADDED


def test_the_recipe_with_all_that_came_later() -> None:
    """DINOv2's configuration files and Table 1; all else is the published ViT-S/16."""
    assert presets.load("ibot_plus_vits16").values == {
        "model.layer_scale": 1e-5,
        "head.prototypes": 65536,
        "head.patch_prototypes": 65536,
        "head.shared": False,
        "head.separate_mlp": True,
        "objective.koleo_weight": 0.1,
        "objective.teacher_momentum": 0.994,
        "optim.warmup_epochs": 80,
    }


def test_the_name_says_what_a_preset_is_for() -> None:
    assert presets.names(PRETRAIN) + presets.names(FINETUNE_KIND) == presets.names()
    assert presets.names(FINETUNE_KIND) == sorted(name for name in EXPECTED if name.startswith("finetune_"))
    assert root_of("finetune_vits16") is FinetuneConfig
    assert root_of("ibot_vits16") is Config


@EVERY
def test_every_preset_resolves(name: str) -> None:
    resolved = resolve(root=root_of(name), preset=name, file=None, sets=())
    values = presets.load(name).values
    assert {path for path, origin in resolved.origin.items() if origin == f"preset {name}"} == set(values)


@EVERY
def test_every_value_has_a_source_or_says_that_it_is_assumed(name: str) -> None:
    preset = presets.load(name)
    assert set(preset.values) <= set(preset.sources) | set(preset.unknown)
    assert set(preset.sources) <= set(preset.values)
    assert set(preset.unknown) <= set(settings(preset.kind.root))
    assert all("assumed" in text for text in preset.unknown.values())
    assert preset.title
    assert preset.about.endswith(".")


@EVERY
def test_presets_hold_only_what_differs(name: str) -> None:
    preset = presets.load(name)
    if name == preset.kind.example:
        pytest.skip("states the defaults with their sources")
    leaves = settings(preset.kind.root)
    assert [path for path, value in preset.values.items() if value == leaves[path].default] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_the_defaults_are_the_published_recipe(kind: Kind) -> None:
    leaves = settings(kind.root)
    assert all(value == leaves[path].default for path, value in presets.load(kind.example).values.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_recipes_as_the_reference_has_them(name: str) -> None:
    flat = flatten(resolve(preset=name, file=None, sets=()).config)
    expected = {**SMALL, **PUBLISHED[name]}
    assert {path: flat[path] for path in expected} == expected


@pytest.mark.parametrize("name", FINETUNE)
def test_published_fine_tuning_as_the_reference_has_it(name: str) -> None:
    flat = flatten(resolve(root=FinetuneConfig, preset=name, file=None, sets=()).config)
    expected = {**FINETUNE_SMALL, **FINETUNE[name]}
    assert {path: flat[path] for path in expected} == expected


@pytest.mark.parametrize("name", PARTLY_PUBLISHED)
def test_what_is_known_of_the_other_models(name: str) -> None:
    flat = flatten(resolve(preset=name, file=None, sets=()).config)
    expected = PARTLY_PUBLISHED[name]
    assert {path: flat[path] for path in expected} == expected
    assert presets.load(name).unknown


def test_the_digits_demonstration_keeps_its_promises() -> None:
    config = resolve(preset="digits", file=None, sets=()).config
    assert config.data.channels == 1
    assert config.views.global_size // config.model.patch_size >= 4
    assert config.objective.balance == "sinkhorn"


def test_every_embedded_set_has_a_recipe_for_its_images() -> None:
    assert set(EMBEDDED_PRESETS) == {f"builtin:{name}" for name in BUILTINS}
    for data, name in EMBEDDED_PRESETS.items():
        config = resolve(preset=name, file=None, sets=()).config
        source = open_source(data, channels=config.data.channels)
        levels = np.stack([np.asarray(source.read(index)) for index in range(0, len(source), 7)]) / 255
        levels = levels.reshape(-1, config.data.channels)
        np.testing.assert_allclose(config.data.mean, levels.mean(0), atol=0.02)
        np.testing.assert_allclose(config.data.std, levels.std(0), atol=0.02)
        assert config.objective.balance == "sinkhorn"


def test_digits_are_not_mirrored_while_fine_tuning_either() -> None:
    augment = resolve(root=FinetuneConfig, preset="finetune_digits", file=None, sets=()).config.augment
    assert (augment.flip_prob, augment.auto_augment) == (0, "none")


def test_an_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="did you mean ibot_vits16") as caught:
        presets.load("ibot_vist16")
    assert caught.value.hint == "`ibot presets list` shows the presets."
    with pytest.raises(ConfigError, match="there is no preset of this name; there are ibot_continue, "):
        presets.load("qqqqqq")
    with pytest.raises(ConfigError, match=r"^2 problems"):
        presets.diff("qqqqqq", "zzzzzz")


def test_a_name_is_never_a_path() -> None:
    with pytest.raises(ConfigError):
        presets.load("../presets/digits")


def test_diff_lists_only_what_differs() -> None:
    found = presets.diff("ibot_vits16", "ibot_vits16_100ep")
    assert found == [("mask.ratio_var", (0.0, 0.2), (0.0, 0.0)), ("train.epochs", 800, 100)]
    assert presets.diff("digits", "digits") == []
    assert presets.diff("finetune_vits16", "finetune_vitl16") == [
        ("model.drop_path", 0.1, 0.4),
        ("optim.warmup_epochs", 20, 5),
        ("train.epochs", 200, 50),
    ]


def test_presets_of_two_kinds_are_not_compared() -> None:
    with pytest.raises(ConfigError, match="preset digits: it is for pre-training and finetune_digits for fine-tuning"):
        presets.diff("digits", "finetune_digits")


def test_a_broken_preset_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("title: t\nabout: a.\nvalue: {}\n", encoding="utf-8")
    monkeypatch.setattr(presets, "directory", lambda: tmp_path)
    with pytest.raises(ConfigError, match="value is not a part of a preset"):
        presets.load("mine")


def test_an_installed_package_brings_its_presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "PACKAGE", tmp_path / "ibot_cli")
    assert presets.directory() == tmp_path / "presets"
    (tmp_path / "ibot_cli" / "_presets").mkdir(parents=True)
    assert presets.directory() == tmp_path / "ibot_cli" / "_presets"
