from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.visualize.patterns.find import find_patterns
from ibot_cli.visualize.patterns.result import Pattern, PatternOptions, Patterns
from ibot_cli.weights.load import LoadedBackbone
from ibot_cli.weights.teacher_scale import TeacherScale
from tests.visualize.patterns.coloured import (
    BLUE,
    CYAN,
    GREEN,
    RED,
    TEMP,
    YELLOW,
    MeanColours,
    Painting,
    Paintings,
    coloured_head,
    coloured_weights,
    expected_probability,
    random_paintings,
)

THREE = Paintings(
    ["rrrg rrrg rrrg bbbb", "yyyy yyyy ggyy yyyy", "rryy rryy bbbb bbbb"], labels=[0, 1, 0], classes=["warm", "sunny"]
)
ALL = PatternOptions(min_brightness=-1, batch_size=2)


def find(source: Any, options: PatternOptions = ALL, weights: LoadedBackbone | None = None, **changes: Any) -> Patterns:
    return find_patterns(coloured_weights() if weights is None else weights, source, replace(options, **changes))


def by_prototype(found: Patterns) -> dict[int, Pattern]:
    return {pattern.prototype: pattern for pattern in found.patterns}


def places(pattern: Pattern) -> list[tuple[int, int | None, int | None]]:
    return [(member.index, member.row, member.column) for member in pattern.members]


def test_the_patches_of_a_colour_are_its_pattern() -> None:
    found = find(THREE)
    assert [pattern.prototype for pattern in found.patterns] == [YELLOW, RED, BLUE, GREEN]
    assert [pattern.count for pattern in found.patterns] == [14 + 4, 9 + 4, 4 + 8, 3 + 2]
    assert (found.num_images, found.num_patches, found.num_dark, found.used) == (3, 48, 0, 4)
    assert found.num_prototypes == 5 and found.grid == (4, 4) and found.kind == "patch"
    assert sum(pattern.share for pattern in found.patterns) == pytest.approx(1)
    shown = by_prototype(found)
    # one per image; of equal scores the first image, then the first patch
    assert places(shown[RED]) == [(0, 0, 0), (2, 0, 0)]
    assert places(shown[GREEN]) == [(0, 0, 3), (1, 2, 0)]
    assert places(shown[BLUE]) == [(0, 3, 0), (2, 2, 0)]
    assert places(shown[YELLOW]) == [(1, 0, 0), (2, 0, 2)]
    assert CYAN not in shown
    assert [member.path for member in shown[RED].members] == ["painting 0", "painting 2"]


def test_scores_are_raw_and_probabilities_the_teachers() -> None:
    shown = by_prototype(find(THREE))
    for prototype, letter in ((RED, "r"), (YELLOW, "y")):
        expected = expected_probability(letter, prototype)
        assert shown[prototype].members[0].score == pytest.approx(1)
        assert shown[prototype].members[0].probability == pytest.approx(expected, rel=1e-5)
        assert shown[prototype].probability == pytest.approx(expected, rel=1e-5)
    assert shown[YELLOW].probability < shown[BLUE].probability  # yellow is near red and green


def test_the_centre_moves_probabilities_and_not_assignments() -> None:
    center = torch.tensor([0.5, 0, 0, 0, 0])
    scale = TeacherScale(patch_center=center, patch_temp=TEMP, cls_center=center * 9, cls_temp=9.0)
    plain, moved = find(THREE), find(THREE, weights=coloured_weights(scale=scale))
    assert [places(pattern) for pattern in plain.patterns] == [places(pattern) for pattern in moved.patterns]
    cosines = torch.tensor([1, 0, 0, 0.5**0.5, 0])
    expected = float(torch.softmax((cosines - center) / TEMP, dim=0)[RED])
    assert by_prototype(moved)[RED].probability == pytest.approx(expected, rel=1e-5)
    assert by_prototype(moved)[RED].probability < by_prototype(plain)[RED].probability


