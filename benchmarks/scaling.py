"""Time and memory of a training step against batch, local crops, image size and number of prototypes.

    python benchmarks/scaling.py [--axes batch local tokens prototypes] [--rounds 5] [--batch 4] [--threads N]
                                 [--device cpu|cuda] [--set PATH=VALUE ...] [--plot DIR] [--json]

The step is that of `ibot pretrain` for a preset with synthetic views. Along each axis all sizes take turns in one
process; memory is measured in fresh processes. The last line of the output is one JSON object: for each axis the sizes,
median seconds, GiB, and how far time and memory lie from a straight line. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; read when torch is imported

import numpy as np
import torch

from benchmarks import memory
from benchmarks.step import keep_freed_memory, rounded, seconds_of
from ibot_cli.core.arithmetic import float32_products
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.bench.measure import POOL
from ibot_cli.train.bench.setup import Bench, prepare_bench
from ibot_cli.train.loop import Loop
from ibot_cli.train.reporter import Silent
from ibot_cli.train.request import Request
from ibot_cli.visualize.curves import Chart, Curve, write_picture

PATCH, GIB = 16, 2**30
# The published share of masked patches on average, the same in every step, so that sizes differ in one thing only.
FIXED = ("mask.kind=random", "mask.ratio=0.15", "mask.ratio_var=0")


class Axis(NamedTuple):
    """One direction in which a step can grow.

    Attributes:
        name: Of what changes, for a chart.
        sizes: The values.
        setting: From a value to the setting.
    """

    name: str
    sizes: Sequence[int]
    setting: Callable[[int], str]


AXES = {
    "batch": Axis("images per step", (1, 2, 4, 8, 12, 16), lambda size: f"train.batch_size={size}"),
    "local": Axis("local crops", (0, 2, 4, 6, 8, 10, 12), lambda size: f"views.num_local={size}"),
    "tokens": Axis(
        "patches per global view", (36, 64, 100, 144, 196, 256), lambda size: f"views.global_size={PATCH * root(size)}"
    ),
    "prototypes": Axis("prototypes", (1024, 8192, 16384, 32768, 65536, 131072), lambda size: f"head.prototypes={size}"),
}


def root(size: int) -> int:
    return round(size**0.5)


def request(args: argparse.Namespace, axis: str, size: int) -> Request:
    sets = [f"train.batch_size={args.batch}", f"runtime.threads={args.threads}", *FIXED]
    return Request(preset=args.preset, device=args.device, sets=[*sets, *args.set, AXES[axis].setting(size)])


@contextmanager
def steps_of(bench: Bench) -> Iterator[Callable[[], None]]:
    """A function that makes one update of a run."""
    with tempfile.TemporaryDirectory() as place:
        loop = Loop(
            bench.plan, bench.source, RunDirectory(Path(place)), Silent(), step=bench.plan.schedule.total_steps // 2
        )
        views = cycle(list(loop.loader.steps(loop.step, loop.step + POOL)))
        yield lambda: loop.update(next(views))


def seconds_per_step(benches: Sequence[Bench], rounds: int) -> list[float]:
    """Median seconds of a step of each; they take turns."""
    from contextlib import ExitStack

    device = benches[0].plan.device
    with ExitStack() as stack:
        steps = [stack.enter_context(steps_of(bench)) for bench in benches]
        for step in steps:
            step()
        log = [[seconds_of(step, device) for step in steps] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*log, strict=True)]


def bytes_of(args: argparse.Namespace, axis: str, size: int) -> int:
    """Bytes of networks, optimiser and two steps, measured in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", axis, str(size), "--batch", str(args.batch)]
    command += ["--device", args.device, "--threads", str(args.threads), "--preset", args.preset]
    command += [part for text in args.set for part in ("--set", text)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def memory_of(bench: Bench) -> int:
    def work() -> None:
        with steps_of(bench) as step:
            step()
            step()

    return memory.added_by(work, bench.plan.device)


def off_a_line(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The largest distance from the straight line of least relative squares, as a share of the value."""
    x, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    slope, start = np.polyfit(x, y, 1, w=1 / y)
    return float(np.max(np.abs(slope * x + start - y) / y))


def measured(axis: str, args: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything about one axis."""
    sizes = args.sizes or AXES[axis].sizes
    gib = [bytes_of(args, axis, size) / GIB for size in sizes]
    keep_freed_memory()
    seconds = seconds_per_step([prepare_bench(request(args, axis, size)) for size in sizes], args.rounds)
    for row in zip(sizes, seconds, gib, strict=True):
        say(f"{AXES[axis].name} {row[0]:>7,}: {row[1]:8.3f} s  {row[2]:6.2f} GiB")
    return {
        "sizes": list(sizes),
        "seconds": seconds,
        "gib": gib,
        "seconds_off_a_line": off_a_line(sizes, seconds),
        "gib_off_a_line": off_a_line(sizes, gib),
    }


def plot(folder: Path, axis: str, found: dict[str, Any]) -> Path:
    """Time and memory against the sizes, one above the other."""
    charts = [
        Chart(
            f"{what} of a step", [Curve("", list(zip(found["sizes"], found[key], strict=True)))], AXES[axis].name, unit
        )
        for what, key, unit in (("time", "seconds", "s"), ("memory", "gib", "GiB"))
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scaling_{axis}.svg"
    write_picture(path, charts)
    return path


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES), help="default all")
    parser.add_argument("--sizes", nargs="+", type=int, help="other sizes of a single axis")
    parser.add_argument("--preset", default="ibot_vits16")
    parser.add_argument("--set", action="append", default=[], help="a setting, as of ibot pretrain")
    parser.add_argument("--batch", type=int, default=4, help="images per step, where another thing changes")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps of each size")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write charts into this folder")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.sizes and len(args.axes) > 1:
        parser.error("--sizes belong to one of --axes")
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(memory_of(prepare_bench(request(args, args.memory_of[0], int(args.memory_of[1])))))
        return

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    result: dict[str, Any] = {"preset": args.preset, "batch": args.batch, "threads": args.threads, "set": args.set}
    for axis in args.axes:
        with float32_products():
            result[axis] = measured(axis, args, say)
        if args.plot:
            say(f"wrote {plot(args.plot, axis, result[axis])}")
    result |= {"device": args.device, "torch": torch.__version__}
    print(json.dumps({key: rounded(value) for key, value in result.items()}))


if __name__ == "__main__":
    main()
