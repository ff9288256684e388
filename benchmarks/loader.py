"""Our loading of images against the published augmentation on Pillow images, and what a worker holds of a large index.

    python benchmarks/loader.py [--images 64] [--rounds 5] [--block 16] [--index 1280000] [--folder DIR] [--json]

One thread. The last line of the output is one JSON object. What is measured, and how, is in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.pil_views import PilViews, seed
from ibot_cli.config.schema import DataConfig, MaskConfig, ViewsConfig
from ibot_cli.core.masking import MaskSampler
from ibot_cli.data.assemble import Assembler, Prepared
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.loader import ViewLoader
from ibot_cli.data.photometric import finish_views
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import ViewRecipe

T = TypeVar("T")
SIZE = (500, 375)
QUALITY, NOISE = 94, 10.0  # files of 109 kB, the mean of ImageNet is 110 kB
CLASSES = 1000
SETTLED = 3  # seconds: a folder that was written to within the last two is not kept in the cache
VIEWS = ViewsConfig()
RECIPE = ViewRecipe.from_config(VIEWS, DataConfig())
MASKS = MaskSampler(
    grid=VIEWS.global_size // 16, kind="block", ratio=MaskConfig().ratio, ratio_var=MaskConfig().ratio_var
)


def make_images(folder: Path, count: int) -> list[Path]:
    """JPEG files of 500 x 375 pixels: noisy parts of the two photographs that come with scikit-learn."""
    from sklearn.datasets import load_sample_image

    photographs = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        rng = np.random.default_rng(index)
        photograph = Image.fromarray(photographs[index % 2])
        height = int(rng.integers(240, photograph.height + 1))
        width = min(height * SIZE[0] // SIZE[1], photograph.width)
        left, top = (int(rng.integers(room + 1)) for room in (photograph.width - width, photograph.height - height))
        part = photograph.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.BICUBIC)
        noisy = np.asarray(part) + rng.normal(0, NOISE, (*SIZE[::-1], 3))
        paths.append(folder / f"{index:05d}.jpg")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=QUALITY)
    return paths


def assembler(folder: Path, decoder: str) -> Assembler:
    """The worker's part: from files to crops, changes and masks."""
    source = open_source(str(folder), channels=3, decoder=decoder)
    return Assembler(source, RECIPE, MASKS, 0, 0, 0, BadLimits(len(source), 0.0, 0))


def finish(part: Prepared) -> list[Tensor]:
    """The trainer's part: flips, colours, blur and normalisation of whole batches, here on the CPU."""
    pairs = ((part.global_levels, part.global_changes), (part.local_levels, part.local_changes))
    return [
        finish_views(
            levels.flatten(0, 1),
            changes,
            threshold=RECIPE.solarize_threshold,
            mean=RECIPE.mean,
            std=RECIPE.std,
        )
        for levels, changes in pairs
    ]


def crossing(part: Prepared) -> int:
    """Bytes that go from a worker to the trainer."""
    return sum(value.nbytes for value in vars(part).values() if isinstance(value, Tensor | np.ndarray))


def timed(work: Callable[..., T], *arguments: Any) -> tuple[float, T]:
    """Seconds and result of one call."""
    began = time.perf_counter()
    result = work(*arguments)
    return time.perf_counter() - began, result


def compare(folder: Path, *, block: int, rounds: int) -> dict[str, Any]:
    """Every side takes its turn on every block of images; ratios are medians over the blocks."""
    paths = sorted(folder.iterdir())
    theirs, decoders = PilViews(VIEWS), ["pillow"]
    try:
        import torchcodec  # noqa: F401

        decoders.append("torchcodec")
    except ImportError:
        pass
    ours = {name: assembler(folder, name) for name in decoders}
    for side in (*ours.values(), theirs):  # what is made once per process is no cost of an image
        side([(0, 0)]) if isinstance(side, Assembler) else side(paths[0])
    reference: list[float] = []
    worker: dict[str, list[float]] = {name: [] for name in decoders}
    total: dict[str, list[float]] = {name: [] for name in decoders}
    size = 0
    seed(0)
    for turn in range(rounds):
        for first in range(0, len(paths) - block + 1, block):
            keys = [(index, turn) for index in range(first, first + block)]
            reference.append(timed(lambda files: [theirs(path) for path in files], paths[first : first + block])[0])
            for name, side in ours.items():
                seconds, part = timed(side, keys)
                worker[name].append(seconds)
                total[name].append(seconds + timed(finish, part)[0])
                size = crossing(part)
    return _figures(reference, worker, total, block) | {"bytes_ratio": size / block / _float_bytes()}