def test_boxes_are_in_pixels_of_ragged_sources() -> None:
    source = Paintings(
        [Painting("rrrr rrrr rrgr rrrr", cell=16, across=10), Painting("bbbb bbgb bbbb bbbb", cell=24, down=6)]
    )
    found = by_prototype(find(source, window=3))[GREEN].members
    assert [member.box for member in found] == [(10 + 32, 32, 10 + 48, 48), (48, 6 + 24, 72, 6 + 48)]
    assert [member.window for member in found] == [(10 + 16, 16, 10 + 64, 64), (24, 6, 96, 6 + 72)]
    assert [member.seen for member in found] == [(10, 0, 74, 64), (0, 6, 96, 102)]


def test_a_window_may_stick_out() -> None:
    (member,) = by_prototype(find(Paintings(["grrr rrrr rrrr rrrr"]), window=5))[GREEN].members
    assert member.box == (0, 0, 8, 8) and member.window == (-16, -16, 24, 24) and member.seen == (0, 0, 32, 32)


def test_at_most_top_k_members_and_fewer_images_give_fewer() -> None:
    source = Paintings(["rrrr rrrr rrrr rrrr"] * 5)
    assert [len(find(source, top_k=k).patterns[0].members) for k in (1, 3, 5, 36)] == [1, 3, 5, 5]
    assert [member.index for member in find(source, top_k=3).patterns[0].members] == [0, 1, 2]
    assert find(source, top_k=1).patterns[0].count == 80


def test_dark_patches_are_left_out_before_the_best_are_chosen() -> None:
    # dark red scores as red does, and its image comes first
    source = Paintings(["dddd dddd dddd dddd", "drrr rrrr rrrr rrrr"])
    everything, bright = find(source), find(source, min_brightness=40, top_k=1)
    assert places(by_prototype(everything)[RED]) == [(0, 0, 0), (1, 0, 0)]
    red = by_prototype(bright)[RED]
    assert places(red) == [(1, 0, 1)] and red.count == 15 and red.dark == 17
    assert bright.num_dark == 17 and bright.num_patches == 32
    assert "17 of 32 patches are dark" in " ".join(bright.notes)
    assert by_prototype(find(source, min_brightness=39.9))[RED].dark == 0


@pytest.mark.parametrize("window", [1, 3, 5])
def test_what_is_dark_does_not_depend_on_the_window_that_is_drawn(window: int) -> None:
    assert find(Paintings(["rkkk kkkk kkkk kkkk"]), window=window, min_brightness=40).num_dark == 15


def test_brightness_is_the_largest_channel() -> None:
    found = find(Paintings(["bbbb bbbb bbbb bbbb"]), min_brightness=254)
    assert found.num_dark == 0
    assert found.patterns[0].prototype == BLUE


