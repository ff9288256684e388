"""The first samples of an epoch, from the loader that training uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ibot_cli.config.schema import Config
from ibot_cli.core.batch import Batch
from ibot_cli.data.bad_files import BadFiles
from ibot_cli.data.loader import StepData
from ibot_cli.data.rng import epoch_order, stream
from ibot_cli.data.sources import Source
from ibot_cli.data.transform import DrawnView, ViewRecipe, draw_views
from ibot_cli.errors import UsageError
from ibot_cli.train.build import masks_of, stride_of, view_loader
from ibot_cli.train.choices import fit_durations
from ibot_cli.train.recipe import Recipe, settle
from ibot_cli.train.request import Request
from ibot_cli.visualize.views.result import Point, SamplePixels, SeenSample, SeenView, TrainingViews

_MEASURED = 1_000  # samples whose masks are drawn for the mean


def training_views(request: Request, *, num: int, epoch: int = 0) -> tuple[TrainingViews, list[SamplePixels], Source]:
    """The views and masks of the first samples of an epoch, exactly as a run of this request sees them.

    Args:
        request: DATA and the recipe, as for `ibot pretrain`.
        num: Samples; fewer where DATA hold fewer images.
        epoch: Counted from 0.

    Returns:
        What was drawn, the pixels of each sample in the same order, and the images.

    Raises:
        ConfigError: Settings are wrong; all problems at once.
        DataError: The images cannot be used, or too many are unreadable.
        UsageError: No samples, or an epoch that the run does not have.
    """
    if num < 1:
        raise UsageError(f"--num {num}: there is nothing to show.", "Ask for one sample at least.")
    recipe = settle(request)
    config = _fitted(recipe)
    _check_epoch(epoch, config)
    step, bad = _first_of(config, recipe.source, min(num, len(recipe.source)), epoch)
    grid = config.views.global_size // stride_of(config)
    pixels = _pixels(step.micro, ViewRecipe.from_config(config.views, config.data), grid, config.data.bits)
    shares, count = _mask_shares(config, len(recipe.source), epoch)
    result = TrainingViews(
        data=recipe.data,
        num_images=len(recipe.source),
        preset=request.recipe(),
        seed=config.train.seed,
        epoch=epoch,
        views=config.views,
        mask=None if config.objective.patch == "none" else config.mask,
        grid=grid,
        masked_share=float(shares.mean()),
        unmasked_share=float((shares == 0).mean()),
        num_masks=count,
        samples=tuple(_samples(config, recipe.source, step, pixels, epoch)),
        unreadable=bad.state_dict(),
    )
    return result, pixels, recipe.source


def _fitted(recipe: Recipe) -> Config:
    """The configuration with durations cut to the run, as a plan has it: masks may begin earlier."""
    config = recipe.resolved.config
    if config.train.epochs is None:
        return config
    return fit_durations(config, config.train.epochs, recipe.reference_epochs)[0]


def _check_epoch(epoch: int, config: Config) -> None:
    epochs = config.train.epochs
    if epoch < 0 or (epochs is not None and epoch >= epochs):
        raise UsageError(
            f"--epoch {epoch}: the run has the epochs 0 to {(epochs or 1) - 1}.", "They are counted from 0."
        )


def _first_of(config: Config, source: Source, num: int, epoch: int) -> tuple[StepData, BadFiles]:
    """A step that holds exactly the first samples of an epoch, whatever the batch of the run."""
    loader = view_loader(config, source, batch_size=num, micro_batch_size=num)
    first = epoch * loader.steps_per_epoch
    (step,) = loader.steps(first, first + 1)
    return step, loader.bad


def _pixels(batches: Sequence[Batch], recipe: ViewRecipe, grid: int, bits: int) -> list[SamplePixels]:
    (batch,) = batches
    views, crops = (levels_of(part, recipe, bits) for part in (batch.global_views, batch.local_views))
    masks = batch.mask.unflatten(2, (grid, grid)).numpy()
    return [SamplePixels(views[:, row], crops[:, row], masks[:, row]) for row in range(batch.num_images)]


def levels_of(views: Tensor, recipe: ViewRecipe, bits: int = 8) -> NDArray[np.unsignedinteger[Any]]:
    """Undo the normalisation, to the nearest whole level.

    Args:
        views: float32 `[..., C, H, W]`.
        recipe: Its mean and deviation.
        bits: Of a level.

    Returns:
        uint8 or uint16 `[..., H, W, C]`.
    """
    values = np.moveaxis(views.numpy().astype(np.float64), -3, -1)
    levels = (values * np.asarray(recipe.std) + np.asarray(recipe.mean)) * (2**bits - 1)
    rounded: NDArray[np.unsignedinteger[Any]] = np.rint(levels).astype(np.uint8 if bits == 8 else np.uint16)
    return rounded


def _samples(
    config: Config, source: Source, step: StepData, pixels: Sequence[SamplePixels], epoch: int
) -> list[SeenSample]:
    recipe, masked = ViewRecipe.from_config(config.views, config.data), config.objective.patch != "none"
    found = []
    for sample, used, part in zip(step.samples.tolist(), step.used.tolist(), pixels, strict=True):
        size = source.open(used).size
        drawn = draw_views(*size, recipe, stream(config.train.seed, sample, epoch, "crops"))
        ratios = [float(mask.mean()) if masked else 0.0 for mask in part.masks] + [None] * recipe.num_local
        views = [
            _seen(view, size, number, ratio) for number, (view, ratio) in enumerate(zip(drawn, ratios, strict=True), 1)
        ]
        found.append(SeenSample(sample=sample, used=used, path=source.path(used), source_size=size, views=tuple(views)))
    return found


def _seen(view: DrawnView, size: tuple[int, int], number: int, mask_ratio: float | None) -> SeenView:
    changes, (_, _, width, height) = view.changes, view.box
    return SeenView(
        kind="local" if mask_ratio is None else "global",
        number=number,
        size=view.size,
        box=view.box,
        corners=_corners(view, size),
        share=width * height / (size[0] * size[1]),
        degrees=view.degrees,
        flip=changes.flip,
        jitter=bool(changes.jitter),
        gray=changes.gray,
        blur_radius=changes.blur_radius,
        solarize=changes.solarize,
        mask_ratio=mask_ratio,
    )


def _corners(view: DrawnView, size: tuple[int, int]) -> tuple[Point, Point, Point, Point]:
    """The crop's corners in the source that was not turned; the way that `crop_resized` takes its pixels."""
    left, top, width, height = view.box
    x, y = size[0] / 2, size[1] / 2
    cos, sin = math.cos(math.radians(view.degrees)), math.sin(math.radians(view.degrees))

    def back(across: int, down: int) -> Point:
        dx, dy = left + across * width - x, top + down * height - y
        return x + cos * dx - sin * dy, y + sin * dx + cos * dy

    return back(0, 0), back(1, 0), back(1, 1), back(0, 1)


def _mask_shares(config: Config, num_images: int, epoch: int) -> tuple[NDArray[np.float64], int]:
    """Masked share of each global view of the first samples of the epoch, and their number."""
    samples = epoch_order(config.train.seed, epoch, num_images)[:_MEASURED].tolist()
    masks, per_sample = masks_of(config), config.views.num_global
    if masks is None or epoch < config.mask.start_epoch:
        return np.zeros(len(samples) * per_sample), len(samples) * per_sample
    shares = []
    for sample in samples:
        rng = stream(config.train.seed, sample, epoch, "mask")
        shares += [masks.draw(rng).mean() for _ in range(per_sample)]
    return np.array(shares), len(shares)
