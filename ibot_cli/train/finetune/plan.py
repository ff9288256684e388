"""The plan of a fine-tuning: every open setting decided, with reasons, before anything is computed or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ibot_cli import distributed
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import Resolution
from ibot_cli.core import swin
from ibot_cli.core.arithmetic import AUTOCAST
from ibot_cli.data.augment import AugmentRecipe
from ibot_cli.data.bad_files import BadLimits
from ibot_cli.data.cores import LoadPlan, choose_workers, free_cores
from ibot_cli.data.decode import PixelFormat
from ibot_cli.data.finetune_loader import FinetuneLoader, ImageAssembler, fitting_batch
from ibot_cli.data.mix import MixRecipe
from ibot_cli.data.probe import DataSummary, probe, time_samples
from ibot_cli.data.transform import eval_transform
from ibot_cli.errors import UsageError
from ibot_cli.evaluate.features import Transform
from ibot_cli.train.arithmetic import CORE_FLOPS, decide_arithmetic
from ibot_cli.train.budget import Memory, shortage
from ibot_cli.train.choices import Choice, Cut
from ibot_cli.train.finetune.images import FinetuneImages
from ibot_cli.train.finetune.memory import decide_micro_batch
from ibot_cli.train.finetune.schedule import FinetuneSchedule, fitted_warmup
from ibot_cli.train.machine import choose_device
from ibot_cli.train.out_of_memory import halved, nothing_smaller
from ibot_cli.train.plan import decide_cores, known, share_of_rank
from ibot_cli.train.waiting import Loading, WaitWatch, crowding
from ibot_cli.weights.finetuned import ClassifierShape, ImagePreparation
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class FinetunePlan:
    """What a run will do.

    Attributes:
        config: Complete: no setting is left to be chosen.
        origin: Dotted path to where its value comes from.
        choices: What was decided here: dotted path to value and reason.
        warnings: What the user should know.
        images: Training, hold-out and test images.
        data: What a look at the training images found.
        shape: Of the classifier.
        device: Where it runs.
        schedule: Learning rate at every step.
        parameters: Number of parameters.
        memory: Estimate, or None where nothing asked for it.
    """

    config: FinetuneConfig
    origin: Mapping[str, str]
    choices: Mapping[str, Choice]
    warnings: list[str]
    images: FinetuneImages
    data: DataSummary
    shape: ClassifierShape
    device: torch.device
    schedule: FinetuneSchedule
    parameters: int
    memory: Memory | None

    @property
    def tf32(self) -> bool:
        """Whether float32 products may be rounded to TF32."""
        return self.config.runtime.precision == "tf32"

    @property
    def dtype(self) -> torch.dtype | None:
        """What the network's products are computed in under autocast while training, None for no autocast."""
        return AUTOCAST[known(self.config.runtime.precision)]

    @property
    def preparation(self) -> ImagePreparation:
        """How images are prepared for the finished classifier."""
        data = self.config.data
        return ImagePreparation(
            channels=known(data.channels),
            image_size=known(self.config.model.image_size),
            mean=known(data.mean),
            std=known(data.std),
            crop_ratio=data.eval_crop_ratio,
            bits=data.bits or 8,
        )

    @property
    def transform(self) -> Transform:
        """From an image to what the classifier sees in evaluation."""
        images = self.preparation
        return eval_transform(images.image_size, images.crop_ratio, images.channels, images.mean, images.std)


def as_loaded(config: FinetuneConfig, loaded: LoadedBackbone) -> FinetuneConfig:
    """The configuration with what `auto` takes from the weights.

    Raises:
        UsageError: The weights see another number of channels, or levels of other bits; or they see images that
            RandAugment is not for.
    """
    data = config.data
    for name, asked, seen in (("channels", data.channels, loaded.channels), ("bits", data.bits, loaded.bits)):
        if asked is not None and asked != seen:
            raise UsageError(
                f"data.{name} = {asked}, but {loaded.description} sees {seen}.", f"Leave data.{name} at auto."
            )
    data = replace(data, channels=loaded.channels, bits=16 if loaded.bits == 16 else 8)
    data = replace(data, mean=data.mean or tuple(loaded.mean), std=data.std or tuple(loaded.std))
    if not PixelFormat(channels=loaded.channels, bits=loaded.bits).plain and config.augment.auto_augment != "none":
        raise UsageError(
            f"RandAugment works on grey and RGB images of 8 bits; {loaded.description} sees {loaded.channels} channels "
            f"of {loaded.bits} bits.",
            "--set augment.auto_augment=none leaves it out; --set augment.color_jitter=0.4 changes brightness and "
            "contrast.",
        )
    model = replace(config.model, image_size=config.model.image_size or loaded.image_size)
    return replace(config, data=data, model=model)


