import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ibot_cli.errors import DataError
from ibot_cli.evaluate.features import default_workers, extract
from tests.evaluate.images import Coloured, MeanColour

LABELS = [0, 1, 2, 2, 1, 0, 1]


def transform(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(image).astype(np.float32) / 255).permute(2, 0, 1)


def expected(index: int) -> Tensor:
    return transform(Coloured(LABELS).read(index)).mean(dim=(1, 2))


@pytest.mark.parametrize(("workers", "batch_size"), [(0, 1), (0, 3), (0, 64), (2, 3)])
def test_features_in_the_order_of_the_source(workers: int, batch_size: int) -> None:
    found = extract(MeanColour(), Coloured(LABELS), transform, batch_size=batch_size, workers=workers)
    torch.testing.assert_close(found.cls, torch.stack([expected(index) for index in range(7)]))
    assert found.index.tolist() == list(range(7)) and found.bad == {}
    assert not found.cls.is_inference()


def test_chosen_images_in_the_given_order() -> None:
    found = extract(MeanColour(), Coloured(LABELS), transform, index=np.array([5, 0, 3]), batch_size=2)
    torch.testing.assert_close(found.cls, torch.stack([expected(index) for index in (5, 0, 3)]))
    assert found.index.tolist() == [5, 0, 3]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_named(workers: int) -> None:
    source = Coloured(LABELS, bad=(0, 2, 3))
    found = extract(MeanColour(), source, transform, batch_size=2, workers=workers)
    assert found.index.tolist() == [1, 4, 5, 6]
    assert found.bad == {"image 0": "damaged", "image 2": "damaged", "image 3": "damaged"}
    torch.testing.assert_close(found.cls[1], expected(4))


def test_nothing_readable() -> None:
    with pytest.raises(DataError, match=r"No image of coloured can be read \(image 0: damaged\)"):
        extract(MeanColour(), Coloured([0, 1], bad=(0, 1)), transform)


def test_modes_and_generators_are_left_as_they_were() -> None:
    backbone = MeanColour().train()
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    precision = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    extract(backbone, Coloured(LABELS), transform)
    assert backbone.training and backbone.dropout.training
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert precision == (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_features_are_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = extract(MeanColour(), Coloured(LABELS), transform)
    torch.testing.assert_close(found.cls[0], expected(0))


def test_progress_ends_at_the_total() -> None:
    calls: list[tuple[int, int]] = []
    extract(MeanColour(), Coloured(LABELS), transform, batch_size=3, progress=lambda *call: calls.append(call))
    assert calls == [(3, 7), (6, 7), (7, 7)]


def test_no_workers_on_a_cpu() -> None:
    assert default_workers(torch.device("cpu")) == 0
    assert 0 <= default_workers(torch.device("cuda")) <= 8
