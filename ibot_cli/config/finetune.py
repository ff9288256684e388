"""The configuration of fine-tuning, told in the same way as that of pre-training (`ibot_cli.config.schema`).

The defaults are the published ImageNet recipe for ViT-S/16; presets hold only what differs from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ibot_cli.config.schema import RuntimeConfig, setting


@dataclass(frozen=True, kw_only=True)
class FinetuneDataConfig:
    """How the images become numbers; auto takes what the weights were trained with."""

    channels: int | None = setting(None, "Channels that the network sees.", low=1, auto=True)
    bits: Literal[8, 16] | None = setting(None, "Bits of a level that are kept.", auto=True)
    mean: tuple[float, ...] | None = setting(None, "Mean per channel after scaling to 0..1.", low=0, high=1, auto=True)
    std: tuple[float, ...] | None = setting(None, "Standard deviation per channel.", above=0, high=1, auto=True)
    eval_crop_ratio: float = setting(
        0.875, "Evaluation: the image is resized to size / ratio, then centre-cropped to size.", above=0, high=1
    )
    max_bad_ratio: float = setting(0.01, "Share of unreadable files above which a run stops.", low=0, high=1)
    max_bad_files: int = setting(10, "A run stops only when more than this many distinct files are bad.", low=0)


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """How many of the labelled images are used; the choice is balanced over the classes and fixed by its seed."""

    fraction: float | None = setting(
        None, "Share of each class, at least one image of each; auto is all.", above=0, high=1, auto=True
    )
    per_class: int | None = setting(None, "Images of each class; auto is all.", low=1, auto=True)
    seed: int = setting(0, "Seed of the choice; a smaller share is a part of a larger one.", low=0, high=2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class FinetuneModelConfig:
    """The classifier that is made of the weights; their architecture stays."""

    pooling: Literal["cls", "mean"] = setting(
        "cls", "What is classified: the class token, or the mean of the patch tokens with a new norm (BEiT)."
    )
    drop_path: float = setting(0.1, "Largest stochastic depth; deeper blocks drop more.", low=0, high=0.99)
    head_init_scale: float = setting(0.001, "Factor on the first weights of the classifier.", above=0)
    keep_projection: Literal[0, 1] = setting(
        0, "Layers of the pre-trained projection head that stay below the classifier; 1 is for few labels."
    )
    from_scratch: bool = setting(False, "Start from random weights, to see what pre-training was worth.")
    image_size: int | None = setting(
        None, "Side of the images; auto is that of the weights.", low=4, unit="pixels", auto=True
    )


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to a training image, in this order, and how two images are mixed."""

    crop_scale: tuple[float, float] = setting((0.08, 1.0), "Area range of the random crop.", above=0, high=1)
    crop_aspect: tuple[float, float] = setting((3 / 4, 4 / 3), "Aspect-ratio range of the random crop.", above=0)
    interpolation: Literal["bicubic", "bilinear"] = setting("bicubic", "How crops are resized.")
    flip_prob: float = setting(0.5, "Chance of a horizontal flip.", low=0, high=1)
    auto_augment: str = setting(
        "rand-m9-mstd0.5-inc1", "RandAugment in timm's notation (m strength, mstd its spread, n operations), or none."
    )
    color_jitter: float = setting(
        0.4, "Brightness, contrast and saturation factor range is 1 +- this; used only without auto_augment.",
        low=0, high=1,
    )  # fmt: skip
    erase_prob: float = setting(0.25, "Chance that a rectangle is replaced by noise.", low=0, high=1)
    mixup: float = setting(0.8, "Alpha of the Beta distribution that blends two images; 0 turns mixup off.", low=0)
    cutmix: float = setting(
        1.0, "Alpha of the Beta distribution of the rectangle pasted from another image; 0 turns cutmix off.", low=0
    )
    mix_prob: float = setting(1.0, "Chance that a batch is mixed at all.", low=0, high=1)
    mix_switch_prob: float = setting(0.5, "Chance of cutmix instead of mixup, when both are on.", low=0, high=1)
    smoothing: float = setting(0.1, "Label smoothing.", low=0, high=0.99)
    repeats: int = setting(
        1, "Versions of an image in one batch; an epoch keeps its length and shows fewer images.", low=1, high=16
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimConfig:
    """AdamW with a learning rate that falls from the head to the first layer."""

    lr: float = setting(4e-3, "Peak learning rate of the head, for a batch of lr_batch_size.", above=0, high=0.1)
    lr_batch_size: int = setting(1024, "Batch that lr is for; lr is scaled to train.batch_size. 0 never scales.", low=0)
    layer_decay: float = setting(
        0.75, "Each layer's learning rate is this times that of the one above.", above=0, high=1
    )
    min_lr: float = setting(1e-6, "Learning rate at the end; not scaled.", low=0, high=0.1)
    warmup_epochs: int = setting(20, "Linear warm-up from 0.", low=0, unit="epochs")
    weight_decay: float = setting(0.05, "Weight decay of the matrices; biases, norms and tokens have none.", low=0)
    betas: tuple[float, float] = setting((0.9, 0.999), "AdamW momenta.", low=0, high=0.99999)
    eps: float = setting(1e-8, "AdamW epsilon.", above=0)
    clip_grad: float = setting(0.0, "Largest norm of the whole gradient; 0 turns clipping off.", low=0)


@dataclass(frozen=True, kw_only=True)
class FinetuneTrainConfig:
    """Length, batch, and what is measured and written when."""

    epochs: int = setting(200, "Passes over the images.", low=1, unit="epochs")
    batch_size: int = setting(
        1024, "Images per update, over all processes and accumulation; cut where there are fewer.", low=1
    )
    micro_batch_size: int | None = setting(None, "Images per forward pass in one process.", low=1, auto=True)
    seed: int = setting(0, "Seed of everything but the choice of labels.", low=0, high=2**31 - 1)
    log_every: int = setting(10, "Steps between readings of the device's numbers.", low=1, unit="steps")
    max_bad_steps: int = setting(20, "Consecutive non-finite steps after which training stops.", low=1, unit="steps")
    holdout_ratio: float = setting(
        0.0, "Share of each class kept out of training, to find the best epoch; with 0 the test images are watched.",
        low=0, high=0.9,
    )  # fmt: skip
    eval_epochs: int = setting(
        1, "Classify the held-out, else the test images every so many epochs; 0 is never.", low=0, unit="epochs"
    )
    checkpoint_epochs: int = setting(1, "Save every so many epochs; 0 is only at the end.", low=0, unit="epochs")
    keep_last: int = setting(2, "Newest checkpoints that are kept.", low=1)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Everything that decides what a fine-tuning run computes."""

    data: FinetuneDataConfig = field(default_factory=FinetuneDataConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    model: FinetuneModelConfig = field(default_factory=FinetuneModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: FinetuneOptimConfig = field(default_factory=FinetuneOptimConfig)
    train: FinetuneTrainConfig = field(default_factory=FinetuneTrainConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