def make_plan(
    resolved: Resolution[FinetuneConfig],
    images: FinetuneImages,
    shape: ClassifierShape,
    *,
    reference_epochs: int,
    choices: Mapping[str, Choice],
    want_memory: bool,
) -> FinetunePlan:
    """Decides what is still open.

    Args:
        resolved: The configuration, its data and image size decided, and its origins.
        images: The images.
        shape: Of the classifier.
        reference_epochs: Length that the recipe's warm-up was written for.
        choices: What was chosen before.
        want_memory: Whether to estimate the memory also where no choice needs it.

    Raises:
        DataError: Fewer images than processes, or none that can be read.
        UsageError: A device or batch that cannot be.
    """
    made, config = dict(choices), resolved.config
    device = choose_device(config.runtime.device)
    data = probe(images.train.source)
    config = _fit_batch(config, len(images.train.source), made)
    config, cuts = _fit_warmup(config, reference_epochs)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in shape.build().parameters())
    config = replace(config, runtime=decide_arithmetic(config.runtime, device, made))
    runtime = decide_cores(config.runtime, lambda: _share_cores(config, images, shape, device, parameters), made)
    config = replace(config, runtime=runtime)
    config, memory = _fit_memory(config, shape, device, made, want_memory)
    return FinetunePlan(
        config=config,
        origin=resolved.origin,
        choices=made,
        warnings=[
            *images.notes,
            *map(str, cuts),
            *shortage(memory, config.train.micro_batch_size, config.runtime.checkpointing),
            *crowding(resolved.config.runtime, config.runtime, device),
        ],
        images=images,
        data=data,
        shape=shape,
        device=device,
        schedule=FinetuneSchedule(
            epochs=config.train.epochs,
            steps_per_epoch=len(images.train.source) // config.train.batch_size,
            batch_size=config.train.batch_size,
            optim=config.optim,
        ),
        parameters=parameters,
        memory=memory,
    )


def _fit_batch(config: FinetuneConfig, num_images: int, made: dict[str, Choice]) -> FinetuneConfig:
    """A batch that the images fill."""
    asked = config.train.batch_size
    batch = fitting_batch(num_images, asked, distributed.world())
    if batch != asked:
        made["train.batch_size"] = (batch, f"{num_images:,} training images do not fill a batch of {asked:,}")
    return replace(config, train=replace(config.train, batch_size=batch))


def _fit_warmup(config: FinetuneConfig, reference_epochs: int) -> tuple[FinetuneConfig, list[Cut]]:
    """A warm-up that ends within the run."""
    asked = config.optim.warmup_epochs
    warmup = fitted_warmup(asked, config.train.epochs, reference_epochs)
    cuts = [Cut("optim.warmup_epochs", asked, warmup)] if warmup != asked else []
    return replace(config, optim=replace(config.optim, warmup_epochs=warmup)), cuts


def _fit_memory(
    config: FinetuneConfig,
    shape: ClassifierShape,
    device: torch.device,
    made: dict[str, Choice],
    want_memory: bool,
) -> tuple[FinetuneConfig, Memory | None]:
    """A micro-batch that fits into memory, the same in every process."""
    rank_batch = share_of_rank(config.train.batch_size)
    micro, memory = decide_micro_batch(shape, config, device, rank_batch, want_memory)
    micro = distributed.agree(micro)
    if config.train.micro_batch_size is None and micro < rank_batch:
        made["train.micro_batch_size"] = (micro, f"the largest part of {rank_batch} images that fits into memory")
    return replace(config, train=replace(config.train, micro_batch_size=micro)), memory


def _share_cores(
    config: FinetuneConfig, images: FinetuneImages, shape: ClassifierShape, device: torch.device, parameters: int
) -> LoadPlan:
    """Loader processes and threads, from the measured loading and the estimated computing time of an image."""
    source, side = images.train.source, shape.backbone.image_size
    assembler = ImageAssembler(source, recipe_of(config), 0, BadLimits(len(source), 1.0, len(source)))
    stride = swin.STRIDE if shape.backbone.arch in swin.SIZES else shape.backbone.patch_size
    # products with the weights, forward and twice backward, for each token
    products = 3 * parameters * (1 + (side // stride) ** 2)
    return choose_workers(
        num_images=len(source),
        load_seconds=time_samples(len(source), lambda index: assembler([(index, 0)])),
        compute_seconds=None if device.type == "cuda" else 2 * products / CORE_FLOPS[known(config.runtime.precision)],
        cores=free_cores(),
    )


def recipe_of(config: FinetuneConfig) -> AugmentRecipe:
    """The augmentation of a configuration whose data settings are decided."""
    return AugmentRecipe.from_config(
        config.augment,
        image_size=known(config.model.image_size),
        channels=known(config.data.channels),
        bits=config.data.bits or 8,
        mean=known(config.data.mean),
        std=known(config.data.std),
    )


def wait_watch(plan: FinetunePlan) -> WaitWatch:
    """Looks at how long the training of a plan waits for its images."""
    config = plan.config
    loading = Loading.of(config.runtime, plan.device, plan.data, view_size=known(config.model.image_size), num_local=0)
    return WaitWatch(loading, share_of_rank(config.train.batch_size))


def halved_plan(plan: FinetunePlan, step: int) -> FinetunePlan:
    """The plan with at most half as many images per forward pass; an even number, because two neighbours are mixed.

    Raises:
        TrainingError: It cannot be smaller.
    """
    config, micro = plan.config, known(plan.config.train.micro_batch_size)
    mixes = config.augment.mixup > 0 or config.augment.cutmix > 0
    smaller = halved(micro, lambda size: size % 2 == 0 or (size == 1 and not mixes))
    if smaller is None:
        why = ", and images are mixed in pairs" if micro > 1 else ""
        raise nothing_smaller(step, micro, config.runtime.checkpointing, why)
    return replace(plan, config=replace(config, train=replace(config.train, micro_batch_size=smaller)), memory=None)


def loader_of(plan: FinetunePlan) -> FinetuneLoader:
    """The loader of a plan."""
    config = plan.config
    return FinetuneLoader(
        plan.images.train.source,
        recipe_of(config),
        MixRecipe.from_config(config.augment, len(plan.images.classes)),
        seed=config.train.seed,
        batch_size=config.train.batch_size,
        micro_batch_size=known(config.train.micro_batch_size),
        repeats=config.augment.repeats,
        workers=known(config.runtime.workers),
        rank=distributed.rank(),
        world=distributed.world(),
        max_bad_ratio=config.data.max_bad_ratio,
        max_bad_files=config.data.max_bad_files,
        device=plan.device,
    )
