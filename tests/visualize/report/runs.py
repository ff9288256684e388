"""Runs on the disk without any training: what they recorded is made up."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import resolve, to_yaml
from ibot_cli.durable import write_json
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.runs.metrics import MetricsLog

STEPS = 20  # of an epoch
BATCH = 64
Changes = Mapping[str, Any]


def pretrain_run(
    path: Path,
    *,
    epochs: int = 6,
    planned: int = 6,
    each_step: Callable[[int], Changes] = lambda step: {},
    each_epoch: Callable[[int], Changes] = lambda epoch: {},
    sets: tuple[str, ...] = (),
    command: tuple[str, ...] = ("/home/me/.venv/bin/ibot", "pretrain", "--out", "runs/digits"),
    **data: Any,
) -> Path:
    """A run on the digits; the functions give what differs from a healthy one."""
    config = resolve(preset="digits", file=None, sets=(f"train.epochs={planned}", *sets)).config
    records: list[dict[str, Any]] = []
    for epoch in range(epochs):
        records += [_step(epoch * STEPS + place, epoch, each_step) for place in range(1, STEPS + 1)]
        records.append(_epoch(epoch + 1, each_epoch))
    described = {
        "data": "builtin:digits", "name": "builtin:digits (train)", "num_images": 1437, "fingerprint": "f" * 64,
        "classes": [str(digit) for digit in range(10)], "notes": [],
    }  # fmt: skip
    return _write(path, to_yaml(config), records, described | data, command)


def finetune_run(path: Path, *, epochs: int = 4, planned: int = 4, **data: Any) -> Path:
    """A fine-tuning run on the digits that was tested every second epoch."""
    config = resolve(root=FinetuneConfig, preset="finetune_digits", file=None, sets=(f"train.epochs={planned}",)).config
    records: list[dict[str, Any]] = []
    for epoch in range(epochs):
        for step in range(epoch * STEPS + 1, (epoch + 1) * STEPS + 1):
            loss = {"loss/total": 2 / step, "loss/class": 2 / step}
            records.append({"step": step, "epoch": epoch, "lr": 1e-3, **loss, "grad_norm": 1.0, "skipped": False})
        record = {"step": (epoch + 1) * STEPS, "epochs_done": epoch + 1, "train/loss": 1 / (epoch + 1)}
        tested = {"test/top1_accuracy": 0.5 + 0.1 * epoch, "test/top5_accuracy": 1.0, "test/loss": 0.5}
        records.append({**record, **(tested if epoch % 2 else {}), "bad_files": 0, "memory/peak_gib": 1.0})
    described = {
        "task": "finetune", "data": "builtin:digits", "name": "builtin:digits (train)", "num_images": 1437,
        "num_holdout": 0, "num_test": 360, "fingerprint": "f" * 64, "classes": [str(digit) for digit in range(10)],
        "notes": [], "origin": {"weights": "runs/digits", "heads": None, "description": "teacher of runs/digits"},
    }  # fmt: skip
    command = ("/home/me/.venv/bin/ibot", "finetune", "runs/digits", "builtin:digits")
    return _write(path, to_yaml(config), records, described | data, command)


def _write(
    path: Path, config: str, records: list[dict[str, Any]], data: Mapping[str, Any], command: tuple[str, ...]
) -> Path:
    (path / "checkpoints").mkdir(parents=True)
    (path / "config.yaml").write_text(config)
    write_json(path / "data.json", data)
    packages = {"torch": "2.11.0", "numpy": "2.0.0"}
    write_json(path / "env.json", {"ibot": "0.1.0", "packages": packages, "cpu": "A processor", "command": command})
    if records:
        log = MetricsLog(path / "metrics.jsonl")
        log.append(*records)
        log.close()
        (path / "checkpoints" / f"step-{records[-1]['step']:08d}.pt").write_bytes(b"x" * 1000)
    return path


def _step(step: int, epoch: int, changes: Callable[[int], Changes]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "step": step, "epoch": epoch, "lr": 1e-3, "weight_decay": 0.04, "teacher_momentum": 0.99, "teacher_temp": 0.04,
        "teacher_patch_temp": 0.04, "loss/total": 8.0, "loss/cls": 5.0, "loss/patch": 3.0, "grad_norm": 1.0,
        "agreement": 0.5, "skipped": False,
    }  # fmt: skip
    if step % 10 == 0:
        record |= {"speed/images_per_second": 320.0, "speed/wait_share": 0.01}
    return record | changes(step)


def _epoch(epoch: int, changes: Callable[[int], Changes]) -> dict[str, Any]:
    slots = {f"{name}/{slot}": value for slot in ("cls", "patch") for name, value in _TARGETS.items()}
    record = {"step": epoch * STEPS, "epochs_done": epoch, **slots, "clusters/nmi": 0.5, "clusters/ami": 0.4}
    record |= {"knn_accuracy": min(0.5 + 0.1 * epoch, 0.9), "bad_files": 0, "memory/peak_gib": 0.5}
    return record | changes(epoch)


_TARGETS = {"target_entropy": 0.4, "marginal_entropy": 0.9, "used_prototypes": 200}


def append_line(run: Path, text: str) -> None:
    """Damage the metrics."""
    with (run / "metrics.jsonl").open("a") as file:
        file.write(text)


def rewrite(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def resume(run: Path, step: int, **changes: Any) -> None:
    """Record that the run went on, on the machine of its beginning but for the changes."""
    environment = json.loads((run / "env.json").read_text())
    command = ["/home/me/.venv/bin/ibot", environment["command"][1], "--out", str(run), "--resume"]
    time = f"2030-01-02T03:{step % 60:02d}:59+00:00"
    RunDirectory(run).append_resume(step, environment | {"command": command, "time": time} | changes)
