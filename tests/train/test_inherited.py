"""What a run takes over from its weights, and what it refuses to change about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibot_cli.config.schema import InitConfig
from ibot_cli.core import vit
from ibot_cli.errors import UsageError
from ibot_cli.train.inherited import inherited_choices, network_settings
from ibot_cli.train.request import Request
from ibot_cli.train.start import Start, read_start
from ibot_cli.weights.shapes import BackboneShape
from tests.train.test_start import our_checkpoint

TINY = {
    "model.arch": "vit_tiny", "model.patch_size": 4, "model.width": 16, "model.depth": 2, "model.heads": 2,
    "model.registers": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    path = tmp_path_factory.mktemp("weights") / "a.pt"
    our_checkpoint(path, **{
        "views.flip_prob": 0.125, "data.mean": [0.25], "data.eval_crop_ratio": 0.75, "objective.teacher_temp": 0.02,
        "objective.teacher_patch_temp": 0.03, "objective.student_temp": 0.2,
    })  # fmt: skip
    found = read_start(InitConfig(weights=str(path)), None)
    assert found is not None
    return found


def taken(start: Start, *sets: str, preset: str | None = None, data: str = "folder") -> dict[str, Any]:
    request = Request(data=data, preset=preset, sets=sets, init=start.weights)
    choices = inherited_choices(start, request.resolve(weights_known=False), fixed_channels=data.startswith("builtin:"))
    return {path: value for path, (value, _) in choices.items()}


def with_shape(start: Start, **changes: Any) -> Start:
    """The same weights as if they had another shape, and did not say how they saw images."""
    parts = replace(start.parts, shape=replace(start.parts.shape, **changes))
    return replace(start, parts=parts, loaded=replace(start.loaded, views=None))


@pytest.mark.parametrize("name", vit.SIZES)
def test_a_published_network_has_its_name(name: str) -> None:
    size = vit.SIZES[name]
    given = {"width": size.width, "depth": size.depth, "heads": size.heads}
    shape = BackboneShape(arch="vit_small", image_size=224, registers=4, **given)
    expected = {f"model.{part}": value for part, value in given.items()}
    assert network_settings(shape) == {
        "model.arch": name, "model.patch_size": 16, **expected, "model.registers": 4, "model.layer_scale": 0
    }  # fmt: skip
    assert network_settings(BackboneShape(arch=name, image_size=224, registers=4)) == network_settings(shape)


def test_a_swin_leaves_open_what_its_name_says() -> None:
    assert network_settings(BackboneShape(arch="swin_base", image_size=224, window_size=14)) == {
        "model.arch": "swin_base", "model.patch_size": 4, "model.width": None, "model.depth": None,
        "model.heads": None, "model.registers": 0, "model.layer_scale": 0, "model.window_size": 14,
    }  # fmt: skip


def test_everything_comes_from_a_checkpoint_of_ours(start: Start) -> None:
    found = taken(start)
    assert TINY.items() <= found.items()
    sizes = {"head.prototypes": 12, "head.hidden_size": 24, "head.bottleneck_size": 8, "head.shared": True}
    assert sizes.items() <= found.items()
    seen = {"views.global_size": 16, "views.local_size": 8, "views.flip_prob": 0.125, "views.num_local": 10}
    assert seen.items() <= found.items()
    images = {"data.channels": 1, "data.mean": (0.25,), "data.eval_crop_ratio": 0.75}
    assert images.items() <= found.items()


def test_the_user_wins_but_for_the_network(start: Start) -> None:
    sets = ("head.prototypes=99", "views.flip_prob=0.5", "data.channels=3", "model.width=16", "model.arch=vit_tiny")
    with pytest.raises(UsageError, match=r"model\.depth = 12 was asked for \(--set\), the weights have 2"):
        taken(start, *sets)  # a name says how many blocks there are
    found = taken(start, *sets[:4])
    assert not {"head.prototypes", "views.flip_prob", "data.channels", "data.mean"} & found.keys()
    assert {"head.bottleneck_size", "views.global_size"} <= found.keys()


def test_a_head_that_is_kept_goes_on_at_its_temperatures(start: Start) -> None:
    own = {
        "objective.teacher_temp": 0.02, "objective.warmup_teacher_temp": 0.02, "objective.teacher_patch_temp": 0.03,
        "objective.warmup_teacher_patch_temp": 0.03, "objective.student_temp": 0.2, "optim.freeze_prototypes_epochs": 0,
    }  # fmt: skip
    for preset in (None, "ibot_vits16"):
        assert own.items() <= taken(start, preset=preset).items()
    warmer = taken(start, "objective.teacher_temp=0.05", "head.prototypes=12")
    assert "objective.teacher_temp" not in warmer and warmer["objective.warmup_teacher_temp"] == 0.02
    assert not own.keys() & taken(start, "head.prototypes=13").keys()  # so the head will be new
    headless = replace(start, loaded=replace(start.loaded, head=None, scale=None))
    assert not own.keys() & taken(headless).keys()


def test_what_a_file_of_weights_does_not_say_stays_with_the_recipe(start: Start) -> None:
    silent = replace(start.loaded.origin, config=None)
    found = taken(replace(start, loaded=replace(start.loaded, scale=None, origin=silent)))
    assert not any(path.startswith("objective.") for path in found)


def test_images_of_a_preset_are_normalised_as_the_weights_saw_them(start: Start) -> None:
    found = taken(start, data="builtin:digits")  # whose preset has another mean
    assert found["data.mean"] == (0.25,) and "data.eval_crop_ratio" not in found
    assert "data.mean" not in taken(start, "data.mean=[0.5]", data="builtin:digits")


def test_views_and_channels_of_embedded_data_stay(start: Start) -> None:
    found = taken(start, data="builtin:photos")
    assert not any(path.startswith("views.") for path in found)
    assert "data.channels" not in found and "data.mean" not in found
    assert found["head.prototypes"] == 12


def test_views_of_a_preset_stay_unless_they_cannot_be_cut_into_patches(start: Start) -> None:
    assert not any(path.startswith("views.") for path in taken(start, preset="ibot_vits16"))
    large = with_shape(start, patch_size=16, image_size=224)
    found = taken(large, data="builtin:digits")
    assert (found["views.global_size"], found["views.local_size"]) == (224, 96)


@pytest.mark.parametrize(
    ("patch", "size", "expected"),
    [(16, 224, (224, 96)), (14, 518, (224, 98)), (16, 384, (224, 96)), (8, 224, (224, 96)), (4, 32, (32, 12)),
     (8, 48, (48, 24)), (14, 98, (98, 42))],
)  # fmt: skip
def test_sizes_that_suit_the_network(start: Start, patch: int, size: int, expected: tuple[int, int]) -> None:
    found = taken(with_shape(start, patch_size=patch, image_size=size))
    assert (found["views.global_size"], found["views.local_size"]) == expected
    assert not set(expected) - {side for side in expected if side % patch == 0}


def test_local_views_follow_the_global_size_of_the_user(start: Start) -> None:
    found = taken(with_shape(start), "views.global_size=64")
    assert "views.global_size" not in found and found["views.local_size"] == 28


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("model.width=96", r"model\.width = 96 was asked for \(--set\), the weights have 16"),
        ("model.patch_size=8", r"model\.patch_size = 8 was asked for"),
        ("model.arch=vit_base", r"model\.width = 768 .*; model\.depth = 12 .*; model\.heads = 12"),
        ("model.arch=swin_tiny", r"model\.arch = swin_tiny was asked for \(--set\), the weights have vit_tiny"),
        ("model.registers=4", r"model\.registers = 4 was asked for \(--set\), the weights have 0"),
    ],
)
def test_another_network_is_refused(start: Start, said: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        taken(start, said)
    assert caught.value.hint == "Leave these settings out, or start from other weights."


def test_the_network_of_a_preset_gives_way(start: Start) -> None:
    assert TINY.items() <= taken(start, preset="ibot_vitb16").items()


def test_a_file_is_told_by_its_name(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: {depth: 7}")
    request = Request(data="folder", config=tmp_path / "own.yaml", init=start.weights)
    with pytest.raises(UsageError, match=r"model\.depth = 7 was asked for \(file .*own\.yaml\), the weights have 2"):
        inherited_choices(start, request.resolve(weights_known=False), fixed_channels=False)
