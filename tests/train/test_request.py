"""What was asked for, and mistakes in it that are found without loading torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from ibot_cli.errors import ConfigError
from ibot_cli.train.request import Request, openable_anywhere


@pytest.mark.parametrize(
    ("request_", "recipe"),
    [
        (Request(), "digits"),
        (Request(data="builtin:digits"), "digits"),
        (Request(data="builtin:photos"), "photos"),
        (Request(data="photos"), None),
        (Request(data="photos", preset="dino_vits16"), "dino_vits16"),
        (Request(preset="ibot_vits16"), "ibot_vits16"),
    ],
)
def test_recipe(request_: Request, recipe: str | None) -> None:
    assert request_.recipe() == recipe


def test_flags_win_over_set_and_say_so() -> None:
    resolved = Request(data="photos", sets=["runtime.workers=3"], workers=0, device="cpu").resolve()
    assert (resolved.config.runtime.workers, resolved.config.runtime.device) == (0, "cpu")
    assert resolved.origin["runtime.workers"] == "--workers" and resolved.origin["runtime.device"] == "--device"


def test_choices_win_over_the_method_and_lose_to_the_user(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("optim: {warmup_epochs: 4}")
    request = Request(data="photos", sets=["train.epochs=7"], config=tmp_path / "own.yaml")
    chosen = {"train.epochs": (100, "a"), "optim.warmup_epochs": (9, "b"), "head.prototypes": (512, "c")}
    resolved = request.resolve(chosen)
    config = resolved.config
    assert (config.train.epochs, config.optim.warmup_epochs, config.head.prototypes) == (7, 4, 512)
    assert resolved.origin["head.prototypes"] == "chosen: c"


def test_check_finds_mistakes_of_a_new_run() -> None:
    Request(data="photos", sets=["train.epochs=3"]).check()
    Request(sets=["data.mean=[0.5]"]).check()  # the digits have one channel
    with pytest.raises(ConfigError, match=r"did you mean train\.epochs"):
        Request(data="photos", sets=["train.epoch=3"]).check()


def test_check_leaves_a_resumed_run_alone() -> None:
    Request(resume=True, sets=["data.mean=[0.5]"]).check()


@pytest.mark.parametrize(
    ("request_", "base"),
    [
        (Request(init="a.pth"), "digits"),
        (Request(data="photos", init="a.pth"), "ibot_continue"),
        (Request(data="photos", sets=["init.weights=a.pth"]), "ibot_continue"),
        (Request(data="photos", sets=["init.weights=auto"]), "ibot_vits16"),
        (Request(data="photos", init="a.pth", preset="ibot_vitb16"), "ibot_vitb16"),
        (Request(data="photos", sets=["nonsense"]), "ibot_vits16"),
    ],
)
def test_base_of_a_run_from_weights(request_: Request, base: str) -> None:
    assert request_.base() == base
    assert request_.continues() == ("a.pth" in str(request_))


def test_weights_open_from_anywhere_and_the_flag_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = Request(data="photos", init="a.pth", partial=True).resolve()
    assert resolved.config.init.weights == str(tmp_path / "a.pth") and resolved.origin["init.weights"] == "--init"
    assert resolved.config.init.partial and resolved.origin["init.partial"] == "--partial"
    (tmp_path / "sub").mkdir()
    (tmp_path / "link.pth").symlink_to(tmp_path / "0123")
    assert openable_anywhere("sub/../a.pth") == openable_anywhere("./a.pth") == str(tmp_path / "a.pth")
    assert openable_anywhere("link.pth") == str(tmp_path / "link.pth")
    monkeypatch.chdir(tmp_path / "sub")
    assert openable_anywhere("..") == openable_anywhere("../sub/..") == str(tmp_path)
    assert openable_anywhere("timm:vit_tiny_patch16_224") == "timm:vit_tiny_patch16_224"


def test_what_the_weights_decide_is_not_checked_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("init: {weights: a.pth}\nviews: {global_size: 98, local_size: 42}")
    Request(data="photos", init="a.pth", sets=["views.global_size=98"]).check()  # 7 patches of 14
    Request(data="photos", config=tmp_path / "own.yaml").check()
    with pytest.raises(ConfigError, match=r"views\.global_size = 98 .*must be a multiple of model\.patch_size = 16"):
        Request(data="photos", sets=["views.global_size=98"]).check()
    with pytest.raises(ConfigError, match="did you mean init"):
        Request(data="photos", init="a.pth", sets=["init.weight=b.pth"]).check()
    with pytest.raises(ConfigError, match=r"objective\.cls and objective\.patch are both none"):
        Request(data="photos", init="a.pth", sets=["objective.cls=none", "objective.patch=none"]).check()
