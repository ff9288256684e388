"""Our training step against the authors' cost structure and against the machine's own matrix products.

    python benchmarks/step.py [--batch 8] [--rounds 5] [--threads N] [--device cpu|cuda] [--json]

The last line of the output is one JSON object. What is measured, and how, is in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does; read when torch is imported

import numpy as np
import torch

from benchmarks import baseline_step, memory
from benchmarks.flops import Workload, baseline_flops, step_flops, step_products
from ibot_cli.core.backbone import build_backbone, drop_path_factors
from ibot_cli.core.batch import Batch
from ibot_cli.core.heads import Head
from ibot_cli.core.masking import MaskSampler
from ibot_cli.core.objective import Network, Now, Objective
from ibot_cli.core.optim import build_optimizer
from ibot_cli.train.bench.peak import gemm_rate, seconds_of
from ibot_cli.train.machine import has_native_bf16
from ibot_cli.train.step import StepSettings, train_step

Step = Callable[[Batch], None]

MASKS = MaskSampler(grid=14, kind="block", ratio=(0.0, 0.3), ratio_var=(0.0, 0.2))
DROP_PATH, DEPTH, PROTOTYPES = 0.1, 12, 8192
SCHEDULE = {"lr": 1e-5, "weight_decay": 0.04, "teacher_temp": 0.04, "teacher_patch_temp": 0.04}
WAYS = ("fp32", "bf16", "fp32_checkpointing", "bf16_checkpointing")  # of our side
VOID_BELOW = 0.45
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def make_batch(images: int, seed: int, device: torch.device) -> Batch:
    """Random views of 2 x 224 and 10 x 96 pixels with published masks."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    whole = torch.randn(2, images, 3, 224, 224, generator=generator)
    local = torch.randn(10, images, 3, 96, 96, generator=generator)
    mask = torch.from_numpy(np.stack([MASKS.draw(rng) for _ in range(2 * images)])).reshape(2, images, -1)
    return Batch.make(whole, local, mask).to(device)


def our_step(device: torch.device, dtype: torch.dtype | None, checkpointing: bool = False) -> Step:
    """The step of `ibot pretrain` for ViT-S/16, with its draw of drop-path factors."""

    def network(mask_token: bool) -> Network:
        backbone = build_backbone(arch="vit_small", image_size=224, mask_token=mask_token)
        return Network(backbone, Head(backbone.dim, PROTOTYPES))

    objective = Objective(network(True), network(False)).to(device)
    objective.student.backbone.checkpointing = checkpointing
    optimizer = build_optimizer(objective.student, betas=(0.9, 0.999), eps=1e-8)
    settings = StepSettings(clip_grad=3.0, clip_mode="tensor", dtype=dtype, average_over_ranks=lambda tensors: None)
    now = Now(**SCHEDULE, teacher_momentum=0.996, freeze_prototypes=False)
    generator = torch.Generator().manual_seed(0)

    def step(batch: Batch) -> None:
        views = len(batch.global_views) + len(batch.local_views)
        factors = drop_path_factors(DROP_PATH, DEPTH, views, batch.num_images, generator)
        drop = None if factors is None else factors.to(device, non_blocking=True)
        report = train_step(objective, optimizer, [batch.with_drop_path(drop)], now, settings)
        assert report.finite, "the step was skipped"

    return step


def their_step(device: torch.device, half: torch.dtype | None = None) -> Step:
    """The baseline for ViT-S/16."""
    sizes = baseline_step.Sizes(prototypes=PROTOTYPES, depth=DEPTH, drop_path=DROP_PATH)
    baseline = baseline_step.BaselineStep(sizes, device, half)
    now = baseline_step.Now(**SCHEDULE, teacher_momentum=0.996)

    def step(batch: Batch) -> None:
        baseline(batch.global_views, batch.local_views, batch.mask, now)

    return step


def sides(device: torch.device) -> dict[str, Callable[[], Step]]:
    """Everything that is compared, by name, in the order in which it takes turns."""
    found = {
        "baseline_fp32": lambda: their_step(device),
        "ours_fp32": lambda: our_step(device, None),
        "ours_fp32_checkpointing": lambda: our_step(device, None, checkpointing=True),
    }
    if has_native_bf16(device):
        found["ours_bf16"] = lambda: our_step(device, torch.bfloat16)
        found["ours_bf16_checkpointing"] = lambda: our_step(device, torch.bfloat16, checkpointing=True)
    if device.type == "cuda":
        found["baseline_fp16"] = lambda: their_step(device, torch.float16)
    return found


def take_turns(images: int, rounds: int, device: torch.device, say: Callable[[str], None]) -> dict[str, list[float]]:
    """Seconds per step of each side, operations, and the products' rates, round by round."""
    steps = {name: make() for name, make in sides(device).items()}
    for step in steps.values():
        step(make_batch(images, 0, device))
    dtypes = {"fp32": torch.float32} | ({"bf16": torch.bfloat16} if "ours_bf16" in steps else {})
    log: dict[str, list[float]] = {}
    for index in range(1, rounds + 1):
        batch = make_batch(images, index, device)
        work = Workload(images=images, masked=len(batch.mask_index))
        values = {name: seconds_of(partial(step, batch), device) for name, step in steps.items()}
        values |= {
            f"peak_{name}": gemm_rate(step_products(work), dtype, device, rounds=1) for name, dtype in dtypes.items()
        }
        values |= {"flops": step_flops(work), "baseline_flops": baseline_flops(work)}
        for name, value in values.items():
            log.setdefault(name, []).append(value)
        say(f"round {index}: " + "  ".join(f"{name} {values[name]:.2f} s" for name in steps))
    return log


