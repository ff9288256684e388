import numpy as np
import pytest
import torch
from timm.data import mixup as timm_mixup

from ibot_cli.config.finetune import AugmentConfig
from ibot_cli.data.mix import GROUP, Mix, MixRecipe, _neighbours, mix_batch, soft_targets

NUM_CLASSES = 5


def recipe(**changes):
    values = {"mixup": 0.8, "cutmix": 1.0, "mix_prob": 1.0, "mix_switch_prob": 0.5, "smoothing": 0.1}
    return MixRecipe(num_classes=NUM_CLASSES, **{**values, **changes})


def batch(size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn((size, 2, 12, 10), generator=generator)
    return images, torch.randint(0, NUM_CLASSES, (size,), generator=generator)


def mixed(size=8, step=0, first=0, **changes):
    images, labels = batch(size)
    return mix_batch(images, labels, recipe(**changes), seed=1, step=step, first=first)


def test_the_recipe_is_that_of_the_configuration():
    assert MixRecipe.from_config(AugmentConfig(), NUM_CLASSES) == recipe()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_targets_as_timm_smooths_them(smoothing):
    labels = batch()[1]
    expected = timm_mixup.mixup_target(labels, NUM_CLASSES, lam=1.0, smoothing=smoothing)
    torch.testing.assert_close(soft_targets(labels, NUM_CLASSES, smoothing), expected)


@pytest.mark.parametrize("cutmix", [False, True])
def test_mixing_is_timms_for_the_same_strength(monkeypatch, cutmix):
    ours = recipe(mix_switch_prob=float(cutmix))
    drawn = []
    draw = MixRecipe.draw
    monkeypatch.setattr(MixRecipe, "draw", lambda self, *args: drawn.append(draw(self, *args)) or drawn[-1])
    images, labels = batch()
    result, targets = mix_batch(images, labels, ours, seed=1, step=3, first=0)
    (mix,) = drawn
    assert (mix.box is not None) == cutmix and 0 < mix.share < 1

    timms = timm_mixup.Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=NUM_CLASSES)
    monkeypatch.setattr(timms, "_params_per_batch", lambda: (mix.share, cutmix))
    monkeypatch.setattr(timm_mixup, "rand_bbox", lambda *args, **kwargs: mix.box)
    order = torch.tensor([0, 2, 4, 6, 7, 5, 3, 1])  # timm mixes the first with the last
    images, labels = batch()
    expected, expected_targets = timms(images[order].clone(), labels[order])
    torch.testing.assert_close(result[order], expected)
    torch.testing.assert_close(targets[order], expected_targets)


@pytest.mark.parametrize("size", [1, 2, 7, 8, GROUP + 3, 2 * GROUP])
def test_targets_sum_to_one(size):
    for step in range(6):
        images, targets = mixed(size, step)
        torch.testing.assert_close(targets.sum(1), torch.ones(size))
        assert images.isfinite().all() and (targets >= 0).all()


def test_an_image_without_a_neighbour_is_not_mixed():
    images, targets = mixed(7)
    assert torch.equal(images[6], batch(7)[0][6])
    assert torch.equal(targets[6], soft_targets(batch(7)[1], NUM_CLASSES, 0.1)[6])
    assert not torch.equal(images[5], batch(7)[0][5])


def test_neighbours():
    assert _neighbours(torch.arange(5)).tolist() == [1, 0, 3, 2, 4]
    assert _neighbours(torch.arange(1)).tolist() == [0]
    assert _neighbours(torch.zeros(0, 3)).shape == (0, 3)


@pytest.mark.parametrize("parts", [[100, 40, 180], [2] * 160, [320]])
def test_parts_of_the_batch_are_mixed_as_the_whole(parts):
    images, labels = batch(320)
    whole = mix_batch(images.clone(), labels, recipe(), seed=1, step=2, first=0)
    first, found = 0, []
    for size in parts:
        here = slice(first, first + size)
        found.append(mix_batch(images[here].clone(), labels[here], recipe(), seed=1, step=2, first=first))
        first += size
    assert torch.equal(torch.cat([part[0] for part in found]), whole[0])
    assert torch.equal(torch.cat([part[1] for part in found]), whole[1])


def test_groups_have_strengths_of_their_own():
    images, labels = torch.arange(3 * GROUP).float().remainder(2).view(-1, 1, 1, 1), torch.zeros(3 * GROUP).long()
    blended, _ = mix_batch(images, labels, recipe(cutmix=0.0), seed=0, step=0, first=0)
    shares = [blended[group * GROUP, 0, 0, 0].item() for group in range(3)]
    assert len(set(shares)) == 3
    assert all(
        torch.equal(blended[g * GROUP : (g + 1) * GROUP : 2].unique(), torch.tensor([shares[g]])) for g in range(3)
    )


@pytest.mark.parametrize("off", [{"mixup": 0.0, "cutmix": 0.0}, {"mix_prob": 0.0}])
def test_nothing_is_mixed_where_mixing_is_off(off):
    images, targets = mixed(**off)
    assert torch.equal(images, batch()[0])
    assert torch.equal(targets, soft_targets(batch()[1], NUM_CLASSES, 0.1))


def draws(count=3000, **changes):
    rng = np.random.default_rng(0)
    return [recipe(**changes).draw(rng, 32, 32) for _ in range(count)]


def test_how_often_what_is_drawn():
    found = draws(mix_prob=0.8, mix_switch_prob=0.3)
    assert abs(sum(mix is None for mix in found) / 3000 - 0.2) < 0.03
    assert abs(sum(mix is not None and mix.box is not None for mix in found) / 3000 - 0.24) < 0.03
    assert all(mix.box is None for mix in draws(300, cutmix=0.0))
    assert all(mix.box is not None for mix in draws(300, mixup=0.0))


def test_strengths_are_distributed_as_published():
    blended = np.array([mix.share for mix in draws(cutmix=0.0)])
    assert abs(blended.mean() - 0.5) < 0.03
    assert abs(blended.var() - 1 / (4 * (2 * 0.8 + 1))) < 0.01  # of Beta(a, a)
    cut = draws(mixup=0.0)
    assert all(0 <= top <= bottom <= 32 and 0 <= left <= right <= 32 for _, (top, bottom, left, right) in cut)
    for mix in cut[:50]:
        top, bottom, left, right = mix.box
        assert mix.share == pytest.approx(1 - (bottom - top) * (right - left) / 32**2)
    with_timm = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    theirs = [timm_mixup.cutmix_bbox_and_lam((32, 32), np.random.beta(1, 1))[1] for _ in range(3000)]  # noqa: NPY002
    np.random.set_state(with_timm)  # noqa: NPY002
    assert abs(np.mean([mix.share for mix in cut]) - np.mean(theirs)) < 0.03


def test_steps_and_seeds_differ_and_repeat():
    assert torch.equal(mixed(step=3)[0], mixed(step=3)[0])
    assert not torch.equal(mixed(step=3)[0], mixed(step=4)[0])


def test_a_cut_that_takes_nothing_changes_nothing():
    from ibot_cli.data.mix import _mix

    images, labels = batch()
    targets = soft_targets(labels, NUM_CLASSES, 0.1)
    expected = images.clone(), targets.clone()
    _mix(images, targets, Mix(1.0, (3, 3, 2, 5)))
    assert torch.equal(images, expected[0]) and torch.equal(targets, expected[1])