def _float_bytes() -> int:
    """Bytes of an image's crops as float32."""
    return 12 * (VIEWS.num_global * VIEWS.global_size**2 + VIEWS.num_local * VIEWS.local_size**2)


def _figures(
    reference: list[float], worker: dict[str, list[float]], total: dict[str, list[float]], block: int
) -> dict[str, Any]:
    figures: dict[str, Any] = {"reference_images_per_second": block / statistics.median(reference)}
    for name in worker:
        figures[name] = {
            "worker_images_per_second": block / statistics.median(worker[name]),
            "total_images_per_second": block / statistics.median(total[name]),
            "ratio_worker": statistics.median(a / b for a, b in zip(reference, worker[name], strict=True)),
            "ratio_total": statistics.median(a / b for a, b in zip(reference, total[name], strict=True)),
        }
    best = figures["torchcodec" if "torchcodec" in worker else "pillow"]  # what `data.decoder = auto` takes
    return {"ratio_worker": best["ratio_worker"], "ratio_total": best["ratio_total"], **figures}


def link_images(folder: Path, paths: list[Path], count: int) -> None:
    """A folder of `count` images in class folders, as hard links to a few."""
    for label in range(min(CLASSES, count)):
        (folder / f"n{label:08d}").mkdir(parents=True)
    for index in range(count):
        label = index * CLASSES // count if count > CLASSES else index
        os.link(paths[index % len(paths)], folder / f"n{label:08d}" / f"n{label:08d}_{index}.jpg")


def unique_memory(folder: Path, steps: int = 12) -> dict[str, Any]:
    """Unique bytes of each of two loader processes after some steps of a run on `folder`, and the time to open it."""
    opened, source = timed(partial(open_source, channels=3), str(folder))
    recipe = ViewRecipe.from_config(ViewsConfig(num_local=2, global_size=64, local_size=32), DataConfig())
    loader = ViewLoader(source, recipe, None, grid=4, seed=0, batch_size=32, micro_batch_size=32, workers=2)
    taken = loader.steps(0, loader.steps_per_epoch)
    for _ in range(steps):
        next(taken)
    sizes = [_unique_bytes(child.pid) for child in multiprocessing.active_children() if child.pid is not None]
    taken.close()
    return {"images": len(source), "open_seconds": opened, "bytes": sizes}


def _unique_bytes(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def index_memory(folder: Path, paths: list[Path], count: int) -> dict[str, Any]:
    """What a worker holds more of `count` images than of 1,280, each in fresh processes."""
    found = {}
    for name, images in (("small", 1280), ("large", count)):
        link_images(folder / name, paths, images)
        time.sleep(SETTLED)
        for time_of in ("first", "second"):
            command = [sys.executable, __file__, "--memory", str(folder / name)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"{name} {time_of}"] = json.loads(done.stdout.splitlines()[-1])
    small, large = (max(found[f"{name} second"]["bytes"]) for name in ("small", "large"))
    return {
        "index_images": count,
        "index_uss_mib": (large - small) / 2**20,
        "worker_uss_mib": large / 2**20,
        "open_seconds": [found[f"large {time_of}"]["open_seconds"] for time_of in ("first", "second")],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block", type=int, default=16)
    parser.add_argument("--index", type=int, default=1_280_000, help="0 leaves the memory out")
    parser.add_argument("--folder", type=Path, help="where to make the files; default a temporary folder")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(json.dumps(unique_memory(options.memory)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        root = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        paths = make_images(root / "images", options.images)
        figures = {"jpeg_bytes": statistics.mean(path.stat().st_size for path in paths)}
        figures |= compare(root / "images", block=options.block, rounds=options.rounds)
        if options.index:
            figures |= index_memory(root, paths, options.index)
    if not options.json:
        for name, value in figures.items():
            print(f"{name}: {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
