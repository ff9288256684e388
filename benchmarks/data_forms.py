"""The same photographs as a folder, in tar shards byte for byte, and in shards at a smaller size.

    python benchmarks/data_forms.py [--images 16] [--rounds 5] [--index 1280000] [--folder DIR] [--json]

For each size of the photographs: milliseconds of one core for the worker's part of an image (reading, decoding, all
crops of the published recipe), the forms taking turns, ratios as medians over the rounds; and bytes per image. Files
are in the system's memory, so that no disk is measured. Then the time to open `--index` images as a folder and as
shards of 1,000, the first and the second time, each in a fresh process (`cpu`: of its one core, `wall`: by the clock).
The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import numpy as np
import torch
from PIL import Image

from benchmarks.loader import NOISE, QUALITY, SETTLED, assembler, link_images, make_images, timed
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.packing.pack import pack
from ibot_cli.data.sources import known_fingerprint, open_source

SIZES = ((500, 375), (1024, 768), (4000, 3000))
PER_SHARD = 1000


def photographs(folder: Path, count: int, size: tuple[int, int]) -> None:
    """JPEG files of one size: noisy parts of the two photographs that come with scikit-learn, enlarged."""
    from sklearn.datasets import load_sample_image

    sources = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    folder.mkdir(parents=True)
    for index in range(count):
        rng = np.random.default_rng(index)
        height = int(rng.integers(240, 427))
        width = height * 4 // 3
        left, top = int(rng.integers(640 - width + 1)), int(rng.integers(427 - height + 1))
        part = sources[index % 2].crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        noisy = np.asarray(part) + rng.normal(0, NOISE, (*size[::-1], 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{index:05d}.jpg", quality=QUALITY)


def compare(root: Path, count: int, rounds: int) -> dict[str, Any]:
    """Times, ratios and bytes of each form of `count` photographs in `root / folder`."""
    for name, options in (("copied", PackOptions(copy=True)), ("packed", PackOptions())):
        pack(str(root / "folder"), root / name, options, workers=0, report=lambda *_: None)
    sides = {name: assembler(root / name, "auto") for name in ("folder", "copied", "packed")}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for side in sides.values():
        side([(0, 0)])
    for turn in range(rounds):
        for name, side in sides.items():
            seconds[name].append(timed(side, [(index, turn) for index in range(count)])[0])
    sizes = {name: sum(file.stat().st_size for file in (root / name).iterdir()) for name in sides}
    return {
        name: {
            "ms": 1e3 * statistics.median(times) / count,
            "times_as_fast": statistics.median(a / b for a, b in zip(seconds["folder"], times, strict=True)),
            "bytes": sizes[name] / count,
        }
        for name, times in seconds.items()
    }


def write_shards(folder: Path, paths: list[Path], count: int) -> None:
    """Shards of `PER_SHARD` tiny images, each with a class."""
    folder.mkdir()
    file = io.BytesIO()
    Image.open(paths[0]).resize((8, 8)).save(file, "JPEG", quality=20)
    content = file.getvalue()
    for first in range(0, count, PER_SHARD):
        with tarfile.open(folder / f"images-{first // PER_SHARD:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for index in range(first, min(first + PER_SHARD, count)):
                label = str(index * 1000 // count).encode()
                for ending, member in (("jpg", content), ("cls", label)):
                    entry = tarfile.TarInfo(f"n{int(label):08d}/n{int(label):08d}_{index}.{ending}")
                    entry.size = len(member)
                    tar.addfile(entry, io.BytesIO(member))


def opening(root: Path, count: int) -> dict[str, Any]:
    """Time to open many images, and to know their fingerprint, the first and the second time."""
    paths = make_images(root / "few", 64)
    link_images(root / "folder", paths, count)
    write_shards(root / "shards", paths, count)
    time.sleep(SETTLED)
    found: dict[str, Any] = {"images": count}
    for form in ("folder", "shards"):
        for turn in ("first", "second"):
            command = [sys.executable, __file__, "--open", str(root / form)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[f"{form} {turn}"] = json.loads(done.stdout.splitlines()[-1])
    return found


def opened(data: str) -> dict[str, float]:
    """Seconds of one opening."""
    began, busy = time.perf_counter(), time.process_time()
    source = open_source(data, channels=3)
    between, busy_between = time.perf_counter(), time.process_time()
    known_fingerprint(source)
    return {
        "open_wall": between - began,
        "open_cpu": busy_between - busy,
        "fingerprint_wall": time.perf_counter() - between,
        "fingerprint_cpu": time.process_time() - busy_between,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="photographs of each size")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--index", type=int, default=1_280_000, help="0 leaves the opening out")
    parser.add_argument("--folder", type=Path, help="where to make the files; default a temporary folder")
    parser.add_argument("--json", action="store_true", help="only the JSON object")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.open:
        print(json.dumps(opened(options.open)))
        return
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        root = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        for size in SIZES:
            name = f"{size[0]} x {size[1]}"
            photographs(root / name / "folder", options.images, size)
            figures[name] = compare(root / name, options.images, options.rounds)
        if options.index:
            figures["opening"] = opening(root, options.index)
    if not options.json:
        for name, value in figures.items():
            print(f"{name}: {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
