from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ibot_cli.config import presets
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.kinds import FINETUNE, PRETRAIN
from ibot_cli.config.load import differences, flatten, from_mapping, resolve, to_yaml
from ibot_cli.config.schema import Config
from ibot_cli.config.settings import settings
from ibot_cli.errors import ConfigError


def problems(
    preset: str | None = None, file: Path | None = None, sets: tuple[str, ...] = (), root: Any = Config
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        resolve(root=root, preset=preset, file=file, sets=sets)
    return [line.removeprefix("  - ") for line in caught.value.message.splitlines()[1:]]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_said_is_the_defaults() -> None:
    resolved = resolve(preset=None, file=None, sets=())
    assert resolved.config == Config()
    assert set(resolved.origin) == set(settings())
    assert set(resolved.origin.values()) == {"default"}


def test_later_layers_win_and_the_origin_says_which(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", "train:\n  epochs: 7\n  seed: 7\noptim:\n  lr: 7e-4\nruntime: {workers: 7}\n")
    resolved = resolve(
        preset="ibot_vitb16",
        file=file,
        sets=["optim.lr=1e-3", "train.batch_size=64", "runtime.workers=8"],
        chosen={
            "train.epochs": (50, "few images"),
            "optim.min_lr": (1e-5, "few images"),
            "head.prototypes": (64, "few images"),
        },
        base={"optim": {"betas": [0.9, 0.95]}, "train.keep_last": 3},
        flags={"runtime.workers": (0, "--workers")},
    )
    config, origin = resolved.config, resolved.origin
    assert (config.optim.betas, origin["optim.betas"]) == ((0.9, 0.95), "saved run")
    assert (config.train.keep_last, origin["train.keep_last"]) == (3, "saved run")
    assert (config.model.arch, origin["model.arch"]) == ("vit_base", "preset ibot_vitb16")
    assert (config.optim.min_lr, origin["optim.min_lr"]) == (1e-5, "chosen: few images")
    assert (config.train.epochs, origin["train.epochs"]) == (7, f"file {file}")
    assert (config.optim.lr, origin["optim.lr"]) == (1e-3, "--set")
    assert (config.runtime.workers, origin["runtime.workers"]) == (0, "--workers")
    assert origin["mask.kind"] == "default"


def test_the_last_set_wins() -> None:
    assert resolve(preset=None, file=None, sets=["train.seed=1", "train.seed=2"]).config.train.seed == 2


def test_dotted_keys_in_a_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "optim.lr: 1e-3\noptim:\n")
    assert resolve(preset=None, file=file, sets=()).config.optim.lr == 1e-3


def test_every_problem_of_every_layer_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "optim:\n  lr: fast\n  momentum: 0.9\nheads:\n  shared: false\n")
    assert problems("ibot_vist16", file, ("lr=1", "views.num_lcal=-2", "mask.kind=blok", "train.seed")) == [
        "preset ibot_vist16 (--preset): there is no preset of this name; did you mean ibot_vits16?",
        f"optim.lr = fast (file {file}, line 2): must be a number > 0 and <= 0.1",
        f"optim.momentum = 0.9 (file {file}, line 3): there is no such setting; did you mean optim.betas? "
        "It must be 2 numbers, each >= 0 and <= 0.99999",
        f"heads (file {file}, line 4): there is no such section; did you mean head?",
        "train.seed (--set): write PATH=VALUE, for example train.seed=VALUE",
        "lr = 1 (--set): there is no such setting; did you mean optim.lr? It must be a number > 0 and <= 0.1",
        "views.num_lcal = -2 (--set): there is no such setting; did you mean views.num_local? "
        "It must be a whole number >= 0 and <= 32",
        "mask.kind = blok (--set): must be one of block, random; did you mean block?",
    ]


