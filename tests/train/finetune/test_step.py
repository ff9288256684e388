"""One update against plain torch, and the gate of bad steps."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor

from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.classifier import Classifier
from ibot_cli.core.optim import build_optimizer, layer_groups
from ibot_cli.core.scale import LossScale
from ibot_cli.data.finetune_loader import LabelledBatch
from ibot_cli.train.finetune.step import FinetuneStepSettings, finetune_step, soft_cross_entropy
from tests.core import tiny


def model() -> Classifier:
    torch.manual_seed(0)
    backbone = tiny.vit(mask_token=False)
    tiny.scatter(backbone, 1)
    return Classifier(backbone, 5, head_init_scale=1.0)


def batch(images: int = 6, seed: int = 0) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 1, 16, 16, generator=generator)
    return LabelledBatch(pixels, torch.rand(images, 5, generator=generator).softmax(dim=1))


def settings(
    clip_grad: float = 0.0, dtype: torch.dtype | None = None, scaler: LossScale | None = None
) -> FinetuneStepSettings:
    return FinetuneStepSettings(
        weight_decay=0.05, clip_grad=clip_grad, dtype=dtype, scaler=scaler, average_over_ranks=lambda tensors: None
    )


def part(whole: LabelledBatch, rows: slice) -> LabelledBatch:
    return LabelledBatch(whole.images[rows], whole.targets[rows])


def step(network: Classifier, *batches: tuple[LabelledBatch, Tensor | None], **options: float) -> object:
    optimizer = build_optimizer(network, betas=(0.9, 0.999), eps=1e-8, layer_decay=0.7)
    return finetune_step(network, optimizer, list(batches), 0.01, settings(**options))


def same(a: Classifier, b: Classifier, tolerance: float = 1e-6) -> None:
    for (name, ours), theirs in zip(a.named_parameters(), b.parameters(), strict=True):
        if name.endswith("attn.qkv.bias"):  # the key third has no gradient but rounding, which Adam amplifies
            third = len(ours) // 3
            ours, theirs = (torch.cat([x[:third], x[2 * third :]]) for x in (ours, theirs))
        torch.testing.assert_close(
            ours, theirs, atol=tolerance, rtol=tolerance, msg=lambda text, n=name: f"{n}: {text}"
        )


@pytest.mark.parametrize("clip_grad", [0.0, 0.1])
def test_an_update_is_that_of_plain_adamw(clip_grad: float) -> None:
    ours, theirs, data = model(), model(), batch()
    report = step(ours, (data, None), clip_grad=clip_grad)
    loss = torch.nn.functional.cross_entropy(theirs(data.images), data.targets)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), clip_grad or math.inf)
    groups = layer_groups(theirs, 0.7)
    for group in groups:
        group["lr"] = 0.01 * group.pop("lr_scale")
        group["weight_decay"] = 0.05 if group["name"].endswith("decayed") else 0.0
    torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8).step()
    same(ours, theirs)
    torch.testing.assert_close(report.loss, loss.detach())
    torch.testing.assert_close(report.grad_norm, norm)
    assert bool(report.finite)


def test_uneven_micro_batches_are_one_batch() -> None:
    whole, data = model(), batch(7)
    factors = drop_path_factors(0.5, 2, 1, 7, torch.Generator().manual_seed(3))[:, :, 0]
    parts = copy.deepcopy(whole)
    first = step(whole, (data, factors))
    pieces = [(part(data, rows), factors[:, :, rows]) for rows in (slice(0, 4), slice(4, 7))]
    second = step(parts, *pieces)
    same(whole, parts, 1e-5)
    torch.testing.assert_close(first.loss, second.loss)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_step_changes_nothing(bad: float) -> None:
    network, data = model(), batch()
    before = tiny.snapshot(network)
    data.images[0, 0, 0, 0] = bad
    optimizer = build_optimizer(network, betas=(0.9, 0.999), eps=1e-8, layer_decay=0.7)
    report = finetune_step(network, optimizer, [(data, None)], 0.01, settings())
    assert not bool(report.finite) and tiny.same(before, tiny.snapshot(network))
    assert all(p.grad is None for p in network.parameters())
    good = finetune_step(network, optimizer, [(batch(), None)], 0.01, settings())
    assert bool(good.finite) and not tiny.same(before, tiny.snapshot(network))


def test_bf16_computes_the_loss_in_float32() -> None:
    report = step(model(), (batch(), None), dtype=torch.bfloat16)
    assert report.loss.dtype == torch.float32
    torch.testing.assert_close(report.loss, step(model(), (batch(), None)).loss, atol=0.05, rtol=0.05)


def test_a_power_of_two_as_loss_scale_changes_no_bit() -> None:
    ours, theirs = model(), model()
    scaler = LossScale(initial=2.0**10)
    step(ours, (part(batch(7), slice(0, 4)), None), (part(batch(7), slice(4, 7)), None), clip_grad=0.1, scaler=scaler)
    step(theirs, (part(batch(7), slice(0, 4)), None), (part(batch(7), slice(4, 7)), None), clip_grad=0.1)
    assert tiny.same(tiny.snapshot(ours), tiny.snapshot(theirs))


def test_fp16_is_close_and_says_its_scale() -> None:
    scaler = LossScale(initial=2.0**8)
    report = step(model(), (batch(), None), dtype=torch.float16, scaler=scaler)
    exact = step(model(), (batch(), None))
    assert report.finite and report.scale.scale == 2**8 and exact.scale is None
    torch.testing.assert_close(report.loss, exact.loss, atol=0, rtol=5e-3)
    torch.testing.assert_close(report.grad_norm, exact.grad_norm, atol=0, rtol=0.02)


def test_soft_targets() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    targets = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0]])
    pairs = zip(targets.tolist(), logits.softmax(1).tolist(), strict=True)
    rows = [-sum(t * math.log(p) for t, p in zip(*pair, strict=True)) for pair in pairs]
    assert soft_cross_entropy(logits, targets).item() == pytest.approx(sum(rows) / 2)
