"""Measured mean and deviation of the channels, against those of all pixels."""

from pathlib import Path

import numpy as np
import pytest

from ibot_cli.data import channel_statistics
from ibot_cli.data.channel_statistics import has_usual_statistics, measure_statistics
from ibot_cli.data.sources import open_source
from ibot_cli.errors import DataError

tifffile = pytest.importorskip("tifffile")


def stacks(folder: Path, count: int, dtype: type = np.uint8, bands: int = 5) -> np.ndarray:
    top = np.iinfo(dtype).max // 16
    images = np.random.default_rng(1).integers(0, top, (count, 12, 14, bands), dtype=dtype)
    images[..., -1] = 7
    folder.mkdir()
    for index, image in enumerate(images):
        tifffile.imwrite(folder / f"{index:03}.tif", image, photometric="minisblack", planarconfig="contig")
    return images


@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16)])
def test_statistics_of_all_images(tmp_path: Path, dtype: type, bits: int) -> None:
    images = stacks(tmp_path / "a", 6, dtype) / (2**bits - 1)
    found = measure_statistics(open_source(str(tmp_path / "a"), channels=5, bits=bits), channels=5, bits=bits)
    np.testing.assert_allclose(found.mean, images.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(found.std[:4], images.std((0, 1, 2))[:4], rtol=1e-4)
    assert found.std[4] == 1.0  # nothing to divide by
    assert found.reason == "measured on all 6 images: there are no usual values for 5 channels"


def test_a_large_set_is_sampled_by_its_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stacks(tmp_path / "a", 20)
    source = open_source(str(tmp_path / "a"), channels=5)
    monkeypatch.setattr(channel_statistics, "SAMPLE", 4)
    first, again, other = (measure_statistics(source, channels=5, bits=8, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first.reason.startswith("measured on 4 images")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    stacks(tmp_path / "a", 2)
    source = open_source(str(tmp_path / "a"), channels=4)
    with pytest.raises(DataError, match=r"None of the 2 files .*\n.*it has 5 channels, the network sees 4") as caught:
        measure_statistics(source, channels=4, bits=8)
    assert caught.value.hint == "The run is for images of 4 channels (data.channels)."


@pytest.mark.parametrize(("channels", "bits", "usual"), [(1, 8, True), (3, 8, True), (3, 16, False), (2, 8, False)])
def test_which_images_have_usual_statistics(channels: int, bits: int, usual: bool) -> None:
    assert has_usual_statistics(channels, bits) is usual


def test_embedded_images_are_grey_or_colour() -> None:
    with pytest.raises(DataError, match="builtin:digits has images of 1 or 3 channels, not of 5") as caught:
        open_source("builtin:digits", channels=5)
    assert caught.value.hint == "Set data.channels=1 or 3, or name images of your own."


def test_embedded_images_of_16_bits_are_refused():
    with pytest.raises(DataError, match="builtin:photos has images of 8 bits, not of 16") as caught:
        open_source("builtin:photos", channels=3, bits=16)
    assert caught.value.hint == "Set data.bits=8, or name images of your own."
