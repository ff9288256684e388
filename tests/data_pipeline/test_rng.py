import numpy as np
import pytest
import torch

from ibot_cli.data.rng import epoch_order, step_generator, stream


def test_a_stream_is_a_function_of_its_four_arguments():
    first = stream(3, 5, 7, "crops").random(8)
    np.random.default_rng(0).random()
    assert (stream(3, 5, 7, "crops").random(8) == first).all()
    others = [(4, 5, 7, "crops"), (3, 6, 7, "crops"), (3, 5, 8, "crops"), (3, 5, 7, "mask"), (3, 7, 5, "crops")]
    assert all((stream(*other).random(8) != first).all() for other in others)


def test_the_values_of_a_stream_stay_the_same_between_versions():
    assert stream(0, 1, 2, "a").random(2).tolist() == pytest.approx([0.48072037, 0.96380564], abs=1e-8)


@pytest.mark.parametrize("along", ["sample", "visit", "name"])
def test_neighbouring_streams_are_uniform_and_uncorrelated(along):
    count = 4000
    make = {
        "sample": lambda i: stream(0, i, 3, "crops"),
        "visit": lambda i: stream(0, 3, i, "crops"),
        "name": lambda i: stream(0, 3, 3, f"crops{i}"),
    }[along]
    draws = np.stack([make(index).random(4) for index in range(count)])
    error = 1 / np.sqrt(count)
    assert np.abs(draws.mean(0) - 0.5).max() < 4 * error * np.sqrt(1 / 12)
    assert np.abs(draws.var(0) - 1 / 12).max() < 4 * error * np.sqrt(1 / 180)
    centred = (draws - 0.5) * np.sqrt(12)
    assert np.abs((centred[1:] * centred[:-1]).mean(0)).max() < 4 * error
    assert np.abs(np.corrcoef(draws.T)[np.triu_indices(4, 1)]).max() < 4 * error
    assert np.histogram(draws[:, 0], bins=16, range=(0, 1))[0].std() < 2 * np.sqrt(count / 16)


def test_out_of_range_keys_are_refused():
    with pytest.raises(ValueError, match="2\\*\\*32"):
        stream(0, 2**32, 0, "crops")


def test_epoch_order_is_a_permutation_that_changes_with_seed_and_epoch():
    order = epoch_order(0, 1, 100)
    assert order.dtype == np.int64 and sorted(order) == list(range(100))
    assert (epoch_order(0, 1, 100) == order).all()
    assert (epoch_order(0, 2, 100) != order).any() and (epoch_order(1, 1, 100) != order).any()


def test_step_generator_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first = torch.rand(4, generator=step_generator(0, 5, "drop_path"))
    assert torch.equal(torch.rand(4, generator=step_generator(0, 5, "drop_path")), first)
    assert not torch.equal(torch.rand(4, generator=step_generator(0, 6, "drop_path")), first)
    assert torch.equal(torch.get_rng_state(), before)