def test_normalisation_does_not_change_brightness() -> None:
    weights = coloured_weights(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
    found = find(Paintings(["bbbb bbbb bbbb bbbb"]), weights=weights, min_brightness=254.9)
    assert found.num_dark == 0


def test_everything_dark() -> None:
    with pytest.raises(DataError, match="Every patch of paintings is dark: none is brighter than 40 of 255") as error:
        find(Paintings(["kkkk kkkk kkkk kkkk"]), min_brightness=40)
    assert "Lower the minimal brightness" in str(error.value.hint)


def test_labels_give_purity() -> None:
    shown = by_prototype(find(THREE))
    assert (shown[YELLOW].label, shown[YELLOW].purity, shown[YELLOW].members_purity) == (1, 14 / 18, 0.5)
    assert [shown[YELLOW].members_label, shown[RED].members_label] == [1, 0]  # of equals that of all patches
    assert (shown[RED].label, shown[RED].purity, shown[RED].members_purity) == (0, 1, 1)
    assert [member.label for member in shown[YELLOW].members] == [1, 0]
    found = find(THREE)
    assert found.classes == ("warm", "sunny")
    assert found.overall_purity == pytest.approx((14 + 13 + 12 + 3) / 48)


def test_without_labels() -> None:
    found = find(Paintings(["rrrr rrrr rrrr rrrr"]))
    (pattern,) = found.patterns
    assert (pattern.label, pattern.purity, pattern.members_purity, found.classes, found.overall_purity) == (None,) * 5
    assert pattern.members_label is None


def test_members_can_be_of_another_class_than_all_patches() -> None:
    source = Paintings(
        ["rrrr rrrr rrrr rrrr", "rbbb bbbb bbbb bbbb", "rbbb bbbb bbbb bbbb"], [0, 1, 1], ["all", "best"]
    )
    red = by_prototype(find(source))[RED]
    assert (red.label, red.purity) == (0, 16 / 18) and (red.members_label, red.members_purity) == (1, 2 / 3)


def test_labels_without_names() -> None:
    assert find(Paintings(["rrrr rrrr rrrr rrrr"], labels=[2])).classes == ("0", "1", "2")


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 7}, {"batch_size": 100}, {"workers": 2}])
def test_batches_and_workers_change_nothing(change: dict[str, Any]) -> None:
    source = random_paintings(20, labels=[0, 1] * 10, bad=(3, 4, 11))
    expected = find(source, min_brightness=40, top_k=4, batch_size=3)
    assert find(source, min_brightness=40, top_k=4, **{"batch_size": 3, **change}) == expected
    assert list(expected.unreadable) == ["painting 3", "painting 4", "painting 11"]
    assert expected.num_images == 17 and "3 images could not be read" in " ".join(expected.warnings)


def test_nothing_can_be_read() -> None:
    with pytest.raises(DataError, match="paintings"):
        find(Paintings(["rrrr rrrr rrrr rrrr"], bad=(0,)))


def test_orders() -> None:
    # yellow is the most common and the least certain; green is pure
    source = Paintings(["yyyy yyyy yyyg yygg", "yyyy yyyy yyyr rrrr"], labels=[0, 1])
    assert [p.prototype for p in find(source, top_k=2).patterns] == [YELLOW, RED, GREEN]
    assert [p.prototype for p in find(source, top_k=2, order="confidence").patterns] == [RED, GREEN, YELLOW]
    assert [p.prototype for p in find(source, top_k=2, order="purity").patterns] == [RED, GREEN, YELLOW]
    assert find(source, top_k=2, order="purity", num_patterns=1).patterns[0].prototype == RED


def test_one_lucky_patch_does_not_win() -> None:
    source = Paintings(["yyyy yyyy yyyy yybr", "rrrr rrrr yyyy yyyy"], labels=[0, 1])
    found = find(source, order="confidence")
    assert found.min_count == 9  # the median of 22, 9 and 1; top_k is larger
    assert [pattern.prototype for pattern in found.patterns] == [RED, YELLOW]
    assert find(source, order="confidence", top_k=1).min_count == 1
    assert "only 2 prototypes have the 9 patches that this order asks for" in " ".join(found.warnings)
    assert find(source).min_count == 1


def test_fewer_patterns_than_asked() -> None:
    assert "20 patterns were asked for; only 4 prototypes have a patch here." in find(THREE).warnings
    assert not any("asked for" in note for note in find(THREE, num_patterns=4).warnings)


def test_class_tokens_are_told_as_images() -> None:
    source = Paintings(["rrrr rrrr rrrr rrrr", "kkkk kkkk kkkk kkkk", "bbbb bbbb bbbb bbbb"])
    found = find(source, kind="cls", min_brightness=40)
    assert "1 of 3 images is dark and was left out (33.3%)." in found.notes
    assert "20 patterns were asked for; only 2 prototypes have an image here." in found.warnings
    (one,) = find(Paintings(["rrrr rrrr rrrr rrrr"]), kind="cls").warnings
    assert one == "20 patterns were asked for; only 1 prototype has an image here."
    named = find(source, kind="cls", min_brightness=40, prototypes=(RED, CYAN)).warnings
    assert f"Without any image here, and left out: prototype {CYAN}." in named
    with pytest.raises(UsageError, match=rf"No image of paintings belongs to prototype {CYAN}\."):
        find(source, kind="cls", prototypes=(CYAN, CYAN))
    with pytest.raises(DataError, match="Every image of paintings is dark"):
        find(source, kind="cls", min_brightness=255)


