import gc
import multiprocessing
import random

import numpy as np
import pytest
import torch

from ibot_cli.config.finetune import AugmentConfig
from ibot_cli.data.augment import AugmentRecipe
from ibot_cli.data.finetune_loader import FinetuneLoader, fitting_batch
from ibot_cli.data.mix import MixRecipe
from ibot_cli.data.rng import epoch_order
from ibot_cli.data.sources import Subset, open_source
from ibot_cli.data.transform import normalise, stack_images
from ibot_cli.errors import DataError
from tests.data_pipeline.images import write_images

AUGMENT = AugmentConfig()
QUIET = AugmentConfig(erase_prob=0.0, mix_prob=0.0, smoothing=0.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """22 images in two classes; 3, 4 and 17 in the order of the source are broken."""
    root = tmp_path_factory.mktemp("images")
    write_images(root / "a", 11)
    write_images(root / "b", 11)
    for name in ["a/3.png", "a/4.png"]:
        (root / name).write_bytes(b"")
    (root / "b" / "6.png").write_bytes((root / "b" / "6.png").read_bytes()[:200])
    return root


def recipe(augment=AUGMENT):
    return AugmentRecipe.from_config(augment, image_size=16, channels=3, mean=MEAN, std=STD)


def loader(source, augment=AUGMENT, **changes):
    source = source if hasattr(source, "read") else open_source(str(source), channels=3)
    options = {"seed": 5, "batch_size": 8, "micro_batch_size": 4, "max_bad_files": 3}
    mix = MixRecipe.from_config(augment, 2)
    return FinetuneLoader(source, recipe(augment), mix, **{**options, **changes})


def values(step):
    """Everything of a step, as tensors, micro-batches joined."""
    return [
        torch.cat([batch.images for batch in step.micro]),
        torch.cat([batch.targets for batch in step.micro]),
        torch.from_numpy(step.samples),
        torch.from_numpy(step.used),
        torch.from_numpy(step.labels),
    ]


def assert_same(first, second):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert (a.step, a.epoch) == (b.step, b.epoch)
        assert all(torch.equal(x, y) for x, y in zip(values(a), values(b), strict=True))


@pytest.fixture(scope="module")
def expected(folder):
    return list(loader(folder).steps(0, 5))


def test_steps_follow_the_order_of_each_epoch(folder, expected):
    assert loader(folder).steps_per_epoch == 2
    assert [(step.step, step.epoch) for step in expected] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    source = open_source(str(folder), channels=3)
    for step in expected:
        place = step.step % 2 * 8
        np.testing.assert_array_equal(step.samples, epoch_order(5, step.epoch, 22)[place : place + 8])
        np.testing.assert_array_equal(step.labels, source.labels[step.used])
        assert step.position == slice(0, 8) and step.wait.seconds() > 0
        assert [tuple(batch.images.shape) for batch in step.micro] == [(4, 3, 16, 16)] * 2
        assert [tuple(batch.targets.shape) for batch in step.micro] == [(4, 2)] * 2
        assert [len(batch) for batch in step.micro] == [4, 4]


def test_images_and_targets_are_those_of_the_recipe(folder):
    source, step = open_source(str(folder), channels=3), next(loader(folder, QUIET).steps(2, 3))
    images, targets, *_ = values(step)
    views = [
        recipe(QUIET).view(source.read(used), 5, sample, 1)
        for sample, used in zip(step.samples.tolist(), step.used.tolist(), strict=True)
    ]
    assert torch.equal(images, normalise(torch.from_numpy(stack_images(views)), MEAN, STD))
    assert torch.equal(targets.argmax(1), torch.from_numpy(step.labels)) and (targets.max(1).values == 1).all()


def test_erased_rectangles_hold_their_noise(folder):
    augment = AugmentConfig(erase_prob=0.6, mix_prob=0.0)
    step = next(loader(folder, augment).steps(0, 1))
    images = values(step)[0]
    untouched = values(next(loader(folder, AugmentConfig(erase_prob=0.0, mix_prob=0.0)).steps(0, 1)))[0]
    found = [recipe(augment).erased(5, sample, 0) for sample in step.samples.tolist()]
    assert {erased is None for erased in found} == {True, False}
    for image, whole, erased in zip(images, untouched, found, strict=True):
        if erased:
            (top, left, height, width), noise = erased
            area = (slice(None), slice(top, top + height), slice(left, left + width))
            assert torch.equal(image[area], torch.from_numpy(noise))
            whole[area] = image[area]
        assert torch.equal(image, whole)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_workers_gives_the_same(folder, expected):
    other = loader(folder, workers=2)
    assert_same(list(other.steps(0, 5)), expected)
    assert list(other.bad.reasons) == [path for step in expected for path in step.new_bad]


@pytest.mark.parametrize(("start", "workers"), [(1, 0), (3, 1)])
def test_any_start_gives_the_same(folder, expected, start, workers):
    assert_same(list(loader(folder, workers=workers).steps(start, 5)), expected[start:])


@pytest.mark.parametrize("micro", [2, 6, 8, 64])
def test_any_even_micro_batch_gives_the_same(folder, expected, micro):
    found = list(loader(folder, micro_batch_size=micro).steps(0, 5))
    assert_same(found, expected)
    assert [len(batch) for batch in found[0].micro] == {2: [2] * 4, 6: [6, 2], 8: [8], 64: [8]}[micro]


def test_odd_micro_batches_leave_one_image_unmixed(folder):
    pure = values(next(loader(folder, AugmentConfig(mix_prob=0.0)).steps(0, 1)))
    mixed = values(next(loader(folder, micro_batch_size=3).steps(0, 1)))
    same = [torch.equal(a, b) for a, b in zip(mixed[0], pure[0], strict=True)]
    assert same == [False, False, True, False, False, True, False, False]
    torch.testing.assert_close(mixed[1].sum(1), torch.ones(8))


@pytest.mark.parametrize("repeats", [1, 3])
def test_processes_share_the_global_batch(folder, repeats):
    whole = list(loader(folder, repeats=repeats).steps(0, 5))
    ranks = [list(loader(folder, rank=rank, world=2, repeats=repeats).steps(0, 5)) for rank in range(2)]
    for first, second, both in zip(*ranks, whole, strict=True):
        assert first.position == slice(0, 4) and second.position == slice(4, 8)
        for a, b, c in zip(values(first), values(second), values(both), strict=True):
            assert torch.equal(torch.cat([a, b]), c)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_generators_stay_as_they_are(folder, workers):
    def state():
        return random.getstate(), torch.get_rng_state().tolist(), np.random.get_state()[1].tolist()  # noqa: NPY002

    before = state()
    list(loader(folder, workers=workers).steps(0, 2))
    assert state() == before


def test_repeats_lie_in_one_batch_and_keep_the_length(folder):
    plain, thrice = loader(folder), loader(folder, QUIET, repeats=3)
    assert thrice.steps_per_epoch == plain.steps_per_epoch == 2
    for epoch in range(2):
        steps = list(thrice.steps(2 * epoch, 2 * epoch + 2))
        samples = np.concatenate([step.samples for step in steps])
        order = epoch_order(5, epoch, 22)
        counts = [np.sum(samples == sample) for sample in order]
        assert counts == [3] * 5 + [1] + [0] * 16  # 16 entries: five images three times, and the next one once
        assert all(a != b for a, b in zip(steps[0].samples, steps[0].samples[1:], strict=False))
    step = next(thrice.steps(0, 1))
    assert sorted(step.samples.tolist()) == sorted(
        [*epoch_order(5, 0, 22)[:2].tolist()] * 3 + [int(epoch_order(5, 0, 22)[2])] * 2
    )
    same = step.samples == step.samples[0]
    versions = values(step)[0][torch.from_numpy(same)]
    assert len(versions) == 3 and len(torch.unique(versions.flatten(1), dim=0)) == 3


def test_versions_differ_between_epochs_and_repeats(folder):
    source = Subset(open_source(str(folder), channels=3), np.array([0, 1]))
    steps = list(loader(source, QUIET, batch_size=2, repeats=2).steps(0, 4))
    views = torch.cat([values(step)[0] for step in steps])
    assert len(torch.unique(views.flatten(1), dim=0)) == len(views) == 8


def test_replacements_are_readable_named_once_and_keep_their_label(folder, expected):
    replaced = [
        (sample, used)
        for step in expected
        for sample, used in zip(step.samples, step.used, strict=True)
        if sample != used
    ]
    assert replaced and {int(sample) for sample, _ in replaced} <= {3, 4, 17}
    assert not {int(used) for _, used in replaced} & {3, 4, 17}
    new = [path for step in expected for path in step.new_bad]
    assert len(new) == len(set(new)) == 3 and str(folder / "a" / "3.png") in new


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_bad_files_stop_the_run_and_are_listed(folder, workers):
    with pytest.raises(DataError, match="3 of 22 files cannot be read") as caught:
        list(loader(folder, workers=workers, max_bad_files=2).steps(0, 5))
    assert f"{folder}/a/3.png: the file is empty" in caught.value.message


def test_subsets_of_the_labels(folder):
    source = Subset(open_source(str(folder), channels=3), np.array([0, 1, 12, 13, 14]))
    steps = list(loader(source, batch_size=4).steps(0, 3))
    assert {int(used) for step in steps for used in step.used} <= set(range(5))
    assert all((step.labels == np.where(step.used < 2, 0, 1)).all() for step in steps)


@pytest.mark.parametrize(
    ("images", "batch", "world", "expected"),
    [
        (1000, 128, 1, 128),
        (100, 128, 1, 100),
        (101, 128, 1, 100),
        (101, 128, 4, 96),
        (128, 128, 4, 128),
        (1, 128, 1, 1),
        (3, 128, 2, 2),
        (5, 5, 1, 5),
    ],
)
def test_batches_that_fit(images, batch, world, expected):
    assert fitting_batch(images, batch, world) == expected
    assert expected % world == 0 and expected <= max(images, batch)


def test_fewer_images_than_processes():
    with pytest.raises(DataError, match="3 training images are fewer than the 4 processes"):
        fitting_batch(3, 128, 4)


def test_fewer_images_than_a_batch(tmp_path):
    write_images(tmp_path / "a", 3)
    with pytest.raises(DataError, match="3 images do not fill a batch of 8"):
        loader(tmp_path)


def test_data_without_labels(tmp_path):
    write_images(tmp_path, 8)
    with pytest.raises(DataError, match="has no labels to learn from") as caught:
        loader(tmp_path)
    assert "folder of its own" in caught.value.hint


def test_a_batch_that_does_not_divide(folder):
    with pytest.raises(ValueError, match="does not divide into 3 parts"):
        loader(folder, world=3)


def test_everything_lies_on_the_device(folder):
    (batch, *_) = next(loader(folder, device="meta").steps(0, 1)).micro
    assert batch.images.device.type == batch.targets.device.type == "meta"


def test_grey_images(tmp_path):
    write_images(tmp_path / "a", 4)
    write_images(tmp_path / "b", 4)
    grey = AugmentRecipe.from_config(AUGMENT, image_size=8, channels=1, mean=(0.4,), std=(0.2,))
    source = open_source(str(tmp_path), channels=1)
    steps = FinetuneLoader(source, grey, MixRecipe.from_config(AUGMENT, 2), seed=0, batch_size=7, micro_batch_size=7)
    step = next(steps.steps(0, 1))
    assert step.micro[0].images.shape == (7, 1, 8, 8) and step.micro[0].images.isfinite().all()


def test_closing_ends_the_workers(folder):
    steps = loader(folder, workers=1).steps(0, 100)
    next(steps)
    assert len(multiprocessing.active_children()) == 1
    steps.close()
    gc.collect()
    assert not multiprocessing.active_children()
