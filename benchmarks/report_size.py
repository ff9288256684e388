"""Size and time of `ibot report` on many photographs.

    python benchmarks/report_size.py [--images 5000] [--arch vit_tiny] [--size 224] [--steps 100000]

The photographs are noisy crops of the two that ship with scikit-learn, so that no two are alike and none compresses
well; a fifth of them are the test part. The run has fresh weights and `--steps` lines of metrics, and no features of it
are cached. The last line of the output is one JSON object; `megabytes` is the claim.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

WIDTH, HEIGHT = 400, 300


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options, Path(folder))
    if not options.json:
        print(
            f"{options.images:,} photographs, {options.arch} at {options.size} pixels, {options.steps:,} steps: "
            f"{found['megabytes']:.1f} MB in {found['seconds']:.0f} s on {options.device}"
        )
    print(json.dumps(found))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--images", type=int, default=5000)
    found.add_argument("--classes", type=int, default=20)
    found.add_argument("--arch", default="vit_tiny")
    found.add_argument("--size", type=int, default=224, help="side of the network's images in pixels")
    found.add_argument("--steps", type=int, default=100_000, help="recorded steps of training")
    found.add_argument("--device", default="cpu")
    found.add_argument("--json", action="store_true", help="only the JSON line")
    return found


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Bytes and seconds of one report, its images, weights and records made before."""
    from ibot_cli.visualize.report.report import write_report
    from ibot_cli.visualize.report.samples.options import SampleOptions

    write_photographs(folder / "photos", options.images, options.classes)
    write_run(folder / "run", folder / "photos", options)
    began = time.perf_counter()
    samples = SampleOptions(device=options.device, cache=False)
    written = write_report(folder / "run", samples=samples)
    return {
        "images": options.images,
        "arch": options.arch,
        "size": options.size,
        "steps": options.steps,
        "device": options.device,
        "megabytes": written.size / 1e6,
        "seconds": time.perf_counter() - began,
        "sections": list(written.sections),
    }


def write_photographs(root: Path, images: int, classes: int) -> None:
    """JPEG files in class folders of a training and a test part."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    photographs = [Image.fromarray(each) for each in load_sample_images().images]
    for number in range(images):
        part = "val" if number % 5 == 0 else "train"
        place = root / part / f"class {number // 5 % classes}" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        photograph = photographs[int(rng.integers(2))]
        side = int(rng.integers(120, 427))
        left, top = rng.integers(0, 641 - side), rng.integers(0, 428 - side)
        crop = photograph.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        levels = np.asarray(crop)[:, :: rng.choice([1, -1])].astype(np.int16)
        noisy = (levels + rng.integers(-8, 9, levels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(place, quality=90)


def write_run(place: Path, data: Path, options: argparse.Namespace) -> None:
    """A run directory with fresh weights and made-up metrics."""
    import math
    from dataclasses import replace

    import torch

    from ibot_cli.config.load import flatten, to_yaml
    from ibot_cli.config.schema import Config, ModelConfig, ViewsConfig
    from ibot_cli.core.backbone import build_backbone
    from ibot_cli.core.heads import Head
    from ibot_cli.core.objective import Network
    from ibot_cli.runs.checkpoint import CheckpointStore
    from ibot_cli.runs.directory import RunDirectory

    patch = 4 if options.arch.startswith("swin") else 16
    config = replace(
        Config(),
        views=ViewsConfig(global_size=options.size, local_size=max(patch, options.size // 2)),
        model=ModelConfig(arch=options.arch, patch_size=patch),
    )
    torch.manual_seed(0)
    backbone = build_backbone(arch=options.arch, image_size=options.size, patch_size=patch)
    teacher = Network(backbone, Head(backbone.dim, 1024)).state_dict()
    run = RunDirectory.create(place)
    run.write_config(to_yaml(config))
    run.write_data({"data": str(data), "name": "photos", "num_images": options.images, "fingerprint": "", "notes": []})
    records = (
        {"step": step, "loss/total": 4 + math.exp(-step / 1000), "loss/cls": 2.0, "loss/patch": 2 + math.sin(step) / 9}
        for step in range(1, options.steps + 1)
    )
    run.metrics.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    CheckpointStore(run.checkpoints).save({"config": flatten(config), "teacher": teacher}, step=options.steps, epoch=1)


if __name__ == "__main__":
    main()
