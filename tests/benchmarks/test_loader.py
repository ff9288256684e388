"""The benchmark of loading compares like with like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import loader, pil_views
from ibot_cli.config.schema import ViewsConfig
from ibot_cli.data.transform import IMAGENET

PLAIN = ViewsConfig(
    num_local=1, global_size=32, local_size=16, global_scale=(1.0, 1.0), flip_prob=0.0, jitter_prob=0.0, gray_prob=0.0,
    blur_prob_first=0.0, blur_prob_other=0.0, blur_prob_local=0.0, solarize_prob=0.0,
)  # fmt: skip


def test_the_reference_gives_normalised_crops(tmp_path: Path) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    pil_views.seed(0)
    views = pil_views.PilViews(replace(PLAIN, aspect=(1.0, 1.0)))(tmp_path / "a.png")
    assert [tuple(view.shape) for view in views] == [(3, 32, 32)] * 2 + [(3, 16, 16)]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET[3])
    whole = np.asarray(Image.fromarray(levels).resize((32, 32), Image.Resampling.BICUBIC))
    expected = (torch.from_numpy(whole.copy()).permute(2, 0, 1) / 255 - mean) / std
    assert torch.allclose(views[0], expected, atol=1e-6) and torch.equal(views[0], views[1])


def test_the_reference_changes_as_often_as_asked(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (200, 30, 90)).save(tmp_path / "a.png")
    certain = replace(PLAIN, gray_prob=1.0, solarize_prob=1.0)
    first, other, local = pil_views.PilViews(certain)(tmp_path / "a.png")
    gray = (200 * 299 + 30 * 587 + 90 * 114) // 1000
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in IMAGENET[3])
    for view, level in ((first, gray), (other, gray), (local, gray)):
        assert torch.allclose(view * std + mean, torch.tensor(level / 255), atol=0.01)
    bright = replace(certain, solarize_threshold=50)
    assert torch.allclose(
        pil_views.PilViews(bright)(tmp_path / "a.png")[1] * std + mean, torch.tensor(1 - gray / 255), atol=0.01
    )


@pytest.mark.slow
def test_the_images_are_the_same_each_time(tmp_path: Path) -> None:
    first, second = (loader.make_images(tmp_path / name, 1)[0] for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.size == (500, 375) and image.format == "JPEG"
    assert 90_000 < first.stat().st_size < 130_000


@pytest.mark.slow
def test_figures(tmp_path: Path) -> None:
    paths = loader.make_images(tmp_path / "images", 2)
    figures = loader.compare(tmp_path / "images", block=2, rounds=1)
    assert 0.25 < figures["bytes_ratio"] < 1 / 3.5
    assert {"ratio_worker", "ratio_total", "pillow", "reference_images_per_second"} <= set(figures)
    loader.link_images(tmp_path / "links", paths, 5)
    assert len(list((tmp_path / "links").rglob("*.jpg"))) == 5
