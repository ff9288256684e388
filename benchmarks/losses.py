"""The losses from bottlenecks to gradients, in chunks of rows, against the plain formulas on whole tables of scores.

    python benchmarks/losses.py [--batch 8] [--prototypes 1024 8192 65536 131072] [--balance center|sinkhorn]

Rows are those of two global and ten local views with 15 % of the patches masked; times are medians over the rounds of
both sides in turn, memory is what one call adds in a process of its own. The last line of the output is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import memory
from ibot_cli.core.losses import Lesson, cross_view_weights, match
from ibot_cli.core.targets import Scores, center_offset, sinkhorn_offset

GLOBAL, VIEWS, PATCHES, MASKED, BOTTLENECK = 2, 12, 196, 0.15, 256
TEACHER_TEMP, TEMP, ITERATIONS = 0.04, 0.1, 3


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Bottlenecks and prototypes of both networks, and the weights of the masked patches."""

    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    weight: Tensor
    teacher_weight: Tensor
    center: Tensor
    weights: dict[str, Tensor]

    @classmethod
    def draw(cls, images: int, prototypes: int) -> Rows:
        """Random unit vectors for so many images."""
        generator = torch.Generator().manual_seed(0)
        masked = round(MASKED * PATCHES * GLOBAL * images)

        def unit(*shape: int) -> Tensor:
            return functional.normalize(torch.randn(*shape, BOTTLENECK, generator=generator), dim=-1)

        cls_weights = cross_view_weights(GLOBAL, VIEWS, images, torch.zeros(()))
        return cls(
            student={"cls": unit(VIEWS, images).requires_grad_(), "patch": unit(1, masked).requires_grad_()},
            teacher={"cls": unit(GLOBAL, images), "patch": unit(1, masked)},
            weight=unit(prototypes).requires_grad_(),
            teacher_weight=unit(prototypes),
            center=torch.zeros(1, prototypes),
            weights={"cls": cls_weights, "patch": torch.full((masked,), 1 / masked)},
        )

    def clear(self) -> None:
        """Forgets the gradients."""
        for tensor in (*self.student.values(), self.weight):
            tensor.grad = None


def chunked(rows: Rows, balance: str) -> Tensor:
    """As the objective does it."""
    losses = []
    for slot, student in rows.student.items():
        scores = Scores.of(rows.teacher[slot], rows.teacher_weight, TEACHER_TEMP)
        offset = center_offset(rows.center, TEACHER_TEMP)
        if balance == "sinkhorn":
            offset = sinkhorn_offset(scores, torch.ones_like(rows.weights[slot]), ITERATIONS)
        lesson = Lesson(scores=scores, offset=offset, weights=rows.weights[slot], same=slot == "patch")
        losses.append(match(student, rows.weight, lesson, TEMP).loss)
    return torch.stack(losses).sum()


def plain(rows: Rows, balance: str) -> Tensor:
    """Scores of all rows, targets of all rows, and autograd."""
    losses = []
    for slot, student in rows.student.items():
        with torch.no_grad():
            scores = (rows.teacher[slot] @ rows.teacher_weight.t()).float() / TEACHER_TEMP
            target = plain_target(scores, rows, balance)
            target.sum((0, 1)), torch.xlogy(target, target).sum(), target.argmax(-1)  # what is reported
        log_student = torch.log_softmax((student @ rows.weight.t()).float() / TEMP, dim=-1)
        matched = (target.sum(0) * log_student.sum(0)).sum(-1)
        if slot == "cls":
            matched = matched - (target * log_student[:GLOBAL]).sum((0, 2))
        losses.append(-(rows.weights[slot] * matched).sum())
    return torch.stack(losses).sum()


def plain_target(scores: Tensor, rows: Rows, balance: str) -> Tensor:
    if balance == "center":
        return torch.softmax(scores - rows.center / TEACHER_TEMP, dim=-1)
    table = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    for _ in range(ITERATIONS):
        table = table / table.sum(dim=(0, 1)).clamp(min=1e-38)
        table = table / table.sum(dim=-1, keepdim=True)
    return table


SIDES: dict[str, Callable[[Rows, str], Tensor]] = {"plain": plain, "chunked": chunked}


def run(side: str, rows: Rows, args: argparse.Namespace) -> None:
    rows.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16) if args.bf16 else nullcontext():
        loss = SIDES[side](rows, args.balance)
    loss.backward()


def memory_of(side: str, prototypes: int, args: argparse.Namespace) -> int:
    """Bytes that one call adds, in a fresh process."""
    options = ["--memory-of", side, "--prototypes", str(prototypes), "--batch", str(args.batch)]
    options += ["--balance", args.balance, "--threads", str(args.threads)] + ["--bf16"] * args.bf16
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def seconds(prototypes: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """Of every round, both sides in turn."""
    rows = Rows.draw(args.batch, prototypes)
    log: dict[str, list[float]] = {side: [] for side in SIDES}
    for index in range(args.rounds + 1):
        for side, times in log.items():
            start = time.perf_counter()
            run(side, rows, args)
            if index:
                times.append(time.perf_counter() - start)
    return log


def measure(prototypes: int, args: argparse.Namespace) -> dict[str, float]:
    """Time, memory and their ratios, plain over chunked."""
    log = seconds(prototypes, args)
    added = {side: memory_of(side, prototypes, args) / 2**20 for side in SIDES}
    return {
        "prototypes": prototypes,
        **{f"ms_{side}": round(1e3 * statistics.median(times), 2) for side, times in log.items()},
        "time_ratio": round(statistics.median(a / b for a, b in zip(log["plain"], log["chunked"], strict=True)), 3),
        **{f"mib_{side}": round(value, 1) for side, value in added.items()},
        "memory_ratio": round(added["plain"] / added["chunked"], 2),
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--prototypes", type=int, nargs="+", default=[1024, 8192, 65536, 131072], help="K")
    parser.add_argument("--balance", choices=["center", "sinkhorn"], default="center")
    parser.add_argument("--bf16", action="store_true", help="products under bf16 autocast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--memory-of", choices=list(SIDES), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    if args.memory_of:
        rows = Rows.draw(args.batch, args.prototypes[0])
        print(memory.added_by(lambda: run(args.memory_of, rows, args), torch.device("cpu")))
        return
    found = []
    for prototypes in args.prototypes:
        found.append(measure(prototypes, args))
        print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    result = {"batch": args.batch, "balance": args.balance, "bf16": args.bf16, "threads": args.threads}
    print(json.dumps({**result, "torch": torch.__version__, "sizes": found}))


if __name__ == "__main__":
    main()
