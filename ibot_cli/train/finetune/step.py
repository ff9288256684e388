"""One update of a classifier: forward, backward, clip, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from ibot_cli.core.classifier import Classifier
from ibot_cli.core.drop_path import DropPath
from ibot_cli.core.optim import apply_schedule, clip_gradients, gated_step
from ibot_cli.core.scale import LossScale, ScaleReport
from ibot_cli.data.finetune_loader import LabelledBatch
from ibot_cli.train.out_of_memory import within_memory


@dataclass(frozen=True, kw_only=True)
class FinetuneReport:
    """Numbers of one step, all still on the device.

    Attributes:
        loss: Cross-entropy with the soft targets in nats, mean over images of all processes.
        grad_norm: Common gradient norm before clipping.
        finite: Whether the update was made.
        scale: What the loss scale of float16 did, None without one.
    """

    loss: Tensor
    grad_norm: Tensor
    finite: Tensor
    scale: ScaleReport | None


@dataclass(frozen=True, kw_only=True)
class FinetuneStepSettings:
    """What a step needs besides its images and the schedule.

    Attributes:
        weight_decay: Of the matrices.
        clip_grad: Largest norm of the whole gradient, 0 for none.
        dtype: What the network's products are computed in under autocast, None for none.
        scaler: Loss scale of float16, None for none.
        average_over_ranks: Averages the given tensors over processes, in place.
    """

    weight_decay: float
    clip_grad: float
    dtype: torch.dtype | None
    average_over_ranks: Callable[[Sequence[Tensor]], None]
    scaler: LossScale | None = None


def finetune_step(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[tuple[LabelledBatch, DropPath | None]],
    lr: float,
    settings: FinetuneStepSettings,
) -> FinetuneReport:
    """One optimiser update from one or more micro-batches, without a host read.

    A non-finite loss or gradient leaves weights and moments untouched; the decision is made on the device.

    Args:
        model: The classifier.
        optimizer: From `build_optimizer` with a layer decay.
        batches: Micro-batches, each with its drop-path factors `[num_blocks, 2, b]`, also as sub-batches, or None.
        lr: Learning rate of the head.
        settings: See there.

    Raises:
        OutOfMemory: The passes do not fit into memory; nothing was updated, but gradients may be left.
    """
    apply_schedule(optimizer, lr, settings.weight_decay)
    scaler = settings.scaler
    scale = None if scaler is None else scaler.scale
    losses = passes(model, batches, settings)
    total = torch.stack(losses).sum()
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    settings.average_over_ranks([*grads, total])
    grad_norm = clip_gradients(model.parameters(), settings.clip_grad, "global", scale)
    finite = torch.isfinite(total) & torch.isfinite(grad_norm)
    gated_step(optimizer, finite)
    optimizer.zero_grad(set_to_none=True)
    about_scale = None if scaler is None else scaler.update(total, grad_norm)
    return FinetuneReport(loss=total, grad_norm=grad_norm, finite=finite, scale=about_scale)


def passes(
    model: Classifier, batches: Sequence[tuple[LabelledBatch, DropPath | None]], settings: FinetuneStepSettings
) -> list[Tensor]:
    """Forward and backward passes of a step: the micro-batches' shares of the loss; the gradients are the model's.

    Raises:
        OutOfMemory: They do not fit into memory.
    """
    images = sum(len(batch) for batch, _ in batches)
    losses, dtype, scaler = [], settings.dtype, settings.scaler
    with within_memory():
        for batch, drop_path in batches:
            with torch.autocast(batch.images.device.type, dtype=dtype, enabled=dtype is not None):
                logits = model(batch.images, drop_path)
            loss = soft_cross_entropy(logits, batch.targets) * (len(batch) / images)
            (loss if scaler is None else loss * scaler.scale).backward()
            losses.append(loss.detach())
    return losses


def soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch of `-sum(targets * log_softmax(logits))`, float32, in nats."""
    return -(targets * functional.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
