"""The linear sweep: 45 heads at once against one head, and against 45 heads one after the other.

    python benchmarks/linear_sweep.py [--rounds 7] [--threads N] [--device cpu|cuda] [--no-augmented] [--json]

Augmented: a step of ViT-S/16 (class tokens of four blocks, 1,000 classes) with 45 heads over one with a single head;
the features of a batch are computed anew for each. Cached: the steps of 45 heads at once, against 45 plain runs
(nn.Linear, cross-entropy, SGD) on the same features. Sides take turns; every figure is a median over the rounds. The
last line of the output is one JSON object, whose `cached_sweep_speedup` is for the first of `SIZES`: bf16 products with
float32 weights against a plain float32 run; `cached` has every size, and both sides in both precisions.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; read when torch is imported

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.step import cpu_model, keep_freed_memory, rounded, seconds_of
from ibot_cli.core.backbone import build_backbone
from ibot_cli.evaluate.linear.bank import HeadBank
from ibot_cli.evaluate.linear.grid import HeadSpec, head_grid
from ibot_cli.evaluate.linear.heads import initial_weight
from ibot_cli.evaluate.linear.window import STEPS
from ibot_cli.evaluate.pooling import compute_parts, parts_of
from ibot_cli.evaluate.precision import arithmetic
from ibot_cli.train.machine import has_native_bf16

Work = Callable[[], None]
Log = dict[str, list[float]]
BATCH, POOLING = 128, "cls4"
SIZES = ((1536, 1000), (1536, 100), (384, 1000), (384, 100))
ROWS = 16_384
ALONE_STEPS = 5 * STEPS  # a plain step is short, so that several are timed
MOMENTUM = 0.9


def make_bank(specs: tuple[HeadSpec, ...], dim: int, classes: int, device: torch.device, bf16: bool) -> HeadBank:
    initial = initial_weight(classes, dim, torch.Generator().manual_seed(0))
    return HeadBank(specs, initial, batch=BATCH, device=device, products=torch.bfloat16 if bf16 else None)


def augmented_window(backbone: nn.Module, bank: HeadBank, images: Tensor, labels: Tensor, precision: str) -> None:
    """As many steps as the sweep takes at once: features of each batch by the network, then the heads."""
    parts = parts_of([POOLING], backbone)
    found = []
    for _ in range(0, len(labels), BATCH):
        with arithmetic(images.device, precision):
            values = compute_parts(backbone, images, parts)
        found.append(torch.cat([values[part].float() for part in parts], dim=1))
    bank.train(torch.cat(found), labels, 1.0)


def augmented_sides(device: torch.device, precision: str) -> dict[str, Work]:
    """A window with every head, and with one."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        backbone = build_backbone(arch="vit_small", image_size=224).to(device).eval()
    # step by step in float32, a window of one step is all that is needed
    steps = STEPS if precision == "bf16" else 1
    images = torch.randn(BATCH, 3, 224, 224, generator=generator).to(device)
    labels = torch.randint(1000, (steps * BATCH,), generator=generator).to(device)
    banks = {
        name: make_bank(specs, 4 * backbone.dim, 1000, device, precision == "bf16")
        for name, specs in (("all", head_grid()), ("one", head_grid([0.1])))
    }
    return {name: partial(augmented_window, backbone, bank, images, labels, precision) for name, bank in banks.items()}


class Cached:
    """Features that are kept, and who learns from them; every call of a side takes a few steps on new rows."""

    def __init__(self, dim: int, classes: int, device: torch.device) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.features = torch.randn(ROWS, dim, generator=self.generator).to(device)
        self.labels = torch.randint(classes, (ROWS,), generator=self.generator).to(device)
        self.dim, self.classes, self.device = dim, classes, device

    def rows(self, steps: int) -> Tensor:
        """A random choice."""
        return torch.randperm(ROWS, generator=self.generator)[: steps * BATCH].to(self.device)

    def together(self, bf16: bool) -> Work:
        """All heads of the sweep."""
        bank = make_bank(head_grid(), self.dim, self.classes, self.device, bf16)

        def work() -> None:
            rows = self.rows(STEPS)
            bank.train(self.features[rows], self.labels[rows], 1e-3)

        return work

    def alone(self, bf16: bool, fused: bool) -> Work:
        """One plain head; the others would take the same time again."""
        head = nn.Linear(self.dim, self.classes).to(self.device)
        optimizer = torch.optim.SGD(head.parameters(), lr=1e-3, momentum=MOMENTUM, fused=fused or None)

        def work() -> None:
            for rows in self.rows(ALONE_STEPS).split(BATCH):
                optimizer.zero_grad()
                with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
                    logits = head(self.features[rows])
                functional.cross_entropy(logits.float(), self.labels[rows]).backward()
                optimizer.step()

        return work

    def sides(self) -> dict[str, Work]:
        """Everything that is compared."""
        found = {"sweep_fp32": self.together(False), "plain_fp32": self.alone(False, fused=False)}
        found["plain_fp32_fused"] = self.alone(False, fused=True)
        if has_native_bf16(self.device):
            found["sweep_bf16"] = self.together(True)
            found["plain_bf16"] = self.alone(True, fused=False)
            found["plain_bf16_fused"] = self.alone(True, fused=True)
        return found


