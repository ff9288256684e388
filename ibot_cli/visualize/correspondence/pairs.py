"""Two views of one image, with the patch of the second that shows the same spot as each patch of the first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.changes import pack_changes
from ibot_cli.data.formats.bands import displayable, resized_levels
from ibot_cli.data.photometric import change_levels
from ibot_cli.data.rng import stream
from ibot_cli.data.transform import DrawnView, ViewRecipe, draw_views, normalise, stack_images
from ibot_cli.errors import DataError
from ibot_cli.visualize.correspondence.geometry import ViewBox
from ibot_cli.weights.load import LoadedBackbone

ATTEMPTS = 100
Changes = Literal["run", "published", "none"]
_OF_THE_RUN = ("flip_prob", "jitter_prob", "brightness", "contrast", "saturation", "hue", "gray_prob")


@dataclass(frozen=True, eq=False, kw_only=True)
class ViewPair:
    """Two views of one image.

    Attributes:
        levels: uint8 or uint16 `[2, H, H, C]`, as the network sees them but for the normalisation.
        boxes: Where they lie in the image.
        truth: int64 `[N]`: the patch of the second view that shows the centre of each patch of the first; -1 where
            none does.
        grid: Patches per side.
        source_size: Width and height of the image.
    """

    levels: NDArray[np.unsignedinteger[Any]]
    boxes: tuple[ViewBox, ViewBox]
    truth: NDArray[np.int64]
    grid: int
    source_size: tuple[int, int]

    def picture(self, view: int) -> Image.Image:
        """One of the two views, mode `L` or `RGB`; see `ibot_cli.data.formats.bands.displayable`."""
        return displayable(self.levels[view])

    def pixels(self, recipe: ViewRecipe) -> Tensor:
        """float32 `[2, C, H, H]` for the network."""
        return normalise(torch.from_numpy(self.levels), recipe.mean, recipe.std)


class NoOverlap(DataError):
    """An image, far longer than wide, whose views do not meet.

    Args:
        size: Its width and height in pixels.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.reason = f"{ATTEMPTS} pairs of views of its {size[0]} x {size[1]} pixels did not overlap"
        super().__init__(
            f"{ATTEMPTS} pairs of views of an image of {size[0]} x {size[1]} pixels did not overlap.",
            "Cut the image into parts.",
        )


def pair_recipe(
    loaded: LoadedBackbone, size: int, scale: tuple[float, float], changes: Changes = "published"
) -> ViewRecipe:
    """Two crops of published shape, and how they may be mirrored, jittered and turned grey.

    There is no rotation, blur or solarisation. What a network has never seen in training, such as mirrored digits, it
    cannot match either, so the changes may be those of its run.

    Args:
        loaded: The network: its channels and statistics, and how its run saw images.
        size: Side of a view in pixels.
        scale: Range of a crop's area, as a share of the largest crop that fits.
        changes: `run` is as in training, or as published where that is not known.
    """
    views = ViewsConfig(
        num_global=2,
        num_local=0,
        global_size=size,
        global_scale=scale,
        blur_prob_first=0.0,
        blur_prob_other=0.0,
        solarize_prob=0.0,
    )
    if changes == "none":
        views = replace(views, flip_prob=0.0, jitter_prob=0.0, gray_prob=0.0)
    elif changes == "run" and loaded.views is not None:
        views = replace(views, **{name: getattr(loaded.views, name) for name in _OF_THE_RUN})
    data = DataConfig(channels=loaded.channels, mean=loaded.mean, std=loaded.std)
    return ViewRecipe.from_config(views, data)


def changes_in_words(recipe: ViewRecipe) -> str:
    """Such as `mirrored 50%, jitter 80% (brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1), grey 20%`."""
    strengths = recipe.strengths[0]
    jitter = {name: getattr(strengths, name) for name in ("brightness", "contrast", "saturation", "hue")}
    strong = ", ".join(f"{name} {value:g}" for name, value in jitter.items() if value)
    parts = [
        f"mirrored {strengths.flip_prob:.0%}" if strengths.flip_prob else "not mirrored",
        f"jitter {strengths.jitter_prob:.0%} ({strong})" if strengths.jitter_prob and strong else "no jitter",
        *([f"grey {strengths.gray_prob:.0%}"] if strengths.gray_prob else []),
    ]
    return ", ".join(parts)


def draw_pair(
    image: np.ndarray | Image.Image, recipe: ViewRecipe, grid: int, *, seed: int, place: int = 0, number: int = 0
) -> ViewPair:
    """Two views in which at least one patch has a counterpart; drawn anew until it is so.

    Args:
        image: Levels `[H, W, C]` as the recipe has channels, or an image of mode `L` or `RGB` that has them.
        recipe: Two global views without rotation.
        grid: Patches per side.
        seed: Of everything random.
        place: Which image it is.
        number: Which pair of it.

    Raises:
        NoOverlap: A hundred draws gave none.
    """
    levels = image if isinstance(image, np.ndarray) else stack_images([image])[0]
    size = levels.shape[1], levels.shape[0]
    fitting = replace(recipe, global_scale=_fitting_scale(size, recipe))
    for attempt in range(ATTEMPTS):
        rng = stream(seed, place, number * ATTEMPTS + attempt, "correspondence")
        drawn = draw_views(*size, fitting, rng)
        boxes = (_box(drawn[0]), _box(drawn[1]))
        truth = boxes[1].patches_at(boxes[0].centers(grid), grid)
        if (truth >= 0).any():
            crops = torch.from_numpy(np.stack([_cut(levels, view) for view in drawn]))
            changes = pack_changes([view.changes for view in drawn])
            changed = change_levels(crops, changes, threshold=recipe.solarize_threshold)
            return ViewPair(levels=changed.numpy(), boxes=boxes, truth=truth, grid=grid, source_size=size)
    raise NoOverlap(size)


def _cut(levels: np.ndarray, view: DrawnView) -> np.ndarray:
    left, top, width, height = view.box
    return resized_levels(levels[top : top + height, left : left + width], view.size, view.size)


def _fitting_scale(size: tuple[int, int], recipe: ViewRecipe) -> tuple[float, float]:
    """The scale as a share of the image's area.

    Where no crop of the allowed shapes is as large as that, all would else be the same one in the middle.
    """
    shape = size[0] / size[1]
    low, high = recipe.aspect
    most = min(1.0, high / shape, shape / low)
    return recipe.global_scale[0] * most, recipe.global_scale[1] * most


def _box(view: DrawnView) -> ViewBox:
    left, top, width, height = view.box
    return ViewBox(left=left, top=top, width=width, height=height, flip=view.changes.flip)
