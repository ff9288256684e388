from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ibot_cli.data.sources import open_source
from ibot_cli.evaluate.retrieval.duplicates import duplicates_of, identical_images
from tests.evaluate.images import Coloured


def test_nearest_row_above_the_threshold() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]])
    test = torch.tensor([[5.0, 0.1], [1.0, 1.0], [0.0, 0.3]])
    assert duplicates_of(train, test).tolist() == [0, -1, 1]
    assert duplicates_of(train, test, threshold=0.7).tolist() == [0, 0, 1]
    assert duplicates_of(train, test, threshold=0.9999).tolist() == [-1, -1, 1]
    assert duplicates_of(train, test[:0]).shape == (0,)


def test_identical_pixels_whatever_the_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    for part, images in {
        "train": {"a.png": levels // 2, "b.bmp": levels, "c.png": levels},
        "val": {"x.tiff": levels, "y.png": levels.transpose(1, 0, 2), "z.png": levels + np.uint8(1)},
    }.items():
        (tmp_path / part).mkdir()
        for name, content in images.items():
            Image.fromarray(content).save(tmp_path / part / name)
    train, test = (open_source(str(tmp_path), channels=3, split=part) for part in ("train", "test"))
    everything = np.arange(3)
    assert identical_images(train, test, everything, everything).tolist() == [1, -1, -1]
    assert identical_images(train, test, np.array([2, 0]), np.array([1, 0])).tolist() == [-1, 0]  # rows, not places


def test_unreadable_images_are_nobodys_duplicate() -> None:
    source = Coloured([0, 0, 1], bad=(1,))
    places = np.arange(3)
    assert identical_images(source, source, places, places).tolist() == [0, -1, 2]
