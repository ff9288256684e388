"""The configuration: frozen dataclasses whose fields carry their help, unit and bounds.

One definition feeds validation, `ibot presets show` and the reference page. `None` in a field that says `auto=True`
is written `auto` in YAML and on the command line; `ibot_cli.train.plan` replaces it before training starts.
The defaults are the published ViT-S/16 recipe (shared head, 800 epochs); presets hold only what differs from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


def setting(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    unit: str = "",
    auto: bool = False,
) -> Any:
    """A dataclass field with its documentation and bounds.

    Args:
        default: The value when nothing else sets it.
        help: One sentence for people.
        low: Smallest allowed value, inclusive; for tuples it bounds each entry.
        high: Largest allowed value, inclusive.
        above: Exclusive lower bound.
        unit: What the number counts, for the reference page.
        auto: Whether `auto` (None) is allowed.
    """
    metadata = {"help": help, "low": low, "high": high, "above": above, "unit": unit, "auto": auto}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the images come from and how they become numbers."""

    channels: int = setting(3, "Channels that the network sees: 1 grey, 3 colour, others as files have them.", low=1)
    bits: Literal[8, 16] = setting(
        8, "Bits per level that are kept; 16 for microscopy or satellite files of 12-16 bits."
    )
    decoder: Literal["pillow", "torchcodec"] | None = setting(
        None, "What decodes JPEG files, with equal levels; auto is torchcodec where it is installed.", auto=True
    )
    mean: tuple[float, ...] | None = setting(None, "Mean per channel after scaling to 0..1.", low=0, high=1, auto=True)
    std: tuple[float, ...] | None = setting(None, "Standard deviation per channel.", above=0, high=1, auto=True)
    eval_crop_ratio: float = setting(
        0.875, "Evaluation: the image is resized to size / ratio, then centre-cropped to size.", above=0, high=1
    )
    max_bad_ratio: float = setting(0.01, "Share of unreadable files above which a run stops.", low=0, high=1)
    max_bad_files: int = setting(10, "A run stops only when more than this many distinct files are bad.", low=0)


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """The crops of an image and their augmentation, in the published order."""

    num_global: int = setting(2, "Global crops per image; they are masked and seen by the teacher.", low=1, high=8)
    num_local: int = setting(10, "Local crops per image; never masked, seen by the student only.", low=0, high=32)
    global_size: int = setting(224, "Side of a global crop.", low=4, unit="pixels")
    local_size: int = setting(96, "Side of a local crop.", low=4, unit="pixels")
    global_scale: tuple[float, float] = setting((0.25, 1.0), "Area range of a global crop.", above=0, high=1)
    local_scale: tuple[float, float] = setting((0.05, 0.25), "Area range of a local crop.", above=0, high=1)
    aspect: tuple[float, float] = setting((3 / 4, 4 / 3), "Aspect-ratio range of a crop.", above=0)
    rotation: float = setting(
        0.0, "Largest rotation before the crop; 0 is the published recipe.", low=0, high=180, unit="degrees"
    )
    flip_prob: float = setting(0.5, "Chance of a horizontal flip.", low=0, high=1)
    jitter_prob: float = setting(0.8, "Chance of colour jitter.", low=0, high=1)
    brightness: float = setting(0.4, "Brightness factor range is 1 +- this.", low=0, high=1)
    contrast: float = setting(0.4, "Contrast factor range is 1 +- this.", low=0, high=1)
    saturation: float = setting(0.2, "Saturation factor range is 1 +- this.", low=0, high=1)
    hue: float = setting(0.1, "Hue shift range is +- this.", low=0, high=0.5, unit="turns")
    gray_prob: float = setting(0.2, "Chance of conversion to grey.", low=0, high=1)
    blur_prob_first: float = setting(1.0, "Chance of blur in the first global crop.", low=0, high=1)
    blur_prob_other: float = setting(0.1, "Chance of blur in the other global crops.", low=0, high=1)
    blur_prob_local: float = setting(0.5, "Chance of blur in a local crop.", low=0, high=1)
    blur_radius: tuple[float, float] = setting((0.1, 2.0), "Radius range of the Gaussian blur.", low=0, unit="pixels")
    solarize_prob: float = setting(0.2, "Chance of solarisation in the global crops after the first.", low=0, high=1)
    solarize_threshold: int = setting(128, "Levels at or above this are inverted.", low=0, high=256)


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    """Which patches of a global view the student does not see."""

    kind: Literal["block", "random"] = setting("block", "Shape of the mask.")
    ratio: tuple[float, ...] = setting((0.0, 0.3), "Masked share; one entry is chosen per view.", low=0, high=1)
    ratio_var: tuple[float, ...] = setting((0.0, 0.2), "Half width of the range around each entry.", low=0, high=1)
    start_epoch: int = setting(0, "Nothing is masked before this epoch.", low=0, unit="epochs")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The backbone."""

    arch: Literal[
        "vit_tiny", "vit_small", "vit_base", "vit_large", "swin_tiny", "swin_small", "swin_base", "swin_large"
    ] = setting("vit_small", "Named architecture; width, depth and heads change a ViT's.")
    patch_size: int = setting(16, "Side of a patch; Swin always has 4.", low=1, unit="pixels")
    width: int | None = setting(None, "ViT token width; auto takes the architecture's.", low=8, auto=True)
    depth: int | None = setting(None, "ViT blocks; auto takes the architecture's.", low=1, auto=True)
    heads: int | None = setting(None, "ViT attention heads; auto takes the architecture's.", low=1, auto=True)
    registers: int = setting(
        0, "ViT register tokens: learned, without position, in no output.", low=0, high=64, unit="tokens"
    )
    layer_scale: float = setting(
        0.0,
        "Initial value of a ViT's learned factors per channel on each residual branch; 0 has none.",
        low=0,
        high=10,
    )
    window_size: int = setting(7, "Swin attention window.", low=1, unit="tokens")
    drop_path: float = setting(0.1, "Stochastic depth of the student's last block, linear from 0.", low=0, high=0.9)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The projection head and its prototypes."""

    prototypes: int | None = setting(
        8192, "Output size K of the CLS head, and of the patch head when shared.", low=2, auto=True
    )
    patch_prototypes: int | None = setting(8192, "Output size of a separate patch head.", low=2, auto=True)
    shared: bool = setting(True, "CLS and patches share the prototypes.")
    separate_mlp: bool = setting(False, "Patches have an MLP of their own too; needs separate prototypes.")
    hidden_size: int = setting(2048, "Width of the MLP.", low=1)
    bottleneck_size: int = setting(256, "Width of the normalised bottleneck.", low=1)
    num_layers: int = setting(3, "Linear layers of the MLP.", low=1, high=6)
    activation: Literal["gelu", "relu"] = setting("gelu", "Activation between the layers.")
    norm: Literal["none", "batch"] = setting("none", "Normalisation after each hidden layer.")
    trainable_norm: bool = setting(True, "Prototype norms are learnt (norm_last_layer false in the authors' code).")


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What the student is asked to match."""

    cls: Literal["online", "none"] = setting("online", "Target of the class token.")
    patch: Literal["online", "none"] = setting("online", "Target of masked patches; none is DINO.")
    cls_weight: float = setting(1.0, "Weight of the class-token loss.", low=0)
    patch_weight: float = setting(1.0, "Weight of the masked-patch loss.", low=0)
    koleo_weight: float = setting(
        0.0,
        "Weight of KoLeo, which keeps apart the class tokens of a view in one forward pass; 0 leaves it out.",
        low=0,
    )
    balance: Literal["center", "sinkhorn"] = setting(
        "center", "What keeps the teacher from collapsing: a moving centre (published), or Sinkhorn-Knopp."
    )
    sinkhorn_iterations: int = setting(3, "Sinkhorn-Knopp iterations.", low=1, high=100)
    center_momentum: float = setting(0.9, "Momentum of the class-token centre.", low=0, high=1)
    patch_center_momentum: float = setting(0.9, "Momentum of the patch centre.", low=0, high=1)
    student_temp: float = setting(0.1, "Student temperature.", above=0)
    teacher_temp: float = setting(0.07, "Teacher temperature of the class token.", above=0)
    teacher_patch_temp: float = setting(0.07, "Teacher temperature of the patches.", above=0)
    warmup_teacher_temp: float = setting(0.04, "Teacher temperature at the start, class token.", above=0)
    warmup_teacher_patch_temp: float = setting(0.04, "Teacher temperature at the start, patches.", above=0)
    teacher_temp_warmup_epochs: int = setting(30, "Linear warm-up of both temperatures.", low=0, unit="epochs")
    teacher_momentum: float = setting(0.996, "EMA momentum at the start; a cosine takes it to 1.", low=0, high=1)

    @property
    def method(self) -> str:
        """What training on these targets is called."""
        if self.patch == "none":
            return "DINO"
        return "iBOT" if self.cls == "online" else "Masked image modelling"


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedules."""

    lr: float = setting(5e-4, "Peak learning rate for a batch of 256; scaled with the batch.", above=0, high=0.1)
    min_lr: float = setting(1e-6, "Learning rate at the end; not scaled.", low=0, high=0.1)
    warmup_epochs: int = setting(10, "Linear warm-up from 0.", low=0, unit="epochs")
    weight_decay: float = setting(0.04, "Weight decay at the start.", low=0)
    weight_decay_end: float = setting(0.4, "Weight decay at the end of a cosine.", low=0)
    betas: tuple[float, float] = setting((0.9, 0.999), "AdamW momenta.", low=0, high=0.99999)
    eps: float = setting(1e-8, "AdamW epsilon.", above=0)
    clip_grad: float = setting(3.0, "Largest gradient norm; 0 turns clipping off.", low=0)
    clip_mode: Literal["tensor", "global"] = setting("tensor", "Clip each tensor by itself (published) or all as one.")
    freeze_prototypes_epochs: int = setting(
        1, "The prototypes stay as they are during these epochs.", low=0, unit="epochs"
    )
    layer_decay: float = setting(
        1.0,
        "Learning rate of a block, relative to the block above it; the head has the full rate. 1 treats all alike.",
        above=0,
        high=1,
    )


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """What the networks start from."""

    weights: str | None = setting(
        None, "WEIGHTS that student and teacher start from, as `--init`; auto starts from random ones.", auto=True
    )
    which: Literal["teacher", "student"] = setting("teacher", "The network of weights that hold both.")
    partial: bool = setting(False, "Take what fits of weights that do not fit as a whole, as `--partial`.")
    freeze_backbone_epochs: int | None = setting(
        None,
        "Only the head learns during these epochs; then the warm-up begins anew. auto is 0 where the head comes with "
        "the weights.",
        low=0,
        unit="epochs",
        auto=True,
    )
    head_lr: float | None = setting(
        None,
        "Peak learning rate of the head during these epochs, per 256 images; auto is optim.lr.",
        above=0,
        auto=True,
    )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, batch, and what is written when."""

    epochs: int | None = setting(800, "Passes over the images.", low=1, unit="epochs", auto=True)
    batch_size: int | None = setting(1024, "Images per update, over all processes and accumulation.", low=1, auto=True)
    micro_batch_size: int | None = setting(None, "Images per forward pass in one process.", low=1, auto=True)
    seed: int = setting(0, "Seed of everything.", low=0, high=2**31 - 1)
    log_every: int = setting(10, "Steps between readings of the device's numbers.", low=1, unit="steps")
    max_bad_steps: int = setting(20, "Consecutive non-finite steps after which training stops.", low=1, unit="steps")
    checkpoint_steps: int = setting(0, "Save every so many steps; 0 is never.", low=0, unit="steps")
    checkpoint_minutes: float = setting(15.0, "Save every so many minutes; 0 is never.", low=0, unit="minutes")
    checkpoint_epochs: int = setting(1, "Save every so many epochs; 0 is only at the end.", low=0, unit="epochs")
    keep_last: int = setting(2, "Newest checkpoints that are kept.", low=1)
    keep_every_epochs: int = setting(
        40, "Checkpoints of these epochs are kept for good; 0 keeps none.", low=0, unit="epochs"
    )


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What is measured while training."""

    knn_epochs: int = setting(
        10, "Online k-NN every so many epochs, if labels exist; 0 turns it off.", low=0, unit="epochs"
    )
    knn_k: int = setting(20, "Neighbours of the online k-NN.", low=1)
    knn_holdout: float = setting(
        0.1, "Share of the training images that the online k-NN classifies.", above=0, high=0.9
    )
    knn_max_images: int = setting(12000, "Largest number of images that the online k-NN looks at.", low=2)
    tensorboard: bool = setting(True, "Write TensorBoard files if its package is installed.")


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """How the machine is used; may change when a run is resumed, except the precision."""

    device: str | None = setting(None, "cpu, cuda, cuda:N or auto.", auto=True)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] | None = setting(
        None,
        "Arithmetic of the networks' products; auto is bf16 on CUDA >= 8.0 and on CPUs with AVX512-BF16 or AMX, fp16 "
        "(with a loss scale) on older GPUs, else fp32. tf32 needs CUDA >= 8.0. Losses, norms and centres are float32.",
        auto=True,
    )
    workers: int | None = setting(None, "Loader processes; 0 loads in the main process.", low=0, auto=True)
    threads: int | None = setting(None, "CPU threads of the main process.", low=1, auto=True)
    compile: bool | None = setting(
        None, "Compile blocks and losses, on or off; auto compiles on CUDA where a compiler works.", auto=True
    )
    checkpointing: Literal["none", "blocks"] = setting(
        "none", "blocks computes each block again in the backward pass: the same numbers, less memory, more time."
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a run computes."""

    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    mask: MaskConfig = field(default_factory=MaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    init: InitConfig = field(default_factory=InitConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
