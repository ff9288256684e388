import dataclasses
import gc
import multiprocessing

import numpy as np
import pytest
import torch

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.core.batch import Batch
from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.changes import pack_changes
from ibot_cli.data.loader import ViewLoader
from ibot_cli.data.photometric import finish_views
from ibot_cli.data.rng import epoch_order, stream
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import ViewRecipe, cut_views
from ibot_cli.errors import DataError
from tests.data_pipeline.images import write_image, write_images

RECIPE = ViewRecipe.from_config(ViewsConfig(num_local=2, global_size=16, local_size=8), DataConfig())
MASKS = MaskSampler(grid=4, kind="block", ratio=(0.0, 0.3), ratio_var=(0.0, 0.2))


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


def loader(folder, **changes):
    options = {"seed": 5, "batch_size": 8, "micro_batch_size": 4, "mask_start_epoch": 1, "max_bad_files": 3}
    source = open_source(str(folder), channels=3)
    return ViewLoader(source, RECIPE, MASKS, **{**options, **changes})


def values(data):
    """Everything of a step, as tensors, micro-batches joined."""
    return [
        torch.cat([batch.global_views for batch in data.micro], 1),
        torch.cat([batch.local_views for batch in data.micro], 1),
        torch.cat([batch.mask for batch in data.micro], 1),
        torch.from_numpy(data.samples),
        torch.from_numpy(data.used),
        torch.from_numpy(data.labels),
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
    assert [(data.step, data.epoch) for data in expected] == [(0, 0), (1, 0), (2, 1), (3, 1), (4, 2)]
    for data in expected:
        place = data.step % 2 * 8
        np.testing.assert_array_equal(data.samples, epoch_order(5, data.epoch, 22)[place : place + 8])
        assert data.position == slice(0, 8) and data.wait.seconds() > 0
        assert [tuple(batch.global_views.shape) for batch in data.micro] == [(2, 4, 3, 16, 16)] * 2
        assert [tuple(batch.local_views.shape) for batch in data.micro] == [(2, 4, 3, 8, 8)] * 2
        assert all(batch.mask.shape == (2, 4, 16) and batch.mask.is_contiguous() for batch in data.micro)


def test_views_are_those_of_cut_views_and_finish_views(folder, expected):
    data = expected[2]
    source = open_source(str(folder), channels=3)
    for place, (sample, used) in enumerate(zip(data.samples.tolist(), data.used.tolist(), strict=True)):
        crops, changes = cut_views(source.open(used), RECIPE, stream(5, sample, data.epoch, "crops"))
        for part, views in ((slice(0, 2), values(data)[0]), (slice(2, None), values(data)[1])):
            finished = finish_views(
                torch.stack(crops[part]),
                pack_changes(changes[part]),
                threshold=RECIPE.solarize_threshold,
                mean=RECIPE.mean,
                std=RECIPE.std,
            )
            assert torch.equal(views[:, place], finished)


def test_masks_are_those_of_the_sampler_with_index_and_weights(expected):
    for data in expected[2:]:
        for batch, samples in zip(data.micro, data.samples.reshape(2, 4).tolist(), strict=True):
            for place, sample in enumerate(samples):
                rng = stream(5, sample, data.epoch, "mask")
                for view in range(2):
                    assert batch.mask[view, place].tolist() == MASKS.draw(rng).ravel().tolist()
            made = Batch.make(batch.global_views, batch.local_views, batch.mask)
            assert torch.equal(batch.mask_index, made.mask_index)
            assert torch.equal(batch.mask_weights, made.mask_weights)


def test_masks_begin_with_their_epoch(expected):
    assert [any(batch.mask.any() for batch in data.micro) for data in expected] == [False, False, True, True, True]


@pytest.mark.filterwarnings("error:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same(folder, expected, workers):
    other = loader(folder, workers=workers)
    assert_same(list(other.steps(0, 5)), expected)
    assert list(other.bad.reasons) == [path for data in expected for path in data.new_bad]


@pytest.mark.parametrize(("start", "workers"), [(1, 0), (3, 2)])
def test_any_start_gives_the_same(folder, expected, start, workers):
    assert_same(list(loader(folder, workers=workers).steps(start, 5)), expected[start:])


def test_any_micro_batch_gives_the_same(folder, expected):
    assert_same(list(loader(folder, micro_batch_size=8).steps(0, 5)), expected)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_the_global_batch(folder, expected, world):
    share = 8 // world
    ranks = [list(loader(folder, rank=rank, world=world, micro_batch_size=share).steps(0, 5)) for rank in range(world)]
    for *parts, whole in zip(*ranks, expected, strict=True):
        assert [part.position for part in parts] == [slice(n, n + share) for n in range(0, 8, share)]
        for *pieces, value in zip(*map(values, parts), values(whole), strict=True):
            assert torch.equal(torch.cat(pieces, 1 if value.ndim > 1 else 0), value)


def test_the_global_generators_stay_as_they_are(folder):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(loader(folder, workers=1).steps(0, 2))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_replacements_are_readable_named_once_and_keep_their_label(folder, expected):
    source = open_source(str(folder), channels=3)
    replaced = [
        (sample, used)
        for data in expected
        for sample, used in zip(data.samples, data.used, strict=True)
        if sample != used
    ]
    assert replaced and {int(sample) for sample, _ in replaced} <= {3, 4, 17}
    assert not {int(used) for _, used in replaced} & {3, 4, 17}
    for data in expected:
        np.testing.assert_array_equal(data.labels, source.labels[data.used])
    new = [path for data in expected for path in data.new_bad]
    assert len(new) == len(set(new)) == 3 and str(folder / "a" / "3.png") in new


def test_too_many_bad_files_stop_the_run_and_are_listed(folder):
    for workers in (0, 1):
        with pytest.raises(DataError, match="3 of 22 files cannot be read") as caught:
            list(loader(folder, workers=workers, max_bad_files=2).steps(0, 5))
        assert f"{folder}/a/3.png: the file is empty" in caught.value.message
        assert "data.max_bad_ratio" in caught.value.hint
    assert len(list(loader(folder, max_bad_files=2, max_bad_ratio=0.2).steps(0, 5))) == 5


def test_bad_files_survive_a_checkpoint(folder):
    first = loader(folder)
    list(first.steps(0, 4))
    second = loader(folder)
    second.bad.load_state_dict(first.bad.state_dict())
    assert second.bad.reasons == first.bad.reasons and next(second.steps(0, 1)).new_bad == []


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_image_at_all(tmp_path, workers):
    for index in range(30):
        (tmp_path / f"{index}.png").write_bytes(b"")
    with pytest.raises(DataError, match="No readable image") as caught:
        list(loader(tmp_path, workers=workers, max_bad_ratio=1.0).steps(0, 1))
    assert "and 10 more" in caught.value.message


def test_fewer_images_than_a_batch(tmp_path):
    write_images(tmp_path, 3)
    with pytest.raises(DataError, match="3 images do not fill a batch of 8") as caught:
        loader(tmp_path)
    assert "at most 3" in caught.value.hint


def test_sizes_that_do_not_divide(folder):
    with pytest.raises(ValueError, match="does not divide"):
        loader(folder, world=3)
    with pytest.raises(ValueError, match="does not divide"):
        loader(folder, micro_batch_size=3)


def test_without_masks(folder):
    data = next(
        ViewLoader(
            open_source(str(folder), channels=3),
            RECIPE,
            None,
            seed=0,
            batch_size=4,
            micro_batch_size=4,
            grid=4,
            max_bad_files=5,
        ).steps(0, 1)
    )
    assert data.micro[0].mask.shape == (2, 4, 16) and not data.micro[0].mask.any()


def test_everything_lies_on_the_device(folder, monkeypatch):
    def finish(levels, changes, **settings):
        assert levels.device.type == "meta" and changes.device.type == "cpu" and settings["dtype"] == torch.bfloat16
        return torch.empty(len(levels), 3, *levels.shape[1:3], device=levels.device)

    monkeypatch.setattr("ibot_cli.data.loader.finish_views", finish)  # torch takes a second to get ready for `meta`
    batch = next(loader(folder, device="meta", dtype=torch.bfloat16).steps(0, 1)).micro[0]
    assert {value.device.type for value in vars(batch).values() if value is not None} == {"meta"}


def test_without_local_views(folder):
    recipe = dataclasses.replace(RECIPE, num_local=0)
    data = next(
        ViewLoader(
            open_source(str(folder), channels=3),
            recipe,
            MASKS,
            seed=0,
            batch_size=4,
            micro_batch_size=4,
            max_bad_files=5,
        ).steps(0, 1)
    )
    assert data.micro[0].local_views.shape == (0, 4, 3, 8, 8)


def test_data_without_labels(tmp_path):
    write_images(tmp_path, 8)
    assert next(loader(tmp_path).steps(0, 1)).labels is None


def test_closing_ends_the_workers(folder):
    steps = loader(folder, workers=2).steps(0, 100)
    next(steps)
    assert len(multiprocessing.active_children()) == 2
    steps.close()
    gc.collect()
    assert not multiprocessing.active_children()


class Broken:
    """A source whose read fails for another reason than a bad file."""

    name, labels, classes, fingerprint, notes = "broken", None, None, "", []

    def __len__(self):
        return 8

    def open(self, index):
        raise KeyError("out of cheese")

    def path(self, index):
        return f"nowhere/{index}"


@pytest.mark.parametrize("workers", [0, 1])
def test_other_failures_surface_with_the_image(workers):
    broken = ViewLoader(Broken(), RECIPE, MASKS, seed=0, batch_size=4, micro_batch_size=4, workers=workers)
    with pytest.raises(DataError, match=r"nowhere/\d cannot be (read|made).*KeyError.*cheese") as caught:
        next(broken.steps(0, 1))
    assert caught.value.__cause__ is not None


class Deadly(Broken):
    """A source that ends its process."""

    def open(self, index):
        import os

        os._exit(1)


def test_a_worker_that_dies_is_reported():
    deadly = ViewLoader(Deadly(), RECIPE, MASKS, seed=0, batch_size=4, micro_batch_size=4, workers=1)
    with pytest.raises(DataError, match="ended without a result") as caught:
        next(deadly.steps(0, 1))
    assert "runtime.workers" in caught.value.hint


def test_images_of_any_size_become_views(tmp_path):
    for index, size in enumerate([(1, 1), (1, 300), (300, 1), (3, 2)]):
        write_image(tmp_path / f"{index}.png", size=size)
    data = next(loader(tmp_path, batch_size=4).steps(0, 1))
    assert data.micro[0].global_views.isfinite().all()
