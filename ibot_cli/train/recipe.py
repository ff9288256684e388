"""The recipe of a new run: settings from the request, the preset, weights and the number of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ibot_cli.config import presets
from ibot_cli.config.load import Resolved, flatten, from_mapping, resolve
from ibot_cli.config.schema import Config, OptimConfig
from ibot_cli.data.channel_statistics import has_usual_statistics, measure_statistics
from ibot_cli.data.sources import Source, open_source
from ibot_cli.train.choices import Choice, automatic_choices, changed_paths, continued_choices, frozen_epochs
from ibot_cli.train.inherited import inherited_choices, said
from ibot_cli.train.plan import known
from ibot_cli.train.request import CONTINUE_PRESET, DEMO_DATA, EMBEDDED_PRESETS, Request, openable_anywhere
from ibot_cli.train.start import Beginning, Start, begin, head_fits, read_start


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is settled before anything is known about the machine.

    Attributes:
        data: DATA, also where it was left out.
        source: The images.
        resolved: The configuration and its origins.
        choices: What was chosen for the number of images and taken over from weights.
        reference_epochs: Length that the durations were written for.
        beginning: The weights that the networks start from, or None for random ones.
    """

    data: str
    source: Source
    resolved: Resolved
    choices: Mapping[str, Choice]
    reference_epochs: int
    beginning: Beginning | None = None


def settle(request: Request) -> Recipe:
    """Resolves the configuration, reads the weights that it names and opens the images.

    Raises:
        ConfigError: Settings are wrong; all problems at once.
        UsageError: Settings that contradict the weights.
        WeightsError: The weights cannot be read or trained.
        DataError: The images cannot be used.
    """
    data = request.data or DEMO_DATA
    bare = request.resolve(weights_known=not request.continues())
    start = _start(bare)
    taken = _taken_over(request, bare, start)
    resolved = request.resolve(taken)
    images = resolved.config.data
    source = open_source(
        data, channels=images.channels, bits=images.bits, decoder=images.decoder or "auto", split="train"
    )
    choices: dict[str, Choice] = {}
    if request.recipe() is None:
        # Asked twice: what the user set decides some of the choices, and overrules others.
        by_size = automatic_choices if start is None else continued_choices
        choices = by_size(len(source), _user_view(request, resolved))
        resolved = request.resolve({**choices, **taken})
    if start is not None:
        choices |= taken | _freeze(start, resolved.config, len(source))
        resolved = _anchored(request.resolve(choices))
    resolved, measured = with_statistics(resolved, source)
    return Recipe(
        data=data,
        source=source,
        resolved=resolved,
        choices=_effective(choices, taken, bare, resolved) | measured,
        reference_epochs=_reference_epochs(request, choices, resolved),
        beginning=None if start is None else begin(start, resolved.config),
    )


def with_statistics(resolved: Resolved, source: Source) -> tuple[Resolved, dict[str, Choice]]:
    """Mean and deviation of images that have no usual ones, where they are open."""
    data = resolved.config.data
    if has_usual_statistics(data.channels, data.bits) or None not in (data.mean, data.std):
        return resolved, {}
    found = measure_statistics(source, channels=data.channels, bits=data.bits)
    measured = {f"data.{name}": (getattr(found, name), found.reason) for name in ("mean", "std")}
    open_ones = {path: choice for path, choice in measured.items() if flatten(resolved.config)[path] is None}
    data = replace(data, mean=data.mean or found.mean, std=data.std or found.std)
    return replace(resolved, config=replace(resolved.config, data=data)), open_ones


def _start(bare: Resolved) -> Start | None:
    init, heads = bare.config.init, bare.config.model.heads
    if init.weights is not None:
        init = replace(init, weights=openable_anywhere(init.weights))
    return read_start(init, heads if said("model.heads", bare) else None)


def _taken_over(request: Request, bare: Resolved, start: Start | None) -> dict[str, Choice]:
    """What the weights decide, and how the recipe of embedded data changes for networks that are trained."""
    if start is None:
        return {}
    embedded = (request.data or DEMO_DATA) in EMBEDDED_PRESETS
    taken = inherited_choices(start, bare, fixed_channels=embedded)
    if request.preset is None and request.recipe() is not None:
        taken |= _gentler(bare)
    return taken


def _gentler(bare: Resolved) -> dict[str, Choice]:
    """What the preset for continued training says in relation to the published recipe, of another recipe.

    Views, masks, head and targets suit the data and stay.
    """
    gentle, optim = presets.load(CONTINUE_PRESET).values, bare.config.optim
    share = gentle["optim.lr"] / OptimConfig().lr
    why = f"preset {CONTINUE_PRESET}"
    less = f"{share:g} of the recipe's rate, as {why}"
    momentum = 1 - share * (1 - bare.config.objective.teacher_momentum)
    epochs = known(bare.config.train.epochs)
    epochs = epochs if said("train.epochs", bare) else max(1, epochs // 4)
    return {
        "optim.lr": (float(f"{optim.lr * share:.6g}"), less),
        "optim.min_lr": (float(f"{optim.min_lr * share:.6g}"), less),
        "optim.layer_decay": (gentle["optim.layer_decay"], why),
        "objective.teacher_momentum": (float(f"{momentum:.6g}"), f"{share:g} of the pace of the recipe's teacher"),
        "init.head_lr": (optim.lr, "the recipe's rate: a new head learns from random weights"),
        "optim.warmup_epochs": (max(1, epochs // 10), f"a tenth of {epochs} epochs, at least 1"),
        "train.epochs": (epochs, "a quarter of the recipe's epochs: the networks are trained already"),
    }


def _freeze(start: Start, config: Config, num_images: int) -> dict[str, Choice]:
    """How long only the head learns, where that is open."""
    if config.init.freeze_backbone_epochs is not None:
        return {}
    steps = num_images // known(config.train.batch_size)
    kept = head_fits(start.loaded.head, config.head)
    return {"init.freeze_backbone_epochs": frozen_epochs(known(config.train.epochs), steps, kept)}


def _anchored(resolved: Resolved) -> Resolved:
    """Weights that a setting or a file names, openable from anywhere like those of the flag."""
    init = resolved.config.init
    path = openable_anywhere(known(init.weights))
    return replace(resolved, config=replace(resolved.config, init=replace(init, weights=path)))


def _effective(
    choices: Mapping[str, Choice], taken: Mapping[str, Choice], bare: Resolved, resolved: Resolved
) -> dict[str, Choice]:
    """The choices that decided something: not those overruled, nor what the recipe had anyway."""
    before, now = flatten(bare.config), flatten(resolved.config)
    real = changed_paths(choices, resolved.origin)
    return {path: choice for path, choice in real.items() if path not in taken or before[path] != now[path]}


def _user_view(request: Request, resolved: Resolved) -> Config:
    """The configuration in which the number of epochs is open unless the user gave it."""
    if resolved.origin["train.epochs"].startswith(("preset", "default")):
        return from_mapping({"train": {"epochs": "auto"}}, "choices")
    return from_mapping({"train": {"epochs": resolved.config.train.epochs}}, "choices")


def _reference_epochs(request: Request, choices: Mapping[str, Choice], resolved: Resolved) -> int:
    """Length that the durations of the recipe were written for."""
    if "train.epochs" in changed_paths(choices, resolved.origin):
        return int(choices["train.epochs"][0])
    recipe = resolve(preset=request.base(), file=None, sets=())
    return known(recipe.config.train.epochs)