def summary(log: dict[str, list[float]]) -> dict[str, float | bool | None]:
    """Medians over the rounds of the ratios of times, and of the shares of the best product's rate."""

    def share(side: str, flops: str, peak: str) -> float | None:
        if side not in log:
            return None
        rates = [f / s for f, s in zip(log[flops], log[side], strict=True)]
        return statistics.median(rates) / max(log[peak])

    def ratio(ours: str, theirs: str = "baseline_fp32") -> float | None:
        if not {ours, theirs} <= log.keys():
            return None
        return statistics.median(b / a for a, b in zip(log[ours], log[theirs], strict=True))

    fraction = share("baseline_fp32", "flops", "peak_fp32")
    return {
        **{f"ratio_{way}": ratio(f"ours_{way}") for way in WAYS},
        "ratio_bf16_over_baseline_fp16": ratio("ours_bf16", "baseline_fp16"),
        "gemm_fraction_fp32": share("ours_fp32", "flops", "peak_fp32"),
        "gemm_fraction_bf16": share("ours_bf16", "flops", "peak_bf16"),
        "baseline_gemm_fraction": fraction,
        "baseline_own_gemm_fraction": share("baseline_fp32", "baseline_flops", "peak_fp32"),
        "void": fraction is None or fraction < VOID_BELOW,
    }


def measure_memory(side: str, args: argparse.Namespace) -> int:
    """Bytes that two steps of `side` add, measured in a fresh process."""
    command = [sys.executable, __file__, "--memory-of", side, "--batch", str(args.batch), "--device", str(args.device)]
    command += ["--threads", str(args.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def memory_of(side: str, images: int, device: torch.device) -> int:
    """Bytes that two steps of `side` add; the second one has the optimiser's moments beside its activations."""
    step, batch = sides(device)[side](), make_batch(images, 0, device)
    return memory.added_by(lambda: [step(batch) for _ in range(2)] and None, device)


def cpu_model() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), platform.processor())


def report(log: dict[str, list[float]], bytes_of: dict[str, int], args: argparse.Namespace) -> dict[str, object]:
    """The JSON object of the last line."""

    def memory_ratio(side: str) -> float | None:
        return bytes_of[side] / bytes_of["baseline_fp32"] if {side, "baseline_fp32"} <= bytes_of.keys() else None

    device = torch.device(args.device)
    native = "ours_bf16" in log
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()
    timed = [side for side in log if side.startswith(("ours", "baseline_fp"))]
    result = {
        **summary(log),
        **{f"memory_ratio_{way}": memory_ratio(f"ours_{way}") for way in WAYS},
        "bf16_native": native,
        "bf16_note": None if native else "this device has no native bf16 products, so bf16 was not measured",
        "device": f"{device.type}: {name}",
        "batch": args.batch,
        "rounds": args.rounds,
        "threads": args.threads,
        "median_seconds": {side: statistics.median(log[side]) for side in timed},
        "seconds": {side: log[side] for side in timed},
        "memory_gib": {side: value / 2**30 for side, value in bytes_of.items()},
        "peak_gflops": {key[5:]: max(log[key]) / 1e9 for key in log if key.startswith("peak_")},
        "gflop": statistics.median(log["flops"]) / 1e9,
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
    }
    return {key: rounded(value) for key, value in result.items()}


def rounded(value: object) -> object:
    """Floats to four significant digits, also inside lists and dicts."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    if isinstance(value, float) and value and math.isfinite(value):
        return round(value, 3 - math.floor(math.log10(abs(value))))
    return value


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="images per step")
    parser.add_argument("--rounds", type=int, default=5, help="timed steps per side")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory of the sides")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.device == "auto":
        args.device = "cuda" if torch.cuda.is_available() else "cpu"
    return args


def keep_freed_memory() -> None:
    """Tells glibc to reuse large blocks instead of returning them to the system.

    Otherwise the baseline's large tensors are mapped and zeroed anew at every use, which costs it some 5 % here and
    would not on a GPU, whose allocator keeps its blocks; that is not what this comparison is about.
    """
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(parameter, 2**31 - 1)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    if args.memory_of:
        print(memory_of(args.memory_of, args.batch, device))
        return

    def say(text: str) -> None:
        if not args.json:
            print(text, flush=True)

    say(f"ViT-S/16, 2 x 224 + 10 x 96, K = {PROTOTYPES}, batch {args.batch}, {args.threads} threads")
    bytes_of = {} if args.no_memory else {side: measure_memory(side, args) for side in sides(device)}
    keep_freed_memory()
    log = take_turns(args.batch, args.rounds, device, say)
    result = report(log, bytes_of, args)
    if result["void"]:
        say(f"VOID: the baseline reached less than {VOID_BELOW} of the peak; something else used the machine.")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
