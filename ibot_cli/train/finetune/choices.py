"""What `ibot finetune` decides by itself, with its reasons."""

from __future__ import annotations

from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.load import Resolution
from ibot_cli.data.finetune_loader import fitting_batch
from ibot_cli.train.choices import SMALL_SET, Choice
from ibot_cli.train.finetune.request import DEMO_DATA, DEMO_PRESET, SMALL_PRESET, FinetuneRequest
from ibot_cli.weights.shapes import BackboneShape

# Published recipes by token width of the ViT that they are for.
BY_WIDTH = {384: "finetune_vits16", 768: "finetune_vitb16", 1024: "finetune_vitl16"}
MOST_EPOCHS = 1000  # the published length with few labels
# On the digits, with 10 labels of each class, more updates than this gained nothing on held-out training images.
LEAST_UPDATES = 200
RECIPE = ("default", "preset")  # origins of values that the user did not give
WIDTHS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768, "vit_large": 1024}


def choose_preset(request: FinetuneRequest, num_images: int, shape: BackboneShape) -> Choice:
    """The preset of a new run: the one that was named, else what suits the data and the network.

    Args:
        request: What was asked for.
        num_images: Labelled training images before any choice of labels.
        shape: Of the backbone.
    """
    if request.preset is not None:
        return request.preset, "--preset"
    if request.data == DEMO_DATA:
        return DEMO_PRESET, "made for these images"
    if num_images < SMALL_SET:
        return SMALL_PRESET, f"{num_images:,} training images are fewer than {SMALL_SET:,}"
    width = shape.width or WIDTHS.get(shape.arch, 384)
    nearest = min(BY_WIDTH, key=lambda known: abs(known - width))
    return BY_WIDTH[nearest], f"{num_images:,} training images, and a network of width {width}"


def recipe_choices(
    resolved: Resolution[FinetuneConfig], available: int, used: int, world: int = 1
) -> dict[str, Choice]:
    """Epochs that make at least 200 updates with a part of the labels, 1000 epochs at most.

    A recipe's epochs are meant for all images; with few of them it would stop before it has learnt anything. What is
    counted in epochs is stretched alike. Nothing is chosen where the user said how many epochs there are, and no other
    value that the user gave is changed.

    Args:
        resolved: The configuration and its origins.
        available: Labelled training images.
        used: Images that are trained on.
        world: Number of processes.
    """
    config = resolved.config
    said = resolved.origin["train.epochs"]
    if (config.labels.fraction is None and config.labels.per_class is None) or not said.startswith(RECIPE):
        return {}
    epochs = min(-(-LEAST_UPDATES // (used // fitting_batch(used, config.train.batch_size, world))), MOST_EPOCHS)
    factor = epochs / config.train.epochs
    if used >= available or factor <= 1:
        return {}
    why = f"{LEAST_UPDATES} updates at least, with {used:,} of {available:,} labels; {MOST_EPOCHS} epochs at most"
    scaled = {
        "optim.warmup_epochs": config.optim.warmup_epochs,
        "train.eval_epochs": config.train.eval_epochs,
        "train.checkpoint_epochs": config.train.checkpoint_epochs,
    }
    stretched: dict[str, Choice] = {"train.epochs": (epochs, why)}
    for path, value in scaled.items():
        if value and resolved.origin[path].startswith(RECIPE):
            stretched[path] = (round(value * factor), "stretched with train.epochs")
    return stretched
