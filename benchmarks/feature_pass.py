"""The feature pass: what its cache costs and saves, what several poolings cost together, and its memory.

    python benchmarks/feature_pass.py [--images 512] [--rounds 3] [--arch vit_small] [--size 64] [--rows 50000]

Round by round the same images go through the same network: for `cls` without a cache, with a new cache, and from that
cache; for the poolings of all published protocols at once, and for each by itself. The memory is that of a fresh
process which caches `--rows` features of 3,072 numbers. The last line of the output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PUBLISHED = ("cls", "cls4", "cls+mean", "rawmean")
GIB = 2**30


def main() -> None:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"XDG_CACHE_HOME": folder, "IBOT_CACHE_GIB": "1000"}
        if options.child:
            print(json.dumps(memory(options)))
            return
        rounds = [ratios(options) for _ in range(options.rounds)]
        found: dict[str, Any] = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
        command = [sys.executable, str(Path(__file__).resolve()), "--child", *sys.argv[1:]]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found |= json.loads(lines[-1]) | {"arch": options.arch, "size": options.size, "images": options.images}
    if not options.json:
        print(
            f"a new cache takes {found['new_over_none']:.3f} times as long as none, "
            f"a full one {found['hit_over_none']:.4f}\n"
            f"all published poolings at once: {found['together_over_cls']:.3f} times cls alone; "
            f"one by one: {found['apart_over_cls']:.2f}\n"
            f"caching {found['table_gib']:.2f} GiB of features took {found['memory_gib']:.2f} GiB of memory"
        )
    print(json.dumps(found))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--images", type=int, default=512)
    found.add_argument("--rounds", type=int, default=3)
    found.add_argument("--arch", default="vit_small")
    found.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    found.add_argument("--rows", type=int, default=50_000)
    found.add_argument("--device", default="cpu")
    found.add_argument("--json", action="store_true", help="only the JSON line")
    found.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return found


def ratios(options: argparse.Namespace) -> dict[str, float]:
    """One round; every figure is over the time of `cls` without a cache."""
    from ibot_cli.core.backbone import build_backbone
    from ibot_cli.evaluate.features import feature_pass

    model = loaded(build_backbone(arch=options.arch, image_size=options.size), options.size)
    source = noise(options.images, options.size)

    def seconds(poolings: tuple[str, ...], cache: bool) -> float:
        began = time.perf_counter()
        feature_pass(model, source, poolings=poolings, cache=cache, device=options.device)
        return time.perf_counter() - began

    seconds(("cls",), False)
    alone = seconds(("cls",), False)
    return {
        "new_over_none": seconds(("cls",), True) / alone,
        "hit_over_none": seconds(("cls",), True) / alone,
        "together_over_cls": seconds(PUBLISHED, False) / alone,
        "apart_over_cls": sum(seconds((pooling,), False) for pooling in PUBLISHED) / alone,
    }


def memory(options: argparse.Namespace) -> dict[str, float]:
    """Private memory that caching large features adds to this process at most."""
    from ibot_cli.evaluate.baselines import raw_pixels
    from ibot_cli.evaluate.features import feature_pass

    model = raw_pixels(loaded(None, 32))
    feature_pass(model, noise(200, 32))
    most = highest(lambda: feature_pass(model, noise(options.rows, 32), batch_size=256))
    return {"table_gib": options.rows * 3072 * 4 / GIB, "memory_gib": most / GIB}


def highest(work: Callable[[], object]) -> int:
    """Bytes of private memory that `work` adds at most, looked at every 5 ms; pages of mapped files do not count."""
    before, most, done = private(), 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, private() - before)

    thread = threading.Thread(target=watch)
    thread.start()
    work()
    done.set()
    thread.join()
    return most


def private() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("RssAnon"))) * 1024


def loaded(backbone: Any, size: int) -> Any:
    """What `load_weights` would give, with weights that no other call has."""
    from ibot_cli.weights.load import LoadedBackbone

    return LoadedBackbone(
        backbone=backbone,
        head=None,
        channels=3,
        image_size=size,
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
        crop_ratio=1.0,
        description="a benchmark",
        weights_hash=str(time.time_ns()),
        architecture="a benchmark",
        rebuild=lambda: backbone,
    )


def noise(num: int, size: int) -> Any:
    """Images that cost nothing to read, so that the pass itself shows."""
    import numpy as np
    from PIL import Image

    from ibot_cli.data.picture import ArrayPicture

    levels = np.random.default_rng(0).integers(0, 256, (64, size, size, 3), dtype=np.uint8)
    images = [Image.fromarray(each) for each in levels]

    class Noise:
        name, fingerprint, labels, classes = "noise", f"{num} {size}", None, None
        notes: tuple[str, ...] = ()

        def __len__(self) -> int:
            return num

        def read(self, index: int) -> Image.Image:
            return images[index % 64]

        def open(self, index: int) -> ArrayPicture:
            return ArrayPicture(levels[index % 64], "RGB")

        def levels(self, index: int) -> np.ndarray:
            return levels[index % 64]

        def encoded(self, index: int) -> None:
            return None

        def path(self, index: int) -> str:
            return f"noise/{index}"

    return Noise()


if __name__ == "__main__":
    main()
