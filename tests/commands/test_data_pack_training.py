"""What packing does to training: nothing where bytes are copied, and next to nothing where images are smaller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.commands.conftest import Ibot
from tests.data_pipeline.packing.packs import stored, write

TINY = """
views: {num_local: 2, global_size: 48, local_size: 24}
model: {arch: vit_tiny, patch_size: 8, width: 32, depth: 1, heads: 2}
head: {hidden_size: 32, bottleneck_size: 16}
train: {epochs: 6, batch_size: 8}
optim: {lr: 1e-3, warmup_epochs: 1}
monitor: {knn_epochs: 0, tensorboard: false}
runtime: {device: cpu, precision: fp32, threads: 1, workers: 0}
"""
MEASURED = ("speed/", "memory/", "time/")


def photographs(folder: Path) -> None:
    """Crops of the two photographs that ship with scikit-learn, as JPEG files in class folders."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    for name in ("china", "flower"):
        image = Image.fromarray(load_sample_image(f"{name}.jpg"))
        for index in range(16):
            width, height = rng.integers(260, 400, 2)
            left, top = rng.integers(0, 640 - width), rng.integers(0, 427 - height)
            crop = image.crop((left, top, left + width, top + height))
            write(folder / name / f"crop.{index}.jpg", stored(crop, "JPEG", quality=95))


def records(run: Path) -> list[dict[str, Any]]:
    """What a run recorded of every step and epoch, times left out."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{key: v for key, v in json.loads(line).items() if not key.startswith(MEASURED)} for line in lines]


@pytest.mark.slow
def test_copied_shards_train_alike_bit_by_bit_and_smaller_images_nearly(
    ibot: Ibot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "tiny.yaml", TINY.encode())
    photographs(tmp_path / "folder")
    packs = {"copied": ["--copy", "--shard-size", "300KB"], "smaller": ["--short-side", "160"]}
    for name, options in packs.items():
        assert ibot("data", "pack", "folder", name, "--workers", "0", *options).code == 0
    assert len(list((tmp_path / "copied").glob("*.tar"))) > 2
    runs = {}
    for name in ("folder", *packs):
        assert ibot("pretrain", name, "--config", "tiny.yaml", "--out", f"runs/{name}").code == 0
        runs[name] = records(tmp_path / "runs" / name)
    assert sum("loss/total" in record for record in runs["folder"]) == 24
    assert runs["copied"] == runs["folder"]
    assert runs["smaller"] != runs["folder"]
    last = {name: np.mean([r["loss/total"] for r in run if "loss/total" in r][-4:]) for name, run in runs.items()}
    assert abs(last["smaller"] / last["folder"] - 1) < 0.02
