import math
from typing import Any

import pytest
import yaml

from ibot_cli.config.kinds import KINDS
from ibot_cli.config.settings import Setting, format_value, readable, settings

ALL = [setting for kind in KINDS for setting in settings(kind.root).values()]
IDS = [f"{kind.name}-{path}" for kind in KINDS for path in settings(kind.root)]


def outside(setting: Setting) -> list[Any]:
    """Values that the setting must refuse."""
    wrong: list[Any] = [{}, "", " ", "banana", object()]
    if setting.kind is str and not setting.choices:  # any text is a text; a cross-check looks closer
        return [{}, "", 3]
    if setting.kind in (int, float) and not setting.choices:
        wrong += [True, math.nan, math.inf, "nan", "-inf", "1.2.3", 10**400]
        wrong += [setting.low - 1] if setting.low is not None else []
        wrong += [setting.high + 1] if setting.high is not None else []
        wrong += [setting.above] if setting.above is not None else []
    if setting.kind is int:
        wrong += [2.5, "2.5"]
    if setting.kind is bool:
        wrong += [1, 0, "maybe"]
    if setting.is_tuple:
        wrong += [[], "[]", [0.5, [0.5]], [0.5, None], [0.5] * (9 if setting.length else 0)]
    if not setting.auto:
        wrong += [None, "auto"]
    return wrong


@pytest.mark.parametrize("setting", ALL, ids=IDS)
def test_every_setting_refuses_what_it_does_not_allow(setting: Setting) -> None:
    for raw in outside(setting):
        if setting.kind is int and setting.high is None and raw == 10**400:
            continue
        with pytest.raises(ValueError):
            setting.read(raw)


@pytest.mark.parametrize("setting", ALL, ids=IDS)
def test_every_setting_reads_its_default_back_from_text(setting: Setting) -> None:
    text = format_value(setting.default)
    assert setting.read(text) == setting.default
    assert setting.read(yaml.safe_load(text)) == setting.default


@pytest.mark.parametrize("setting", ALL, ids=IDS)
def test_every_setting_is_documented(setting: Setting) -> None:
    assert setting.help.endswith(".")
    assert setting.allowed


@pytest.mark.parametrize(
    ("path", "raw", "value"),
    [
        ("optim.lr", "1e-3", 1e-3),
        ("optim.lr", 0.01, 0.01),
        ("optim.weight_decay", 1, 1.0),
        ("train.epochs", "1e2", 100),
        ("train.epochs", 100.0, 100),
        ("train.epochs", "auto", None),
        ("train.epochs", "None", None),
        ("train.epochs", None, None),
        ("views.global_scale", "[0.1, 1]", (0.1, 1.0)),
        ("views.global_scale", "0.1,1", (0.1, 1.0)),
        ("mask.ratio", "0,0.3", (0.0, 0.3)),
        ("mask.ratio", "0.3", (0.3,)),
        ("mask.ratio", 0.3, (0.3,)),
        ("mask.ratio", ["0", "3e-1"], (0.0, 0.3)),
        ("head.shared", "off", False),
        ("head.shared", "True", True),
        ("data.channels", "1", 1),
        ("data.channels", 3, 3),
        ("objective.patch", "none", "none"),
        ("runtime.device", " cuda:0 ", "cuda:0"),
    ],
)
def test_values_are_read_by_the_declared_type(path: str, raw: object, value: object) -> None:
    read = settings()[path].read(raw)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("value", [1e-6, 1e-10, 2.5e-7, 1e22, 4 / 3, 0.1, 1.0, 0.0, -1e-6])
def test_floats_survive_pyyaml_exactly(value: float) -> None:
    read = yaml.safe_load(format_value(value))
    assert isinstance(read, float)
    assert read == value


def test_people_see_numbers_without_the_dot_of_pyyaml() -> None:
    assert readable(1e-6) == "1e-06"
    assert readable((0.0, 0.3)) == "[0.0, 0.3]"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("optim.lr", "a number > 0 and <= 0.1"),
        ("views.num_local", "a whole number >= 0 and <= 32"),
        ("mask.kind", "one of block, random"),
        ("data.mean", "one or more numbers, each >= 0 and <= 1, or auto"),
        ("views.global_scale", "2 numbers, each > 0 and <= 1"),
        ("head.shared", "true or false"),
        ("runtime.precision", "one of fp32, tf32, bf16, fp16, or auto"),
    ],
)
def test_what_is_allowed_is_said_in_words(path: str, words: str) -> None:
    assert settings()[path].allowed == words
