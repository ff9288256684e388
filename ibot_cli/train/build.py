"""From configuration to networks and the loader of their views; the last place that knows it before `core`."""

from __future__ import annotations

import torch

from ibot_cli import distributed
from ibot_cli.config.schema import Config
from ibot_cli.core import swin
from ibot_cli.core.arithmetic import AUTOCAST
from ibot_cli.core.backbone import Backbone
from ibot_cli.core.heads import BatchNorm, Head
from ibot_cli.core.masking import MaskSampler
from ibot_cli.core.objective import Network, Objective
from ibot_cli.core.optim import build_optimizer
from ibot_cli.core.targets import SumOverRanks, identity
from ibot_cli.data.loader import ViewLoader
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import ViewRecipe
from ibot_cli.weights.shapes import BackboneShape


def backbone_of(config: Config, mask_token: bool) -> Backbone:
    """A fresh backbone."""
    return BackboneShape.configured(config, mask_token).build()


def network_of(config: Config, mask_token: bool) -> Network:
    """A fresh backbone with its head.

    Raises:
        ValueError: If the number of prototypes is still open.
    """
    backbone, head = backbone_of(config, mask_token), config.head
    if head.prototypes is None or head.patch_prototypes is None:
        raise ValueError("the number of prototypes is not decided yet")
    return Network(
        backbone,
        Head(
            backbone.dim,
            head.prototypes,
            None if head.shared else head.patch_prototypes,
            hidden_size=head.hidden_size,
            bottleneck_size=head.bottleneck_size,
            num_layers=head.num_layers,
            activation=head.activation,
            norm=head.norm,
            trainable_norm=head.trainable_norm,
            separate_mlp=head.separate_mlp,
        ),
    )


def objective_of(config: Config, sum_over_ranks: SumOverRanks = identity) -> Objective:
    """Student, teacher and losses, on the CPU, from the configuration's seed; the global generator is left alone."""
    settings = config.objective
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        student = network_of(config, mask_token=settings.patch != "none")
        teacher = network_of(config, mask_token=False)
    student.backbone.checkpointing = config.runtime.checkpointing == "blocks"
    objective = Objective(
        student,
        teacher,
        cls=settings.cls,
        patch=settings.patch,
        cls_weight=settings.cls_weight,
        patch_weight=settings.patch_weight,
        balance=settings.balance,
        sinkhorn_iterations=settings.sinkhorn_iterations,
        koleo_weight=settings.koleo_weight,
        center_momentum=settings.center_momentum,
        patch_center_momentum=settings.patch_center_momentum,
        student_temp=settings.student_temp,
        sum_over_ranks=sum_over_ranks,
    )
    for module in objective.modules():
        if isinstance(module, BatchNorm):
            module.sum_over_ranks = sum_over_ranks
    return objective


def optimizer_of(objective: Objective, config: Config) -> torch.optim.AdamW:
    """AdamW for the student; its groups are by layer only where the layers learn at different rates."""
    optim = config.optim
    decay = None if optim.layer_decay == 1 else optim.layer_decay
    return build_optimizer(objective.student, betas=optim.betas, eps=optim.eps, layer_decay=decay, decay_tokens=True)


def stride_of(config: Config) -> int:
    """Pixels per output token and side."""
    return swin.STRIDE if config.model.arch in swin.SIZES else config.model.patch_size


def masks_of(config: Config) -> MaskSampler | None:
    """Draws the masks of global views, or None without a patch target."""
    if config.objective.patch == "none":
        return None
    mask = config.mask
    return MaskSampler(
        grid=config.views.global_size // stride_of(config), kind=mask.kind, ratio=mask.ratio, ratio_var=mask.ratio_var
    )


def view_loader(
    config: Config,
    source: Source,
    *,
    batch_size: int,
    micro_batch_size: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> ViewLoader:
    """Views and masks as a configuration says; those of a sample depend on no argument but these two.

    Args:
        config: Its views, masks and seed.
        source: The images.
        batch_size: Images per step over all processes.
        micro_batch_size: Images per forward pass.
        workers: Loader processes.
        device: Where the batches go.

    Raises:
        DataError: Fewer images than one batch.
    """
    low = AUTOCAST[config.runtime.precision or "fp32"] if torch.device(device).type == "cuda" else None
    return ViewLoader(
        source,
        ViewRecipe.from_config(config.views, config.data),
        masks_of(config),
        seed=config.train.seed,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        mask_start_epoch=config.mask.start_epoch,
        workers=workers,
        rank=distributed.rank(),
        world=distributed.world(),
        grid=config.views.global_size // stride_of(config),
        device=device,
        dtype=low or torch.float32,
        max_bad_ratio=config.data.max_bad_ratio,
        max_bad_files=config.data.max_bad_files,
    )
