"""No step makes the host wait for the device: nothing is read from it, and nothing is sent to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from ibot_cli.core.backbone import drop_path_factors
from ibot_cli.core.batch import Batch
from ibot_cli.core.drop_path import SubBatches
from ibot_cli.core.optim import build_optimizer
from ibot_cli.core.scale import LossScale
from ibot_cli.data.finetune_loader import LabelledBatch
from ibot_cli.data.prefetch import HostWait
from ibot_cli.train.epoch import EpochSums
from ibot_cli.train.finetune.step import FinetuneStepSettings, finetune_step
from ibot_cli.train.step import StepSettings, train_step
from ibot_cli.train.window import Window
from tests.core import tiny
from tests.train.finetune.test_step import batch as labelled_batch
from tests.train.finetune.test_step import model as classifier

# Reading a number, sizes that depend on values, and tensors made of the host's numbers, which are copied to the device.
WAITING = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "allclose",
    "nonzero",
    "nonzero_numpy",
    "argwhere",
    "masked_select",
    "unique_dim",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "bincount",
    "lift_fresh",
}


class NoWaiting(TorchDispatchMode):
    """Fails at the first operation for which a GPU and the host would wait for each other."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        waits = name in WAITING or (name == "repeat_interleave" and isinstance(args[0], Tensor) and len(args) > 1)
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            waits = any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in tree_iter(args[1]))
        if waits:
            raise AssertionError(f"{func} makes the host wait")
        return func(*args, **(kwargs or {}))


class OneDevice(TorchDispatchMode):
    """Fails where a tensor of the host meets those of the device, or goes from one to the other."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_iter((args, kwargs, result)) if isinstance(x, Tensor)]
        if len({x.device.type for x in tensors}) > 1:
            raise AssertionError(f"{func} mixes devices")
        return result


@contextmanager
def cuda_errors() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


Work = Callable[[torch.device], Callable[[], object]]
METHODS: dict[str, dict[str, Any]] = {
    "ibot": {},
    "ibot_sinkhorn": {"balance": "sinkhorn"},
    "dino": {"patch": "none"},
    "dino_sinkhorn": {"patch": "none", "balance": "sinkhorn"},
    "separate_batch_norm": {"separate": 7, "head_options": {"norm": "batch"}, "koleo_weight": 0.1},
}
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
STEPS: dict[str, dict[str, Any]] = {
    "frozen prototypes": {"freeze_prototypes": True},
    "frozen backbone": {"freeze_backbone": True},
    "checkpointing": {"checkpointing": True},
}


def pretraining(method: str, precision: str, *, scaler: bool = False, checkpointing: bool = False, **now: Any) -> Work:
    """One update of two micro-batches with dropped paths, and what the loop does with its report."""

    def ready(device: torch.device) -> Callable[[], object]:
        objective = tiny.objective(**METHODS[method]).to(device)
        backbone = objective.student.backbone
        backbone.checkpointing = checkpointing
        backbone.together = backbone.packed  # type: ignore[method-assign, assignment]  # as on a GPU
        optimizer = build_optimizer(objective.student, betas=(0.9, 0.999), eps=1e-8)
        factors = drop_path_factors(0.3, 2, 4, 3, torch.Generator().manual_seed(0))
        batches: list[Batch] = [tiny.batch(seed=seed, drop_path=factors).padded(60).to(device) for seed in range(2)]
        settings = StepSettings(
            clip_grad=3.0,
            clip_mode="tensor",
            dtype=DTYPES[precision],
            scaler=LossScale(device) if precision == "fp16" or scaler else None,
            average_over_ranks=lambda tensors: None,
        )
        window, sums = Window(batch_size=6, max_bad_steps=3), EpochSums()

        def step() -> None:
            report = train_step(objective, optimizer, batches, tiny.now(**now), settings)
            sums.add_stats(report.stats, report.finite)
            window.add(1, 0, tiny.now(**now), report, None, HostWait(0.0))

        return step

    return ready


def finetuning(precision: str) -> Work:
    def ready(device: torch.device) -> Callable[[], object]:
        network = classifier().to(device)
        optimizer = build_optimizer(network, betas=(0.9, 0.999), eps=1e-8, layer_decay=0.7)
        settings = FinetuneStepSettings(
            weight_decay=0.05,
            clip_grad=1.0,
            dtype=DTYPES[precision],
            scaler=LossScale(device) if precision == "fp16" else None,
            average_over_ranks=lambda tensors: None,
        )
        factors = drop_path_factors(0.5, 2, 1, 6, torch.Generator().manual_seed(3))
        assert factors is not None
        drop = factors[:, :, 0].to(device)
        sub_batches = SubBatches.of(factors[:, :, 0], device)
        made = labelled_batch()
        data = LabelledBatch(made.images.to(device), made.targets.to(device))
        return lambda: finetune_step(network, optimizer, [(data, drop), (data, sub_batches)], 0.01, settings)

    return ready


WORK = {
    **{f"{method} fp16": pretraining(method, "fp16") for method in METHODS},
    **{f"ibot {precision}": pretraining("ibot", precision) for precision in ("fp32", "bf16")},
    **{name: pretraining("ibot", "fp32", **now) for name, now in STEPS.items()},
    **{f"finetune {precision}": finetuning(precision) for precision in ("bf16", "fp16")},
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_a_step_waits_for_nothing(work: Work) -> None:
    step = work(torch.device("cpu"))
    with NoWaiting():  # type: ignore[no-untyped-call]
        step()


@pytest.mark.parametrize(
    "method",
    [pytest.param(name, marks=[] if name == "separate_batch_norm" else pytest.mark.slow) for name in METHODS],
)
def test_everything_is_made_where_the_networks_are(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device, which has shapes only; autocast and the fused optimiser do not know it."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    monkeypatch.setattr("ibot_cli.train.step.gated_step", lambda optimizer, finite: None)
    step = pretraining(method, "fp32", scaler=True)(torch.device("meta"))
    with OneDevice():  # type: ignore[no-untyped-call]
        step()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())
def test_a_step_on_a_gpu_waits_for_nothing(work: Work) -> None:
    step = work(torch.device("cuda"))
    step()  # libraries are loaded and moments made, which may wait
    with cuda_errors():
        step()


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).all()),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 0.0).nonzero(),
        lambda x: torch.equal(x, x),
        lambda x: x.new_tensor(3.0),
        lambda x: torch.tensor(3.0),
        lambda x: x.index_put_((x > 0,), torch.zeros(())),
        lambda x: x.unique(),
    ],
)
def test_the_guard_sees_what_waits(wait: Callable[[Tensor], object]) -> None:
    with pytest.raises(AssertionError, match="makes the host wait"), NoWaiting():  # type: ignore[no-untyped-call]
        wait(torch.ones(3))
