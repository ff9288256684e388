"""Continued pre-training: starts at the k-NN of its weights, and does not lose it.

    python benchmarks/continued.py runs/demo [--seeds 3] [--epochs 20] [--out FOLDER]

RUN is a finished run of the digits demonstration. Its teacher is exported as a timm folder, without a head, and
pre-training goes on from that folder on builtin:digits, so the head is new and learns alone at first. The k-NN accuracy
on the 360 test digits (k = 20, features of the teacher) is measured before the first step, when the backbone thaws,
after the warm-up and at the end. Random weights, those of the baseline of `ibot knn-eval`, are exported and started
from too. About three minutes of one core; the last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

import torch
import yaml

from ibot_cli.evaluate.baselines import SEEDS, random_network
from ibot_cli.evaluate.knn.protocol import evaluate_knn
from ibot_cli.runs import checkpoint
from ibot_cli.runs.checkpoint import paths
from ibot_cli.train.launch import execute, prepare
from ibot_cli.train.reporter import Silent
from ibot_cli.train.request import Request
from ibot_cli.weights.load import load_weights

DATA = "builtin:digits"


def accuracy(weights: str | Path) -> float:
    """Test top-1 in percent."""
    return 100 * evaluate_knn(load_weights(str(weights)), DATA, ks=(20,), baselines=False).result.top1


def exported(weights: Path, out: Path) -> Path:
    """A timm folder of the teacher."""
    command = [sys.executable, "-m", "ibot_cli", "export", str(weights), "--to", "timm", "--out", str(out)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return out


def random_checkpoint(run: Path, seed: int, out: Path) -> Path:
    """The newest checkpoint of a run with a teacher of random weights, that of the baseline of `ibot knn-eval`."""
    found = checkpoint.latest(run / "checkpoints")
    assert found is not None
    fresh = random_network(load_weights(str(run)).rebuild, seed).state_dict()
    teacher = found.state["teacher"]
    teacher = {**teacher, **{f"backbone.{name}": value for name, value in fresh.items()}}
    checkpoint.save(out, {**found.state, "teacher": teacher}, step=0, epoch=0)
    return out


def continued(weights: Path, out: Path, *sets: str) -> dict[str, Any]:
    """Accuracies of one continued run, and what its plan chose."""
    settings = ["train.checkpoint_epochs=1", "train.keep_last=1000", "monitor.tensorboard=false", *sets]
    prepared = prepare(Request(data=DATA, init=str(weights), sets=settings, out=out))
    execute(prepared, Silent())
    per_epoch = prepared.plan.schedule.steps_per_epoch
    config = yaml.safe_load((out / "config.yaml").read_text())
    frozen, warmup = config["init"]["freeze_backbone_epochs"], config["optim"]["warmup_epochs"]
    files = paths(out / "checkpoints")
    moments = {"start": 0, "thaw": frozen, "warm": frozen + warmup, "end": len(files) - 1}
    by_step = {int(path.name.removeprefix("step-").split(".")[0]): path for path in files}
    values = {name: accuracy(by_step[epoch * per_epoch]) for name, epoch in moments.items()}
    beginning = prepared.beginning
    assert beginning is not None
    return {**values, "epochs": moments, "head": beginning.record()["head"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--out", type=Path, help="Keep the runs here.")
    parser.add_argument("--set", action="append", default=[], dest="sets", help="Another setting of the runs.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        print(json.dumps(measure(arguments, arguments.out or Path(temporary))))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The figures, and what they were to show."""
    folder.mkdir(parents=True, exist_ok=True)
    demo = evaluate_knn(load_weights(str(arguments.run)), DATA, ks=(20,)).result
    weights = exported(arguments.run, folder / "timm")
    runs = []
    for seed in range(arguments.seeds):
        sets = [f"train.epochs={arguments.epochs}", f"train.seed={seed}", "runtime.threads=1", *arguments.sets]
        runs.append(continued(weights, folder / f"seed{seed}", *sets))
        print(f"seed {seed}: {runs[-1]}", flush=True)
    random = []
    for seed in SEEDS:
        fresh = exported(random_checkpoint(arguments.run, seed, folder / f"random{seed}.pt"), folder / f"random{seed}")
        sets = ["train.epochs=1", "runtime.threads=1", "init.freeze_backbone_epochs=0"]
        random.append(continued(fresh, folder / f"from_random{seed}", *sets)["start"])
    means = {name: mean(run[name] for run in runs) for name in ("start", "thaw", "warm", "end")}
    top1, baseline = 100 * demo.top1, 100 * (demo.baseline_random or 0.0)
    return {
        "demo": top1,
        **means,
        "runs": runs,
        "random_baseline": baseline,
        "random_start": mean(random),
        "starts_where_the_weights_are": abs(means["start"] - top1) <= 2,
        "keeps_what_the_weights_know": min(means["warm"], means["end"]) >= top1 - 1,
        "random_weights_start_at_the_baseline": abs(mean(random) - baseline) <= 2,
    }


if __name__ == "__main__":
    main()
