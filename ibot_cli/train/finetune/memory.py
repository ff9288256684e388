"""How much memory a step of fine-tuning needs, found by running it on tensors that have shapes but no data."""

from __future__ import annotations

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.core.arithmetic import AUTOCAST
from ibot_cli.core.optim import build_optimizer
from ibot_cli.data.finetune_loader import LabelledBatch
from ibot_cli.train.budget import BUDGET, OVERHEAD, Memory, fitting_share
from ibot_cli.train.finetune.step import FinetuneStepSettings, finetune_step
from ibot_cli.train.machine import available_memory, resident_memory
from ibot_cli.train.memory import AllocationMeter
from ibot_cli.weights.finetuned import ClassifierShape


def step_bytes(shape: ClassifierShape, config: FinetuneConfig, micro_batch_size: int, micro_batches: int) -> int:
    """Largest number of bytes of all tensors during a step; two steps are followed, so that the moments are there.

    Args:
        shape: Of the classifier.
        config: With the precision decided.
        micro_batch_size: Images per forward pass.
        micro_batches: Forward passes per update, at most 2 matter.
    """
    with torch.device("meta"):
        model = shape.build()
    with FakeTensorMode(allow_non_fake_inputs=True), AllocationMeter() as meter:
        model.to_empty(device="cpu")
        model.backbone.checkpointing = config.runtime.checkpointing == "blocks"
        optimizer = build_optimizer(
            model, betas=config.optim.betas, eps=config.optim.eps, layer_decay=config.optim.layer_decay
        )
        settings = FinetuneStepSettings(
            weight_decay=config.optim.weight_decay,
            clip_grad=config.optim.clip_grad,
            dtype=AUTOCAST[config.runtime.precision or "fp32"],
            average_over_ranks=lambda tensors: None,
        )
        side, channels = shape.backbone.image_size, shape.backbone.channels
        batch = LabelledBatch(
            torch.empty(micro_batch_size, channels, side, side), torch.empty(micro_batch_size, shape.num_classes)
        )
        factors = torch.empty(model.backbone.num_blocks, 2, micro_batch_size) if config.model.drop_path > 0 else None
        for _ in range(2):
            finetune_step(model, optimizer, [(batch, factors)] * min(micro_batches, 2), 1e-4, settings)
        peak: int = meter.peak
    return peak


def decide_micro_batch(
    shape: ClassifierShape, config: FinetuneConfig, device: torch.device, rank_batch: int, want_memory: bool
) -> tuple[int, Memory | None]:
    """The given micro-batch, or the largest that fits into memory; even, so that neighbours stay together for mixing.

    Returns:
        Images per forward pass, and the estimate where it was needed or wanted.
    """
    given = config.train.micro_batch_size
    micro = min(given or rank_batch, rank_batch)
    if given is not None and not want_memory:
        return micro, None
    memory = _memory(shape, config, device, micro, -(-rank_batch // micro))
    budget = memory.available * BUDGET[device.type]
    if given is None and memory.step > budget:
        share = fitting_share(
            rank_batch, lambda images: _memory(shape, config, device, images, 2).step, budget, divides=False
        )
        micro = max(share // 2 * 2, 1)
        memory = _memory(shape, config, device, micro, -(-rank_batch // micro))
    return micro, memory


def _memory(shape: ClassifierShape, config: FinetuneConfig, device: torch.device, micro: int, passes: int) -> Memory:
    return Memory(
        base=resident_memory() if device.type == "cpu" else 0,
        step=int(step_bytes(shape, config, micro, passes) * OVERHEAD[device.type]),
        available=available_memory(device),
    )
