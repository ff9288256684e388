"""Memory of the patterns: that of the members kept, not of the images that pass.

    python benchmarks/pattern_memory.py [--images 20000] [--tokens 196] [--prototypes 8192] [--classes 0]
    python benchmarks/pattern_memory.py --whole 500 [--arch vit_small] [--size 224] [--device cpu]

The first sends made-up scores of many images through the collector, in a fresh process each for a tenth of the images
and for all of them; `growth_mb` is the claim. The second runs `find_patterns` with random weights over images made in
memory and says seconds and peak memory, that of the network and the libraries included. The last line of the output is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

BATCH = 64
GIB, MB = 2**30, 1e6


def main() -> None:
    options = parser().parse_args()
    if options.child:
        print(json.dumps(stream(options, options.child)))
        return
    if options.whole:
        found = whole(options)
        text = (
            f"{options.whole:,} images of {options.size} pixels through {options.arch} with {options.prototypes:,} "
            f"prototypes on {options.device}: {found['seconds']:.1f} s, {found['peak_gib']:.2f} GiB at most"
        )
    else:
        found = growth(options)
        text = (
            f"{options.images:,} x {options.tokens} patches, {options.prototypes:,} prototypes, "
            f"{options.top_k} members: {found['peak_mb']:.0f} MB, {found['growth_mb']:.1f} MB more than for a tenth "
            f"of the images; {1e6 * found['seconds'] / options.images:.0f} microseconds per image"
        )
    if not options.json:
        print(text)
    print(json.dumps(found))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--images", type=int, default=20_000)
    found.add_argument("--tokens", type=int, default=196)
    found.add_argument("--prototypes", type=int, default=8192)
    found.add_argument("--top-k", type=int, default=36)
    found.add_argument("--classes", type=int, default=0)
    found.add_argument("--whole", type=int, metavar="IMAGES", default=0, help="with a network, over so many images")
    found.add_argument("--arch", default="vit_small")
    found.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    found.add_argument("--device", default="cpu")
    found.add_argument("--json", action="store_true", help="only the JSON line")
    found.add_argument("--child", type=int, metavar="IMAGES", default=0, help=argparse.SUPPRESS)
    return found


def growth(options: argparse.Namespace) -> dict[str, Any]:
    """Peaks of two processes."""
    few, many = (
        json.loads(
            subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:], "--child", str(num)],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            ).stdout.splitlines()[-1]
        )
        for num in (options.images // 10, options.images)
    )
    return {
        "images": options.images,
        "tokens": options.tokens,
        "prototypes": options.prototypes,
        "top_k": options.top_k,
        "classes": options.classes,
        "peak_mb": many["added"] / MB,
        "growth_mb": (many["added"] - few["added"]) / MB,
        "seconds": many["seconds"],
        "members": many["members"],
    }


def stream(options: argparse.Namespace, num: int) -> dict[str, Any]:
    """Memory and seconds of the collector in this process, making the scores not counted in the seconds."""
    import numpy as np
    import torch

    from benchmarks.memory import added_by
    from ibot_cli.visualize.patterns.collector import Assigned, Collector

    found: dict[str, Any] = {"seconds": 0.0}

    def send(images: int) -> None:
        rng = np.random.default_rng(0)
        collector = Collector(options.prototypes, options.top_k, options.classes)
        for start in range(0, images, BATCH):
            places = np.arange(start, min(start + BATCH, images))
            shape = (len(places), options.tokens)
            # squared, so that some prototypes have many patches and others few
            prototype = (rng.random(shape) ** 2 * options.prototypes).astype(np.int64)
            made = Assigned(prototype, rng.random(shape, dtype=np.float32), rng.random(shape, dtype=np.float32))
            labels = rng.integers(0, max(1, options.classes), len(places))
            began = time.perf_counter()
            collector.add(places, made, np.zeros(shape, dtype=bool), labels)
            found["seconds"] += time.perf_counter() - began
        began = time.perf_counter()
        found["members"] = sum(len(collector.members(number)) for number in range(options.prototypes))
        found["seconds"] += time.perf_counter() - began

    send(BATCH)  # libraries exist from here on
    found["seconds"] = 0.0
    found["added"] = added_by(lambda: send(num), torch.device("cpu"))
    return found


def whole(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of `find_patterns`."""
    import torch

    from ibot_cli.core.backbone import build_backbone
    from ibot_cli.core.heads import Head
    from ibot_cli.train.machine import peak_memory
    from ibot_cli.visualize.patterns.find import find_patterns
    from ibot_cli.visualize.patterns.result import PatternOptions

    torch.manual_seed(0)
    backbone = build_backbone(arch=options.arch, image_size=options.size).eval()
    loaded = weights(backbone, Head(backbone.dim, options.prototypes).eval(), options.size)
    source = noise(options.whole, options.size)
    began = time.perf_counter()
    found = find_patterns(
        loaded, source, PatternOptions(device=options.device, top_k=options.top_k, batch_size=BATCH, min_brightness=-1)
    )
    return {
        "arch": options.arch,
        "size": options.size,
        "prototypes": options.prototypes,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "images": found.num_images,
        "patches": found.num_patches,
        "used": found.used,
        "seconds": time.perf_counter() - began,
        "peak_gib": peak_memory(torch.device(options.device)) / GIB,
    }


def weights(backbone: Any, head: Any, size: int) -> Any:
    """As if they had been loaded, with a centre."""
    import torch

    from ibot_cli.weights.load import LoadedBackbone
    from ibot_cli.weights.teacher_scale import TeacherScale

    return LoadedBackbone(
        backbone=backbone,
        head=head,
        channels=3,
        image_size=size,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        crop_ratio=1.0,
        description="random weights",
        weights_hash="",
        architecture="",
        rebuild=lambda: backbone,
        scale=TeacherScale(patch_center=torch.zeros(len(head.patch_layer.weight_v)), patch_temp=0.07),
    )


def noise(num: int, size: int) -> Any:
    """A source of images made on the fly: coarse noise, the same for the same place."""
    import numpy as np
    from PIL import Image

    from ibot_cli.data.picture import ArrayPicture, PictureSource

    class Noise(PictureSource):
        name, labels, classes, fingerprint, notes = "noise", None, None, "noise", []

        def __len__(self) -> int:
            return num

        def open(self, index: int) -> ArrayPicture:
            levels = np.random.default_rng(index).integers(0, 256, (14, 14, 3), dtype=np.uint8)
            image = Image.fromarray(levels).resize((size, size), Image.Resampling.BICUBIC)
            return ArrayPicture(np.asarray(image), "RGB")

        def path(self, index: int) -> str:
            return f"noise {index}"

    return Noise()


if __name__ == "__main__":
    main()
