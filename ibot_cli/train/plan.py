"""The plan of a run: every open setting decided, with reasons, before anything is computed or written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from ibot_cli import distributed
from ibot_cli.config.load import Resolved
from ibot_cli.config.schema import Config, RuntimeConfig
from ibot_cli.core import swin
from ibot_cli.core.arithmetic import AUTOCAST
from ibot_cli.data.cores import LoadPlan, choose_workers, free_cores
from ibot_cli.data.digits import DigitsSource
from ibot_cli.data.formats.jpeg import usual_decoder
from ibot_cli.data.loader import ViewLoader, require_batch
from ibot_cli.data.photos import PhotosSource
from ibot_cli.data.probe import DataSummary, time_loading
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe, normalisation
from ibot_cli.errors import UsageError
from ibot_cli.train.arithmetic import CORE_FLOPS, decide_arithmetic
from ibot_cli.train.budget import Memory, decide_micro_batch, shortage
from ibot_cli.train.build import masks_of, network_of, stride_of, view_loader
from ibot_cli.train.choices import Choice, fit_durations
from ibot_cli.train.machine import choose_device
from ibot_cli.train.out_of_memory import halved, nothing_smaller
from ibot_cli.train.schedule import Schedule
from ibot_cli.train.waiting import Loading, WaitWatch, crowding

PROTOTYPES = 8192
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will do.

    Attributes:
        config: Complete: no setting is left to be chosen.
        origin: Dotted path to where its value comes from.
        choices: What was decided here: dotted path to value and reason.
        warnings: What the user should know.
        data: What was found.
        device: Where the networks run.
        dtype: What their products are computed in under autocast, None for no autocast.
        micro_batches: Forward passes per update and process.
        schedule: Values at every step.
        parameters: Numbers of parameters: `backbone`, `head`.
        tokens: Tokens per global and local view with class token and registers, `[global, local]`.
        memory: Estimate, or None where nothing asked for it.
    """

    config: Config
    origin: Mapping[str, str]
    choices: Mapping[str, Choice]
    warnings: list[str]
    data: DataSummary
    device: torch.device
    dtype: torch.dtype | None
    micro_batches: int
    schedule: Schedule
    parameters: Mapping[str, int]
    tokens: tuple[int, int]
    memory: Memory | None

    @property
    def tf32(self) -> bool:
        """Whether float32 products may be rounded to TF32."""
        return self.config.runtime.precision == "tf32"

    @property
    def micro_batch_size(self) -> int:
        """Images per forward pass in one process."""
        return known(self.config.train.micro_batch_size)


def known(value: T | None) -> T:
    """A setting that the plan has decided."""
    assert value is not None, "the plan decides every open setting"
    return value


def make_plan(
    resolved: Resolved,
    source: Source,
    summary: DataSummary,
    *,
    reference_epochs: int,
    choices: Mapping[str, Choice],
    want_memory: bool,
) -> Plan:
    """Decides what is still open.

    Args:
        resolved: The configuration and its origins.
        source: The images.
        summary: What is known about them.
        reference_epochs: Length that the recipe's durations were written for.
        choices: What was chosen for the size of the set.
        want_memory: Whether to estimate the memory also where no choice needs it.

    Raises:
        DataError: There are fewer images than a batch.
        UsageError: A device, batch or micro-batch that cannot be.
    """
    made = dict(choices)
    device = choose_device(resolved.config.runtime.device)
    config = _decide_prototypes(resolved.config, made)
    config = replace(config, init=replace(config.init, head_lr=config.init.head_lr or config.optim.lr))
    config = _decide_runtime(config, source, device, made)
    config, cuts = fit_durations(config, known(config.train.epochs), reference_epochs)
    batch_size = known(config.train.batch_size)
    require_batch(len(source), batch_size)
    rank_batch = share_of_rank(batch_size)
    config, memory = decide_micro_batch(config, device, rank_batch, made, want_memory)
    micro = known(config.train.micro_batch_size)
    steps_per_epoch = len(source) // batch_size
    mask_start = config.mask.start_epoch if config.objective.patch != "none" else 0
    return Plan(
        config=config,
        origin=resolved.origin,
        choices=made,
        warnings=[
            *map(str, cuts),
            *shortage(memory, config.train.micro_batch_size, config.runtime.checkpointing),
            *crowding(resolved.config.runtime, config.runtime, device),
        ],
        data=summary,
        device=device,
        dtype=AUTOCAST[known(config.runtime.precision)],
        micro_batches=rank_batch // micro,
        schedule=Schedule(
            epochs=known(config.train.epochs),
            steps_per_epoch=steps_per_epoch,
            batch_size=batch_size,
            mask_start_epoch=mask_start,
            freeze_backbone_epochs=known(config.init.freeze_backbone_epochs),
            head_lr=config.init.head_lr,
            optim=config.optim,
            objective=config.objective,
        ),
        parameters=_parameters(config),
        tokens=_tokens(config),
        memory=memory,
    )