def test_named_prototypes() -> None:
    found = find(THREE, prototypes=(GREEN, CYAN, RED, GREEN))
    assert [pattern.prototype for pattern in found.patterns] == [GREEN, RED]
    assert found.order == "chosen"
    assert f"Without any patch here, and left out: prototype {CYAN}." in found.warnings
    with pytest.raises(UsageError, match=r"No patch of paintings belongs to prototype 4\."):
        find(THREE, prototypes=(CYAN,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prototypes": (1, 5, -1)}, "There is no prototype 5, -1: these weights have 5"),
        ({"prototypes": ()}, "No prototype was named"),
        ({"top_k": 0}, "top_k is 0"),
        ({"num_patterns": 0}, "num_patterns is 0"),
        ({"min_brightness": float("nan")}, "The minimal brightness is not a number"),
        ({"window": 4}, "A window of 4 patches has no middle"),
        ({"window": -1}, "A window of -1 patches has no middle"),
        ({"order": "size"}, "There is no order 'size'"),
        ({"kind": "token"}, "There is no kind 'token'"),
        ({"precision": "fp8"}, "There is no precision 'fp8'"),
    ],
)
def test_options_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        find(THREE, **change)
    assert error.value.hint


def test_purity_needs_labels() -> None:
    with pytest.raises(UsageError, match="no labels, so prototypes cannot be ordered by purity"):
        find(Paintings(["rrrr rrrr rrrr rrrr"]), order="purity")


def test_weights_without_a_head() -> None:
    with pytest.raises(WeightsError, match="a network of colours: these weights have no head") as error:
        find(THREE, weights=coloured_weights(head=None))
    assert "`ibot cluster`" in str(error.value.hint)


def test_fine_tuned_weights() -> None:
    classifier: Any = torch.nn.Identity()
    with pytest.raises(WeightsError, match="these weights are fine-tuned: their projection head was replaced"):
        find(THREE, weights=coloured_weights(head=None, classifier=classifier))


def test_scores_that_are_not_finite() -> None:
    weights = coloured_weights()
    with torch.no_grad():
        weights.backbone.get_parameter("scale").fill_(float("nan"))
    with pytest.raises(WeightsError, match="The scores of a network of colours are not finite"):
        find(THREE, weights=weights)


def test_tokens_that_are_no_grid_of_patches() -> None:
    weights = coloured_weights()
    weights.backbone.stride = 16
    with pytest.raises(WeightsError, match="The network gives 16 patch tokens of an image, not 2 x 2") as error:
        find(THREE, weights=weights)
    assert "--kind cls" in str(error.value.hint)
    assert find(THREE, weights=weights, kind="cls").num_patches == 3


@pytest.mark.parametrize("scale", [None, TeacherScale(patch_center=torch.zeros(5), patch_temp=TEMP)])
def test_a_network_without_patch_tokens(scale: TeacherScale | None) -> None:
    class Pooled(MeanColours):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images)[:, :1]

    with pytest.raises(WeightsError, match="The network gives 0 patch tokens of an image, not 4 x 4"):
        find(THREE, weights=coloured_weights(backbone=Pooled(), scale=scale))


def test_bf16_rounds_the_network_and_not_the_scores() -> None:
    exact, rounded = find(THREE), find(THREE, precision="bf16")
    assert [places(pattern) for pattern in rounded.patterns] == [places(pattern) for pattern in exact.patterns]
    assert rounded.patterns[1].members[0].score == pytest.approx(1, abs=1e-6)