def take_turns(sides: dict[str, Work], rounds: int, device: torch.device) -> Log:
    """Seconds of each side in each round, after one call that does not count."""
    log: Log = {name: [] for name in sides}
    for index in range(rounds + 1):
        for name, work in sides.items():
            seconds = seconds_of(work, device)
            if index:
                log[name].append(seconds)
    return log


def ratio(log: Log, over: str, under: str) -> float | None:
    """Median over the rounds of over / under."""
    if not {over, under} <= log.keys():
        return None
    return statistics.median(a / b for a, b in zip(log[over], log[under], strict=True))


def measure_augmented(device: torch.device, rounds: int, say: Callable[[str], None]) -> dict[str, object]:
    """Ratio and seconds in both precisions."""
    found: dict[str, object] = {}
    for precision in ("fp32", "bf16") if has_native_bf16(device) else ("fp32",):
        log = take_turns(augmented_sides(device, precision), rounds, device)
        found[precision] = {
            "over_single": ratio(log, "all", "one"),
            "seconds": {name: statistics.median(values) for name, values in log.items()},
            "steps": STEPS if precision == "bf16" else 1,
        }
        say(f"augmented, {precision}: {rounded(found[precision])}")
    return found


def measure_cached(dim: int, classes: int, device: torch.device, rounds: int) -> dict[str, object]:
    """Speed-ups of the sweep over plain runs in a row, in both precisions, and milliseconds per step of all heads."""
    log = take_turns(Cached(dim, classes, device).sides(), rounds, device)
    heads = len(head_grid())
    log = {  # milliseconds of a step of all heads
        name: [1000 * (heads * value / ALONE_STEPS if name.startswith("plain") else value / STEPS) for value in values]
        for name, values in log.items()
    }
    return {
        "dim": dim,
        "classes": classes,
        "bf16_over_plain_fp32": ratio(log, "plain_fp32", "sweep_bf16"),
        "bf16_over_plain_fp32_fused": ratio(log, "plain_fp32_fused", "sweep_bf16"),
        "bf16_over_plain_bf16": ratio(log, "plain_bf16", "sweep_bf16"),
        "bf16_over_plain_bf16_fused": ratio(log, "plain_bf16_fused", "sweep_bf16"),
        "fp32_over_plain_fp32": ratio(log, "plain_fp32", "sweep_fp32"),
        "fp32_over_plain_fp32_fused": ratio(log, "plain_fp32_fused", "sweep_fp32"),
        "milliseconds_per_step_of_all_heads": {name: statistics.median(values) for name, values in log.items()},
    }


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed rounds of every comparison")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--no-augmented", action="store_true", help="leave out the network")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    args = parser.parse_args(argv)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    keep_freed_memory()
    cached = []
    for dim, classes in SIZES:
        cached.append(measure_cached(dim, classes, device, args.rounds))
        say(f"cached, D = {dim}, C = {classes}: {rounded(cached[-1])}")
    augmented = {} if args.no_augmented else measure_augmented(device, args.rounds, say)
    first = cached[0]
    result = {
        "augmented_sweep_over_single": augmented["fp32"]["over_single"] if augmented else None,  # type: ignore[index]
        "cached_sweep_speedup": first["bf16_over_plain_fp32"] or first["fp32_over_plain_fp32"],
        "heads": len(head_grid()),
        "batch": BATCH,
        "dim": SIZES[0][0],
        "classes": SIZES[0][1],
        "bf16_native": has_native_bf16(device),
        "augmented": augmented,
        "cached": cached,
        "rounds": args.rounds,
        "threads": args.threads,
        "device": f"{device.type}: {torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_model()}",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    print(json.dumps({key: rounded(value) for key, value in result.items()}))


if __name__ == "__main__":
    main()
