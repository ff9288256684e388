"""Training from JPEG files: the published loading with the authors' cost structure against `ibot pretrain`.

    python benchmarks/end_to_end.py [--images 64] [--batch 8] [--steps 3] [--rounds 3] [--workers 1] [--threads N]
                                    [--device cpu|cuda] [--json]

Both sides load the same files with the same number of processes and train a ViT-S/16 on 2 x 224 + 10 x 96 pixels. They
take turns: in every round each side starts its loader, makes one step that does not count, then some that do. The last
line of the output is one JSON object. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; read when torch is imported

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.loader import SETTLED, VIEWS, make_images
from benchmarks.pil_views import PilViews, seed
from benchmarks.step import MASKS, PROTOTYPES, keep_freed_memory, rounded, their_step
from ibot_cli.core.arithmetic import float32_products
from ibot_cli.core.batch import Batch
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.bench.setup import prepare_bench
from ibot_cli.train.loop import Loop
from ibot_cli.train.machine import has_native_bf16
from ibot_cli.train.reporter import Silent
from ibot_cli.train.request import Request

Steps = Iterator[Any]
Side = tuple[Callable[[int], Steps], Callable[[Any], None]]
"""From a number of steps to their data, and what trains on those of one step."""


class Published(Dataset[tuple[list[Tensor], Tensor]]):
    """The published views of image files, with the masks of the global ones."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths, self.views = paths, PilViews(VIEWS)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[list[Tensor], Tensor]:
        rng = np.random.default_rng(index)
        mask = np.stack([MASKS.draw(rng).reshape(-1) for _ in range(VIEWS.num_global)])
        return self.views(self.paths[index]), torch.from_numpy(mask)


def reference(paths: list[Path], args: argparse.Namespace, half: torch.dtype | None = None) -> Side:
    """The published views through torch's loader, and the baseline's step."""
    device = torch.device(args.device)
    train = their_step(device, half)

    def steps(count: int) -> Steps:
        loader = DataLoader(
            Published(paths[: count * args.batch]),
            args.batch,
            num_workers=args.workers,
            pin_memory=device.type == "cuda",
            worker_init_fn=seed,
        )
        yield from loader

    def update(data: tuple[list[Tensor], Tensor]) -> None:
        views = [view.to(device, non_blocking=True) for view in data[0]]
        whole, local = (torch.stack(part) for part in (views[: VIEWS.num_global], views[VIEWS.num_global :]))
        train(Batch.make(whole, local, data[1].transpose(0, 1).contiguous()).to(device))

    return steps, update


@contextmanager
def ours(folder: Path, args: argparse.Namespace, precision: str) -> Iterator[Side]:
    """The loader and the updates of `ibot pretrain`."""
    settings = {
        "train.batch_size": args.batch, "train.micro_batch_size": args.batch, "head.prototypes": PROTOTYPES,
        "runtime.precision": precision, "runtime.threads": args.threads, "runtime.workers": args.workers,
    }  # fmt: skip
    sets = [f"{path}={value}" for path, value in settings.items()]
    bench = prepare_bench(Request(data=str(folder), preset="ibot_vits16", device=args.device, sets=sets))
    with tempfile.TemporaryDirectory() as place:
        loop = Loop(
            bench.plan, bench.source, RunDirectory(Path(place)), Silent(), step=bench.plan.schedule.total_steps // 2
        )
        yield lambda count: loop.loader.steps(loop.step, loop.step + count), loop.update


def one_round(side: Side, steps: int, device: torch.device) -> tuple[float, float]:
    """Seconds per step after the first, and of them those in which the host waited for the loader."""
    data, update = side
    waited = begun = 0.0
    with closing(data(steps + 1)) as taken:  # type: ignore[type-var]
        for index in range(steps + 1):
            if index == 1:
                finish(device)
                begun = time.perf_counter()
            asked = time.perf_counter()
            batch = next(taken)
            waited += time.perf_counter() - asked if index else 0.0
            update(batch)
        finish(device)
        seconds = time.perf_counter() - begun
    return seconds / steps, waited / steps


def finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compare(folder: Path, paths: list[Path], args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Every side takes its turn in every round; ratios are medians over the rounds."""
    device = torch.device(args.device)
    log: dict[str, list[tuple[float, float]]] = {}
    with ExitStack() as stack, float32_products():
        sides = {"reference_fp32": reference(paths, args)}
        if device.type == "cuda":
            sides["reference_fp16"] = reference(paths, args, torch.float16)
        sides["ours_fp32"] = stack.enter_context(ours(folder, args, "fp32"))
        if has_native_bf16(device):
            sides["ours_bf16"] = stack.enter_context(ours(folder, args, "bf16"))
        for index in range(args.rounds):
            for name, side in sides.items():
                log.setdefault(name, []).append(one_round(side, args.steps, device))
            say(f"round {index + 1}: " + "  ".join(f"{name} {times[-1][0]:.2f} s" for name, times in log.items()))
    return figures(log, args.batch)


def figures(log: dict[str, list[tuple[float, float]]], images: int) -> dict[str, Any]:
    """Medians over the rounds."""

    def ratio(faster: str, slower: str) -> float | None:
        if not {faster, slower} <= log.keys():
            return None
        return statistics.median(b[0] / a[0] for a, b in zip(log[faster], log[slower], strict=True))

    return {
        "ratio_fp32": ratio("ours_fp32", "reference_fp32"),
        "ratio_bf16": ratio("ours_bf16", "reference_fp32"),
        "ratio_bf16_over_reference_fp16": ratio("ours_bf16", "reference_fp16"),
        "images_per_second": {name: images / statistics.median(t for t, _ in times) for name, times in log.items()},
        "seconds_per_step": {name: statistics.median(t for t, _ in times) for name, times in log.items()},
        "wait_share": {name: statistics.median(w / t for t, w in times) for name, times in log.items()},
        "seconds": {name: [t for t, _ in times] for name, times in log.items()},
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="JPEG files of 500 x 375 pixels, made for this")
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--steps", type=int, default=3, help="steps of a round that count")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="loader processes of each side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads of the training")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--folder", type=Path, help="where to make the files; default a temporary folder")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args(argv)
    if args.images < (args.steps + 1) * args.batch:
        parser.error(f"a round takes {(args.steps + 1) * args.batch} images")
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory(dir=args.folder) as temporary:
        root = Path(temporary)
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        paths = make_images(root / "images", args.images)
        time.sleep(SETTLED)
        result = compare(root / "images", paths, args, lambda text: None if args.json else print(text, flush=True))
    asked = {name: getattr(args, name) for name in ("batch", "steps", "rounds", "workers", "threads", "device")}
    print(json.dumps({key: rounded(value) for key, value in {**result, **asked, "torch": torch.__version__}.items()}))


if __name__ == "__main__":
    main()
