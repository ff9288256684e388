"""Memory and time of a large k-NN vote, beyond the features themselves; and its speed beside scikit-learn's.

    python benchmarks/knn_memory.py [--train 200000] [--test 10000] [--features 384] [--order class] [--sklearn 3]

The vote runs in a fresh process that holds nothing but the features. `--order class` sorts the training rows by class,
as folders do, so that the neighbours of an image stand together. `--sklearn R` adds R rounds with a fifth of the rows,
in each of which scikit-learn's `KNeighborsClassifier` runs right after ours; the ratio is the median over the rounds.
The last line of the output is one JSON object; `over_features_gib` is the claim.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

KS = (10, 20, 100, 200)
TEMPERATURE = 0.07
GIB = 2**30


def main() -> None:
    options = parser().parse_args()
    if options.child:
        print(json.dumps(measure(options)))
        return
    command = [sys.executable, str(Path(__file__).resolve()), "--child", *sys.argv[1:]]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    found = json.loads(lines[-1])
    if options.sklearn:
        found["speed_over_sklearn"] = statistics.median(against_sklearn(options))
    if not options.json:
        print(
            f"{options.train:,} x {options.features} training and {options.test:,} test features "
            f"({found['features_gib']:.2f} GiB) on {options.device}:\n"
            f"{found['over_features_gib']:.2f} GiB beyond them, {found['seconds']:.1f} s; "
            f"the products alone take {found['product_seconds']:.1f} s"
        )
        if options.sklearn:
            print(f"{found['speed_over_sklearn']:.1f} times as fast as scikit-learn (a single k)")
    print(json.dumps(found))


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--train", type=int, default=200_000)
    found.add_argument("--test", type=int, default=10_000)
    found.add_argument("--features", type=int, default=384)
    found.add_argument("--classes", type=int, default=1000)
    found.add_argument("--order", choices=["random", "class"], default="random")
    found.add_argument("--device", default="cpu")
    found.add_argument("--sklearn", type=int, metavar="ROUNDS", default=0)
    found.add_argument("--json", action="store_true", help="only the JSON line")
    found.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return found


def measure(options: argparse.Namespace) -> dict[str, object]:
    """Peak memory and seconds of one vote in this process."""
    import torch

    from benchmarks.memory import added_by
    from ibot_cli.evaluate.knn.vote import knn_vote

    device = torch.device(options.device)
    train, labels, test = make_features(options, options.train, options.test)
    warm = make_features(options, 300, 10)
    knn_vote(*warm, KS, TEMPERATURE, options.classes, device=device)  # libraries and thread pools exist from here on

    times: list[float] = []

    def vote() -> None:
        began = time.perf_counter()
        knn_vote(train, labels, test, KS, TEMPERATURE, options.classes, device=device)
        times.append(time.perf_counter() - began)

    added = added_by(vote, device)
    began = time.perf_counter()
    bank, queries = train.to(device), test.to(device)
    for rows in queries.split(256):
        for part in bank.split(8192):
            torch.mm(rows, part.T)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {
        "train": options.train,
        "test": options.test,
        "features": options.features,
        "classes": options.classes,
        "order": options.order,
        "device": options.device,
        "threads": torch.get_num_threads(),
        "features_gib": (train.numel() + test.numel()) * 4 / GIB,
        "over_features_gib": added / GIB,
        "seconds": times[0],
        "product_seconds": time.perf_counter() - began,
    }


def make_features(options: argparse.Namespace, num_train: int, num_test: int) -> tuple[Any, Any, Any]:
    """Training rows, their classes and test rows: noise around a centre of each class."""
    import torch

    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(options.classes, options.features, generator=generator)

    def rows(labels: torch.Tensor) -> torch.Tensor:
        found = torch.randn(len(labels), options.features, generator=generator)
        for part, some in zip(found.split(4096), labels.split(4096), strict=True):
            part += 0.3 * centres[some]
        return found

    labels = torch.randint(0, options.classes, (num_train,), generator=generator)
    if options.order == "class":
        labels = labels.sort().values
    return rows(labels), labels, rows(torch.randint(0, options.classes, (num_test,), generator=generator))


def against_sklearn(options: argparse.Namespace) -> list[float]:
    """How many times as fast we are, round by round; both give the same answers."""
    import numpy as np
    from sklearn.neighbors import KNeighborsClassifier

    from ibot_cli.evaluate.knn.vote import knn_vote

    train, labels, test = make_features(options, options.train // 5, options.test // 5)
    judge = KNeighborsClassifier(
        20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / TEMPERATURE)
    ).fit(train.numpy(), labels.numpy())
    ratios = []
    for _ in range(options.sklearn):
        began = time.perf_counter()
        ours = knn_vote(train, labels, test, [20], TEMPERATURE, options.classes)[20][:, 0]
        middle = time.perf_counter()
        theirs = judge.predict(test.numpy())
        ratios.append((time.perf_counter() - middle) / (middle - began))
        agreement = float(np.mean(ours.numpy() == theirs))
        if agreement < 0.999:
            raise SystemExit(f"the answers agree for {agreement:.2%} only")
    return ratios


if __name__ == "__main__":
    main()