def test_the_error_counts_and_says_where_to_look() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(preset=None, file=None, sets=["a=1", "b=2"])
    assert caught.value.message.startswith("2 problems in the configuration.\n")
    assert caught.value.exit_code == 2
    assert "ibot presets show" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("lr", "optim.lr"),
        ("train.lr", "optim.lr"),
        ("optim.lrr", "optim.lr"),
        ("views.num-local", "views.num_local"),
        ("num_locals", "views.num_local"),
        ("OPTIM.LR", "optim.lr"),
        ("epochs", "train.epochs"),
        ("batchsize", "train.batch_size"),
        ("model.patchsize", "model.patch_size"),
    ],
)
def test_did_you_mean(said: str, meant: str) -> None:
    assert f"did you mean {meant}?" in problems(sets=(f"{said}=1",))[0]


def test_nothing_alike_gets_no_suggestion() -> None:
    assert problems(sets=("zzzzqqq=1",)) == ["zzzzqqq = 1 (--set): there is no such setting"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optim.lr", "optim.lr (--set): write PATH=VALUE, for example optim.lr=VALUE"),
        ("=3", "=3 (--set): write PATH=VALUE, for example optim.lr=1e-3"),
        ("", "an empty text (--set): write PATH=VALUE, for example optim.lr=1e-3"),
        ("optim=3", "optim = 3 (--set): it is a section, not a setting; write for example optim.lr"),
        ("optim.lr=", "optim.lr = '' (--set): must be a number > 0 and <= 0.1"),
        ("views.aspect=1", "views.aspect = 1 (--set): must be 2 numbers, each > 0; it has 1 entry"),
        ("optim.lr=nan", "optim.lr = nan (--set): must be a number > 0 and <= 0.1; it is not finite"),
        ("train.epochs=1.5", "train.epochs = 1.5 (--set): must be a whole number >= 1, or auto"),
        ("views.flip_prob=auto", "views.flip_prob = auto (--set): must be a number >= 0 and <= 1"),
        ("head.shared=2", "head.shared = 2 (--set): must be true or false"),
        ("data.channels=0", "data.channels = 0 (--set): must be a whole number >= 1"),
    ],
)
def test_what_is_wrong_with_one_set(text: str, expected: str) -> None:
    assert problems(sets=(text,)) == [expected]


