"""Small real fine-tunings for the tests."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ibot_cli.config.load import flatten, to_yaml
from ibot_cli.config.schema import Config, DataConfig, HeadConfig, ModelConfig, ViewsConfig
from ibot_cli.core.backbone import build_backbone
from ibot_cli.core.heads import Head
from ibot_cli.core.objective import Network
from ibot_cli.runs.checkpoint import CheckpointStore
from ibot_cli.runs.directory import RunDirectory
from ibot_cli.train.finetune.launch import execute
from ibot_cli.train.finetune.prepare import prepare
from ibot_cli.train.finetune.request import FinetuneRequest
from ibot_cli.train.finetune.result import FinetuneResult
from ibot_cli.train.reporter import Silent
from tests.train import runs

make_images = runs.make_images

SMALL = [
    "data.eval_crop_ratio=1",
    "model.pooling=mean",
    "model.drop_path=0.2",
    "model.head_init_scale=1",
    "augment.crop_scale=0.6,1",
    "augment.auto_augment=none",
    "optim.lr=0.01",
    "optim.lr_batch_size=8",
    "optim.layer_decay=0.8",
    "optim.warmup_epochs=1",
    "train.epochs=3",
    "train.batch_size=8",
    "train.micro_batch_size=4",
    "train.log_every=2",
    "train.eval_epochs=1",
    "train.checkpoint_epochs=1",
    "runtime.device=cpu",
    "runtime.precision=fp32",
    "runtime.threads=1",
    "runtime.workers=0",
]
CONFIG = replace(
    Config(),
    data=DataConfig(channels=1, mean=(0.3,), std=(0.4,), eval_crop_ratio=1.0),
    views=ViewsConfig(global_size=16, local_size=8),
    model=ModelConfig(arch="vit_tiny", patch_size=4, width=16, depth=2, heads=2),
    head=HeadConfig(prototypes=10, hidden_size=12, bottleneck_size=6),
)


def pretrained(folder: Path, *, seed: int = 0, depth: int = 2) -> Path:
    """The run directory of a pre-training, with one checkpoint of random weights."""
    directory = RunDirectory.create(folder)
    config = replace(CONFIG, model=replace(CONFIG.model, depth=depth))
    directory.write_config(to_yaml(config))
    directory.write_data({"data": "nowhere", "fingerprint": "0", "num_images": 1})
    state: dict[str, Any] = {"config": flatten(config)}
    for name, token in (("student", True), ("teacher", False)):
        torch.manual_seed(seed)
        backbone = build_backbone(
            arch="vit_tiny", image_size=16, channels=1, patch_size=4, width=16, depth=depth, heads=2, mask_token=token
        )
        state[name] = Network(backbone, Head(16, 10, hidden_size=12, bottleneck_size=6)).state_dict()
    CheckpointStore(directory.checkpoints).save(state, step=12, epoch=1)
    return folder


def request(weights: Path | None, data: Path | None, out: Path, *sets: str, **options: Any) -> FinetuneRequest:
    resume = options.get("resume", False)
    return FinetuneRequest(
        weights=None if weights is None else str(weights),
        data=None if data is None else str(data),
        preset=options.pop("preset", None if resume else "finetune_small"),
        sets=list(sets) if resume else [*SMALL, "train.holdout_ratio=0", *sets],
        out=out,
        baselines=options.pop("baselines", False),
        **options,
    )


def finetune(weights: Path | None, data: Path | None, out: Path, *sets: str, **options: Any) -> FinetuneResult:
    return execute(prepare(request(weights, data, out, *sets, **options)), Silent())[0]


def resume(out: Path, *sets: str, **options: Any) -> FinetuneResult:
    return finetune(None, None, out, *sets, resume=True, **options)


def signal_after(step: int, number: int) -> None:
    """From now on this process gets a signal right after update `step`, before anything is written for it."""
    from ibot_cli.train.finetune.loop import FinetuneLoop

    original = FinetuneLoop._after_update

    def patched(self: FinetuneLoop, stop: Any) -> None:
        if self.step == step:
            os.kill(os.getpid(), number)
        original(self, stop)

    FinetuneLoop._after_update = patched  # type: ignore[method-assign]