def decide_cores(runtime: RuntimeConfig, share: Callable[[], LoadPlan], made: dict[str, Choice]) -> RuntimeConfig:
    """Loader processes and threads where they are open; `share` is asked only where the former are."""
    workers, threads = runtime.workers, runtime.threads
    if workers is None:
        plan = share()
        workers = plan.workers
        made["runtime.workers"] = (workers, plan.reason)
        if threads is None:
            threads = plan.threads
            made["runtime.threads"] = (threads, plan.reason)
    elif threads is None:
        cores = free_cores()
        threads = max(cores - workers, 1)
        made["runtime.threads"] = (threads, f"free cores ({cores}) less runtime.workers ({workers}), at least one.")
    return replace(runtime, workers=workers, threads=threads)


def _decide_runtime(config: Config, source: Source, device: torch.device, made: dict[str, Choice]) -> Config:
    """Device, precision, threads, workers, the decoder and the images' statistics."""
    steep = config.model.arch in swin.SIZES and config.objective.patch != "none"
    runtime = decide_arithmetic(config.runtime, device, made, steep=steep)
    runtime = decide_cores(runtime, lambda: _share_cores(replace(config, runtime=runtime), source, device), made)
    mean, std = normalisation(config.data.channels, config.data.mean, config.data.std)
    decoder = config.data.decoder or usual_decoder()
    return replace(config, runtime=runtime, data=replace(config.data, mean=mean, std=std, decoder=decoder))


def _decide_prototypes(config: Config, made: dict[str, Choice]) -> Config:
    """`auto` is the published number, and for a separate patch head that of the class token."""
    head = config.head
    if head.prototypes is None:
        head = replace(head, prototypes=PROTOTYPES)
        made["head.prototypes"] = (PROTOTYPES, "as published")
    if head.patch_prototypes is None:
        head = replace(head, patch_prototypes=head.prototypes)
        if not head.shared:
            made["head.patch_prototypes"] = (head.prototypes, "as many as head.prototypes")
    return replace(config, head=head)


def _share_cores(config: Config, source: Source, device: torch.device) -> LoadPlan:
    """Loader processes and threads, from the measured loading and the estimated computing time of a sample."""
    return choose_workers(
        num_images=len(source),
        load_seconds=time_loading(source, ViewRecipe.from_config(config.views, config.data), masks_of(config)),
        compute_seconds=None if device.type == "cuda" else _compute_seconds(config),
        cores=free_cores(),
        in_memory=isinstance(source, DigitsSource | PhotosSource),
    )


def _compute_seconds(config: Config) -> float:
    """Rough time of one sample on one core: products with the weights, forward by both and backward by one network."""
    (whole, part), views = _tokens(config), config.views
    products = _parameters(config)["backbone"] * (4 * views.num_global * whole + 3 * views.num_local * part)
    return 2 * products / CORE_FLOPS[known(config.runtime.precision)]


def share_of_rank(batch_size: int) -> int:
    """Images of one process per update.

    Raises:
        UsageError: The batch cannot be shared out evenly.
    """
    world = distributed.world()
    if batch_size % world:
        raise UsageError(
            f"train.batch_size = {batch_size} cannot be shared out over {world} processes.",
            f"Choose a multiple of {world}.",
        )
    return batch_size // world


def _parameters(config: Config) -> dict[str, int]:
    with torch.device("meta"):
        network = network_of(config, mask_token=config.objective.patch != "none")
    return {
        name: sum(p.numel() for p in part.parameters())
        for name, part in (("backbone", network.backbone), ("head", network.head))
    }


def _tokens(config: Config) -> tuple[int, int]:
    views, stride, before = config.views, stride_of(config), 1 + config.model.registers
    return before + (views.global_size // stride) ** 2, before + (views.local_size // stride) ** 2


def wait_watch(plan: Plan) -> WaitWatch:
    """Looks at how long the training of a plan waits for its images."""
    config = plan.config
    loading = Loading.of(
        config.runtime,
        plan.device,
        plan.data,
        view_size=config.views.global_size,
        num_local=config.views.num_local,
    )
    return WaitWatch(loading, share_of_rank(known(config.train.batch_size)))


def halved_plan(plan: Plan, step: int) -> Plan:
    """The plan with at most half as many images per forward pass.

    Raises:
        TrainingError: It has one image per forward pass already.
    """
    config, rank_batch = plan.config, plan.micro_batch_size * plan.micro_batches
    micro = halved(plan.micro_batch_size, lambda size: rank_batch % size == 0)
    if micro is None:
        raise nothing_smaller(step, plan.micro_batch_size, config.runtime.checkpointing)
    config = replace(config, train=replace(config.train, micro_batch_size=micro))
    return replace(plan, config=config, micro_batches=rank_batch // micro, memory=None)


def loader_of(plan: Plan, source: Source) -> ViewLoader:
    """The loader of a plan."""
    return view_loader(
        plan.config,
        source,
        batch_size=known(plan.config.train.batch_size),
        micro_batch_size=plan.micro_batch_size,
        workers=known(plan.config.runtime.workers),
        device=plan.device,
    )
