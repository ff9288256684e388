from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import WeightsError
from ibot_cli.weights.layouts.preprocessor import FILE, read_preparation

DINO = {
    "crop_size": {"height": 224, "width": 224}, "do_center_crop": True, "do_normalize": True, "do_rescale": True,
    "do_resize": True, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "resample": 3,
    "rescale_factor": 1 / 255, "size": {"shortest_edge": 256},
}  # fmt: skip


def written(folder: Path, content: dict[str, Any]) -> Path:
    (folder / FILE).write_text(json.dumps(content))
    return folder


def test_resizing_to_the_shorter_side_and_cropping(tmp_path: Path) -> None:
    found, notes = read_preparation(written(tmp_path, DINO), 3, 518)
    assert found is not None and notes == ()
    assert (found.image_size, found.crop_ratio, found.interpolation) == (224, 0.875, "bicubic")
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_squeezing_to_a_square_is_told(tmp_path: Path) -> None:
    content = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    for size in (64, {"height": 64, "width": 64}):  # of files before and after version 4.26
        found, notes = read_preparation(written(tmp_path, content | {"size": size}), 3, 32)
        assert found is not None and "squeezes images to a square" in notes[0]
        assert (found.image_size, found.crop_ratio, found.interpolation) == (64, 1.0, "bilinear")


@pytest.mark.parametrize(
    ("changes", "mean", "std"),
    [
        ({"do_normalize": False}, (0.0,) * 3, (1.0,) * 3),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, (0.5,) * 3, (0.5,) * 3),
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [51.0] * 3}, (0.5,) * 3, (0.2,) * 3),
        ({"image_mean": 0.5, "image_std": 0.25}, (0.5,) * 3, (0.25,) * 3),
    ],
)
def test_statistics_are_of_images_in_0_to_1(
    changes: dict[str, Any], mean: tuple[float, ...], std: tuple[float, ...], tmp_path: Path
) -> None:
    found, _ = read_preparation(written(tmp_path, DINO | changes), 3, 224)
    assert found is not None
    assert (found.mean, found.std) == (pytest.approx(mean), pytest.approx(std))


def test_pixels_are_those_of_the_library(tmp_path: Path) -> None:
    """Up to what PIL rounds after resizing."""
    content = DINO | {"size": {"shortest_edge": 40}, "crop_size": {"height": 28, "width": 28}}
    written(tmp_path, content | {"image_processor_type": "BitImageProcessor"})
    found, _ = read_preparation(tmp_path, 3, 28)
    assert found is not None
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8))
    ours = eval_transform(found.image_size, found.crop_ratio, 3, found.mean, found.std)(image)
    processor = transformers.AutoImageProcessor.from_pretrained(str(tmp_path), backend="pil")
    theirs = torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"])[0]
    assert (ours - theirs).abs().max() < 1e-5


def test_every_size_is_resized_to_exactly() -> None:
    from ibot_cli.weights.layouts.preprocessor import _ratio

    wrong = [
        (side, resized)
        for resized in range(1, 600)
        for side in range(1, resized + 1)
        if math.floor(side / _ratio(side, resized)) != resized
    ]
    assert not wrong


def test_without_the_file_the_user_is_told(tmp_path: Path) -> None:
    found, notes = read_preparation(tmp_path, 3, 32)
    assert found is None and "no preprocessor_config.json" in notes[0]


@pytest.mark.parametrize(
    "changes", [{"image_mean": [0.5]}, {"size": {"shortest_edge": "large"}}, {"resample": 9}, {"rescale_factor": 0}]
)
def test_what_cannot_be_understood_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"preprocessor_config\.json cannot be understood"):
        read_preparation(written(tmp_path, DINO | changes), 3, 224)
