from dataclasses import replace
from typing import Any

import pytest
import torch

from ibot_cli.errors import DataError
from ibot_cli.visualize.patterns import center as module
from ibot_cli.visualize.patterns.center import Scale, find_scale, sample_index
from ibot_cli.visualize.patterns.find import find_patterns, preparation
from ibot_cli.visualize.patterns.result import PatternOptions
from ibot_cli.weights.teacher_scale import TeacherScale
from tests.visualize.patterns.coloured import Paintings, coloured_head, coloured_weights, random_paintings

OPTIONS = PatternOptions(batch_size=2)
FIVE = torch.arange(5.0)


def scale(held: TeacherScale | None, source: Any = None, options: PatternOptions = OPTIONS) -> Scale:
    weights = coloured_weights()
    assert weights.head is not None
    source = random_paintings(7) if source is None else source
    return find_scale(held, weights.backbone, weights.head, source, preparation(weights), options)


def test_what_the_weights_hold_is_used() -> None:
    held = TeacherScale(cls_center=FIVE, patch_center=FIVE * 2, cls_temp=0.1, patch_temp=0.2)
    for kind, center, temp in (("patch", FIVE * 2, 0.2), ("cls", FIVE, 0.1)):
        found = scale(held, options=replace(OPTIONS, kind=kind))  # type: ignore[arg-type]
        assert torch.equal(found.center, center) and found.temp == temp and found.notes == ()


@pytest.mark.parametrize("kind", ["patch", "cls"])
def test_else_the_mean_score_of_all_patches(kind: Any) -> None:
    weights, source = coloured_weights(), random_paintings(7)
    images = torch.stack([preparation(weights)(source.read(place)) for place in range(7)])
    tokens = weights.backbone(images)
    head = coloured_head()
    logits = head.cls_logits(head.bottleneck(tokens[:, 1:] if kind == "patch" else tokens[:, :1]))
    found = scale(TeacherScale(cls_temp=0.1, patch_temp=0.1), source, replace(OPTIONS, kind=kind))
    torch.testing.assert_close(found.center, logits.flatten(0, 1).mean(dim=0).detach(), atol=1e-6, rtol=0)
    (note,) = found.notes
    assert "no centre of the " in note and "the mean score over 7 of these images stands for it" in note


def test_batches_and_workers_do_not_change_the_sample() -> None:
    one = scale(None).center
    torch.testing.assert_close(scale(None, options=replace(OPTIONS, batch_size=5)).center, one, atol=1e-7, rtol=0)
    assert torch.equal(scale(None, options=replace(OPTIONS, workers=1)).center, one)


def test_the_sample_is_seeded_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(sample_index(5000, 0)) == 1024 and (sample_index(5000, 0) == sample_index(5000, 0)).all()
    assert (sample_index(5000, 0) != sample_index(5000, 1)).any()
    assert sample_index(5, 3).tolist() == [0, 1, 2, 3, 4]
    monkeypatch.setattr(module, "SAMPLE", 2)
    drawn = scale(None, options=replace(OPTIONS, seed=1))
    assert not torch.equal(drawn.center, scale(None, options=replace(OPTIONS, seed=2)).center)
    assert "over 2 of these images" in drawn.notes[0]


def test_a_temperature_that_is_not_known() -> None:
    found = scale(TeacherScale(cls_center=FIVE, patch_center=FIVE))
    assert found.temp == 0.07
    assert found.notes == ("The weights do not say their temperature of the patches; it is taken as 0.07.",)


def test_a_centre_that_does_not_fit_is_not_used() -> None:
    assert len(scale(TeacherScale(patch_center=torch.ones(3), patch_temp=0.1)).center) == 5


def test_a_sample_without_readable_images(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError):
        scale(None, Paintings(["rrrr rrrr rrrr rrrr"], bad=(0,)))


def test_only_images_that_can_be_read_are_counted() -> None:
    assert "the mean score over 5 of these images" in scale(None, random_paintings(7, bad=(0, 3))).notes[0]


def test_the_notes_reach_the_patterns() -> None:
    found = find_patterns(coloured_weights(scale=None), random_paintings(3), OPTIONS)
    assert "mean score" in found.notes[0] and "0.07" in found.notes[1]
