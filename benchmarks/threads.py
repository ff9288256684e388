"""How much a busy process beside a small training loop costs, by threads and OpenMP wait policy.

    python benchmarks/threads.py [--seconds 3] [--json]

Runs the step of the `digits` recipe in fresh processes, alone and beside competitors that compute without pause (as
loader workers or another job do). The last line of the output is one JSON object. See docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

COMPETITOR = "while True: pass"
POLICIES = ("default", "passive", "active")
KEYS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def loop(threads: int, seconds: float) -> list[float]:
    """Seconds of each training step of the `digits` recipe's networks."""
    import torch

    from ibot_cli.core.backbone import build_backbone
    from ibot_cli.core.batch import Batch
    from ibot_cli.core.heads import Head
    from ibot_cli.core.objective import Network, Now, Objective
    from ibot_cli.core.optim import build_optimizer
    from ibot_cli.train.step import StepSettings, train_step

    torch.set_num_threads(threads)
    torch.manual_seed(0)

    def network(mask_token: bool) -> Network:
        backbone = build_backbone(
            arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=48, depth=3, heads=3, mask_token=mask_token
        )
        return Network(backbone, Head(48, 256, hidden_size=128, bottleneck_size=64, norm="batch"))

    objective = Objective(network(True), network(False), balance="sinkhorn")
    optimizer = build_optimizer(objective.student, betas=(0.9, 0.999), eps=1e-8)
    settings = StepSettings(clip_grad=3.0, clip_mode="tensor", dtype=None, average_over_ranks=lambda tensors: None)
    now = Now(
        lr=1e-4, weight_decay=0.04, teacher_temp=0.04, teacher_patch_temp=0.04, teacher_momentum=0.99,
        freeze_prototypes=False,
    )  # fmt: skip
    mask = torch.rand(2, 64, 16) < 0.3
    batch = Batch.make(torch.randn(2, 64, 1, 16, 16), torch.randn(4, 64, 1, 12, 12), mask)
    train_step(objective, optimizer, [batch], now, settings)
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        train_step(objective, optimizer, [batch], now, settings)
        times.append(time.perf_counter() - start)
    return times


@contextmanager
def competitors(num: int) -> Iterator[None]:
    """`num` processes that compute without pause meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", COMPETITOR]) for _ in range(num)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def measure(threads: int, policy: str, busy: int, seconds: float) -> float:
    """Mean seconds per step in a fresh process; the mean, because a stall is rare but long."""
    environment = {key: value for key, value in os.environ.items() if key not in KEYS}
    if policy != "default":
        environment["OMP_WAIT_POLICY"] = policy.upper()
    command = [sys.executable, __file__, "--loop", str(threads), "--seconds", str(seconds)]
    with competitors(busy):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return statistics.fmean(json.loads(done.stdout.splitlines()[-1]))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each of the loops")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--loop", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.loop:
        print(json.dumps(loop(args.loop, args.seconds)))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    result: dict[str, object] = {"cores": cores, "load_before": os.getloadavg()[0]}
    milliseconds: dict[str, float] = {}
    for busy in (0, 1):
        for threads, policy in [(1, "default"), *((cores, policy) for policy in POLICIES)]:
            name = f"threads={threads} policy={policy} busy={busy}"
            milliseconds[name] = round(1000 * measure(threads, policy, busy, args.seconds), 2)
            if not args.json:
                print(f"{name:40s} {milliseconds[name]:9.2f} ms per step", flush=True)
    print(json.dumps({**result, "milliseconds": milliseconds}))


if __name__ == "__main__":
    main()