def test_class_tokens_group_whole_images() -> None:
    source = Paintings(
        [
            Painting("rrrr rrrr rrrr rrrg", cell=16, across=10),
            "bbbb bbbb bbbb bbbk",
            "rrrr rrrr rrrr rrrb",
            "kkkk kkkk kkkk kkkr",
        ]
    )
    found = find(source, kind="cls", min_brightness=40, weights=coloured_weights(head=coloured_head("rb")))
    assert found.num_prototypes == 2 and found.grid == (1, 1)
    assert (found.num_patches, found.num_dark, found.num_images) == (4, 1, 4)
    red, blue = found.patterns
    assert (red.prototype, red.count, red.dark, blue.prototype, blue.count) == (0, 2, 1, 1, 1)
    assert places(red) == [(0, None, None), (2, None, None)] or places(red) == [(2, None, None), (0, None, None)]
    first = next(member for member in red.members if member.index == 0)
    assert first.box == first.window == first.seen == (10, 0, 74, 64)


def test_class_tokens_use_their_own_centre_and_temperature() -> None:
    scale = TeacherScale(
        cls_center=torch.tensor([0.0, 0.3, 0, 0, 0]), patch_center=torch.ones(5) * 9, cls_temp=0.2, patch_temp=9
    )
    (pattern,) = find(Paintings(["rrrr rrrr rrrr rrrr"]), kind="cls", weights=coloured_weights(scale=scale)).patterns
    assert scale.cls_center is not None
    cosines = torch.tensor([1, 0, 0, 0.5**0.5, 0])
    assert pattern.probability == pytest.approx(
        float(torch.softmax((cosines - scale.cls_center) / 0.2, 0)[0]), rel=1e-5
    )


def test_progress_and_mode() -> None:
    seen: list[tuple[str, int, int]] = []
    weights = coloured_weights(scale=None)
    weights.backbone.train()
    find_patterns(weights, THREE, ALL, progress=lambda *now: seen.append(now))
    assert seen == [("centre", 2, 3), ("centre", 3, 3), ("patterns", 2, 3), ("patterns", 3, 3)]
    assert weights.backbone.training and weights.head is not None and not weights.head.training


def test_it_says_what_it_measured() -> None:
    found = find(THREE, top_k=7, window=3, order="confidence", weights=coloured_weights(notes=["An old file."]))
    assert (found.top_k, found.window, found.order, found.min_brightness) == (7, 3, "confidence", -1)
    assert (found.weights, found.data, found.fingerprint) == ("a network of colours", "paintings", THREE.fingerprint)
    assert found.weights_hash == coloured_weights().weights_hash
    assert found.warnings[0] == "An old file."


def test_the_global_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    find(THREE, weights=coloured_weights(scale=None))
    assert torch.equal(state, torch.get_rng_state())


def swin() -> LoadedBackbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = build_backbone(arch="swin_tiny", image_size=64, window_size=2).eval()
        head = Head(backbone.dim, 16, hidden_size=32, bottleneck_size=8).eval()
    return coloured_weights(backbone=backbone, head=head, image_size=64, scale=None)


def test_swin_tokens_are_those_of_the_last_stage() -> None:
    source = random_paintings(3, letters="rgby")
    weights = swin()
    found = find(source, weights=weights, num_patterns=16, window=1)
    assert found.grid == (2, 2) and found.num_patches == 12 and found.num_prototypes == 16
    images = torch.stack([torch.from_numpy(np.array(source.read(i).resize((64, 64), 3))) for i in range(3)])
    with torch.no_grad():
        tokens = weights.backbone(images.permute(0, 3, 1, 2).float() / 255)[:, 1:]
        assert weights.head is not None
        expected = weights.head.patch_logits(weights.head.bottleneck(tokens)).argmax(-1)
    for pattern in found.patterns:
        assert pattern.count == (expected == pattern.prototype).sum()
        for member in pattern.members:
            assert member.row is not None and member.column is not None
            assert expected[member.index, 2 * member.row + member.column] == pattern.prototype
            left, top = 16.0 * member.column, 16.0 * member.row  # paintings of 32 pixels, seen at 64
            assert member.box == (left, top, left + 16, top + 16)