def test_problems_of_a_file(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    assert problems(file=missing) == [f"file {missing} (--config): there is no such file"]
    twice = write(tmp_path / "twice.yaml", "optim:\n  lr: 1e-3\n  lr: 1e-4\n")
    assert problems(file=twice) == [f"file {twice} (--config): line 3: optim.lr is given twice, first in line 2"]
    both = write(tmp_path / "both.yaml", "optim:\n  lr: 1e-3\noptim.lr: 1e-4\n")
    assert problems(file=both) == [f"optim.lr (file {both}, line 3): it is given twice"]
    section = write(tmp_path / "section.yaml", "optim: 3\n")
    assert problems(file=section) == [
        f"optim = 3 (file {section}, line 1): it is a section, not a setting; write for example optim.lr"
    ]
    deep = write(tmp_path / "deep.yaml", "optim:\n  lr:\n    value: 1\n")
    assert problems(file=deep)[0].endswith("must be a number > 0 and <= 0.1")
    broken = write(tmp_path / "broken.yaml", "optim: [\n")
    assert "it is not valid YAML: line 2" in problems(file=broken)[0]


def test_an_unknown_section_is_told_once(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "zzzz:\n  a: 1\n  b: 2\n")
    assert problems(file=file) == [
        f"zzzz (file {file}, line 1): there is no such section; the sections are "
        "data, views, mask, model, head, objective, optim, init, train, monitor, runtime"
    ]


def test_a_preset_of_the_other_kind() -> None:
    assert problems(preset="finetune_digits") == [
        "preset finetune_digits (--preset): it is a recipe for `ibot finetune`; `ibot pretrain` takes "
        + ", ".join(presets.names(PRETRAIN))
    ]
    assert problems(preset="digits", root=FinetuneConfig) == [
        "preset digits (--preset): it is a recipe for `ibot pretrain`; `ibot finetune` takes "
        + ", ".join(presets.names(FINETUNE))
    ]
    assert problems(preset="finetune_digts", root=FinetuneConfig)[0].endswith("did you mean finetune_digits?")
    assert problems(preset="qqqq", root=FinetuneConfig)[0].endswith(", ".join(presets.names(FINETUNE)))


def test_settings_of_the_other_kind(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "mask:\n  ratio: 0.3\n")
    assert problems(file=file, sets=("views.flip_prob=0", "optim.lrr=1e-3"), root=FinetuneConfig) == [
        f"mask (file {file}, line 1): it belongs to pre-training; fine-tuning has no such section",
        "views.flip_prob = 0 (--set): it belongs to pre-training; fine-tuning has no such setting",
        "optim.lrr = 1e-3 (--set): there is no such setting; did you mean optim.lr?",
    ]
    assert problems(sets=("model.pooling=cls",)) == [
        "model.pooling = cls (--set): it belongs to fine-tuning; pre-training has no such setting"
    ]


def test_fine_tuning_is_resolved_in_the_same_way(tmp_path: Path) -> None:
    file = write(tmp_path / "mine.yaml", "labels: {per_class: 5}\ntrain:\n  epochs: 7\n")
    resolved = resolve(
        root=FinetuneConfig,
        preset="finetune_vitb16",
        file=file,
        sets=["train.epochs=3"],
        chosen={"train.batch_size": (32, "few images")},
        base={"optim": {"eps": 1e-7}},
        flags={"runtime.workers": (0, "--workers")},
    )
    config, origin = resolved.config, resolved.origin
    assert isinstance(config, FinetuneConfig)
    assert set(origin) == set(settings(FinetuneConfig))
    assert (config.optim.layer_decay, origin["optim.layer_decay"]) == (0.65, "preset finetune_vitb16")
    assert (config.labels.per_class, origin["labels.per_class"]) == (5, f"file {file}")
    assert (config.train.epochs, config.train.batch_size, config.optim.eps) == (3, 32, 1e-7)
    assert (config.runtime.workers, config.data.channels, config.labels.fraction) == (0, None, None)


def test_hints_show_the_settings_of_the_kind() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(root=FinetuneConfig, preset=None, file=None, sets=["a=1"])
    assert "ibot presets show finetune_vits16 --all" in (caught.value.hint or "")


def test_chosen_values_are_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"train.epochs = 0 \(chosen: few images\): must be a whole number >= 1"):
        resolve(preset=None, file=None, sets=(), chosen={"train.epochs": (0, "few images")})


@pytest.mark.parametrize("name", presets.names())
def test_yaml_round_trip(name: str) -> None:
    root: Any = presets.load(name).kind.root
    sets = ["optim.eps=1.2345678901234567e-11", "runtime.device=cuda:0"]
    config = resolve(root=root, preset=name, file=None, sets=sets).config
    text = to_yaml(config)
    assert from_mapping(yaml.safe_load(text), "test", root) == config
    assert from_mapping(flatten(config), "test", root) == config
    assert isinstance(yaml.safe_load(text)["optim"]["min_lr"], float)


def test_a_saved_file_can_be_given_as_config(tmp_path: Path) -> None:
    config = resolve(preset="digits", file=None, sets=()).config
    file = write(tmp_path / "config.yaml", to_yaml(config))
    assert resolve(preset=None, file=file, sets=()).config == config


def test_from_mapping_is_strict() -> None:
    with pytest.raises(ConfigError, match=r"optim.lrr = 1 \(run x\): there is no such setting; did you mean optim.lr"):
        from_mapping({"optim": {"lrr": 1}}, "run x")


def test_flatten_gives_plain_values() -> None:
    flat = flatten(Config())
    assert list(flat) == list(settings())
    assert flat["mask.ratio"] == [0.0, 0.3]
    assert flat["runtime.device"] is None


def test_differences() -> None:
    a = Config()
    b = replace(a, optim=replace(a.optim, lr=1e-3), mask=replace(a.mask, ratio=(0.3,)))
    assert differences(a, b) == [("mask.ratio", [0.0, 0.3], [0.3]), ("optim.lr", 5e-4, 1e-3)]
    assert differences(a, a) == []
