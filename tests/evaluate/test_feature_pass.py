"""The pass itself, without its cache."""

from functools import partial

import numpy as np
import pytest
import torch

from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.evaluate.baselines import raw_pixels
from ibot_cli.evaluate.features import extract
from ibot_cli.evaluate.pooling import compute_parts, parse_pooling
from tests.evaluate import passes
from tests.evaluate.passes import ALL_PARTS, NUM, Pictures, counted, loaded

TRANSFORM = eval_transform(8, 1.0, 3, (0.5,) * 3, (0.25,) * 3)
run = partial(passes.run, cache=False)


def expected(pooling: str, indices: list[int]) -> torch.Tensor:
    """One image at a time."""
    model, rows = loaded(), []
    for index in indices:
        with torch.no_grad():
            parts = compute_parts(model.backbone, TRANSFORM(Pictures().read(index))[None], list(ALL_PARTS))
        rows.append(torch.cat([parts[part] for part in parse_pooling(pooling).parts], dim=1)[0])
    return torch.stack(rows)


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (0, 2), (0, 64), (2, 3)])
def test_all_poolings_in_one_forward_pass(workers: int, batch_size: int) -> None:
    model = loaded()
    found = run(model, workers=workers, batch_size=batch_size)
    for pooling in (*passes.EVERYTHING, "cls+mean", "rawmean"):
        torch.testing.assert_close(found.pooled(pooling), expected(pooling, list(range(NUM))), atol=1e-5, rtol=1e-5)
    assert counted(model) == NUM == len(found)
    assert found.index.tolist() == list(range(NUM)) and found.bad == {} and found.notes == ()


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("poolings", [("cls",), passes.EVERYTHING])
def test_class_tokens_are_those_of_extract_to_the_bit(poolings: tuple[str, ...], cache: bool) -> None:
    model, source = loaded(), Pictures(bad=(3, 4, 9))
    found = run(model, source, poolings=poolings, batch_size=4, cache=cache)
    plain = extract(model.backbone, source, TRANSFORM, batch_size=4)
    assert torch.equal(found.pooled("cls"), plain.cls) and np.array_equal(found.index, plain.index)
    assert found.bad == plain.bad


@pytest.mark.parametrize("cache", [False, True])
def test_unreadable_images_are_left_out(cache: bool) -> None:
    bad = (0, 4, 5, 6, 7, 36)  # a whole block among them, the first row and the last
    found = run(loaded(), Pictures(bad=bad), cache=cache)
    good = [index for index in range(NUM) if index not in bad]
    assert found.index.tolist() == good
    assert found.bad == {f"image {index}": "damaged" for index in bad}
    torch.testing.assert_close(found.pooled("cls3"), expected("cls3", good), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.pooled("mean"), expected("mean", good), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("num", [2, 0])
def test_nothing_readable(num: int, cache: bool) -> None:
    reason = r" \(image 0: damaged\)" if num else ""
    for _ in range(2):
        with pytest.raises(DataError, match=f"No image of pictures can be read{reason}"):
            run(loaded(), Pictures(num, bad=(0, 1)), cache=cache)


@pytest.mark.parametrize("cache", [False, True])
def test_chosen_images(cache: bool) -> None:
    found = run(loaded(), index=np.array([30, 2, 7]), cache=cache)
    assert found.index.tolist() == [30, 2, 7]
    torch.testing.assert_close(found.pooled("cls"), expected("cls", [30, 2, 7]), atol=1e-5, rtol=1e-5)


def test_bf16_is_kept_as_bf16() -> None:
    exact, model = run(loaded()), loaded()
    low = run(model, precision="bf16")
    for pooling in passes.EVERYTHING:
        features = low.pooled(pooling)
        assert features.dtype == torch.float32 and torch.equal(features, features.bfloat16().float())
        difference = (features - exact.pooled(pooling)).abs().max()
        assert 0 < difference < 0.1 * exact.pooled(pooling).abs().max()


@pytest.mark.parametrize("cache", [False, True])
def test_no_copy_of_a_single_part(cache: bool) -> None:
    found = run(loaded(), cache=cache)
    assert found.pooled("cls").data_ptr() == found.pooled("cls").data_ptr()
    assert found.pooled("cls2").data_ptr() != found.pooled("cls2").data_ptr()


def test_only_what_was_asked() -> None:
    with pytest.raises(ValueError, match=r"mean@1 of 'cls\+mean' was not computed"):
        run(loaded(), poolings=("cls",)).pooled("cls+mean")


def test_modes_and_generators_are_left_as_they_were() -> None:
    model = loaded()
    model.backbone.train()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for cache in (False, True, True):
        run(model, cache=cache, workers=1)
    assert model.backbone.training
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("cache", [False, True])
def test_progress_rises_to_the_total(cache: bool) -> None:
    calls: list[tuple[int, int]] = []
    run(loaded(), batch_size=4, cache=cache, progress=lambda *call: calls.append(call))
    assert calls == [(min(done, NUM), NUM) for done in range(4, NUM + 4, 4)]


def test_wrong_requests() -> None:
    with pytest.raises(UsageError, match="There is no precision 'fp16'"):
        run(loaded(), precision="fp16")
    with pytest.raises(UsageError, match="is not a pooling"):
        run(loaded(), poolings=("max",))
    with pytest.raises(WeightsError, match="needs 4 blocks, and the network has 3"):
        run(loaded(), poolings=("cls4",))


def test_pixels_give_one_feature_for_every_pooling() -> None:
    found = run(raw_pixels(loaded()), poolings=("cls3+mean", "rawmean"))
    assert found.pooled("cls3+mean").shape == (NUM, 3 * 32 * 32)
    assert torch.equal(found.pooled("rawmean"), found.pooled("cls3+mean"))
