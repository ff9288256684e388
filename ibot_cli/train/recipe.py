"""The recipe of a new run: the settings that the request, the preset and the number of images give together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ibot_cli.config.load import Resolved, from_mapping, resolve
from ibot_cli.config.schema import Config
from ibot_cli.data.sources import Source, open_source
from ibot_cli.train.choices import Choice, automatic_choices, changed_paths
from ibot_cli.train.plan import known
from ibot_cli.train.request import DEMO_DATA, METHOD_PRESET, Request


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is settled before anything is known about the machine.

    Attributes:
        data: DATA, also where it was left out.
        source: The images.
        resolved: The configuration and its origins.
        choices: What was chosen for the number of images.
        reference_epochs: Length that the durations were written for.
    """

    data: str
    source: Source
    resolved: Resolved
    choices: Mapping[str, Choice]
    reference_epochs: int


def settle(request: Request) -> Recipe:
    """Resolves the configuration and opens the images.

    Raises:
        ConfigError: Settings are wrong; all problems at once.
        DataError: The images cannot be used.
    """
    preset, data = request.recipe(), request.data or DEMO_DATA
    resolved = request.resolve()
    source = open_source(data, channels=resolved.config.data.channels, split="train")
    choices: dict[str, Choice] = {}
    if preset is None:
        # Asked twice: what the user set decides some of the choices, and overrules others.
        choices = automatic_choices(len(source), _user_view(request, resolved))
        resolved = request.resolve(choices)
        choices = changed_paths(choices, resolved.origin)
    return Recipe(
        data=data,
        source=source,
        resolved=resolved,
        choices=choices,
        reference_epochs=_reference_epochs(preset, choices),
    )


def _user_view(request: Request, resolved: Resolved) -> Config:
    """The configuration in which the number of epochs is open unless the user gave it."""
    if resolved.origin["train.epochs"].startswith(("preset", "default")):
        return from_mapping({"train": {"epochs": "auto"}}, "choices")
    return from_mapping({"train": {"epochs": resolved.config.train.epochs}}, "choices")


def _reference_epochs(preset: str | None, choices: Mapping[str, Choice]) -> int:
    """Length that the durations of the recipe were written for."""
    if preset is None and "train.epochs" in choices:
        return int(choices["train.epochs"][0])
    recipe = resolve(preset=preset or METHOD_PRESET, file=None, sets=())
    return known(recipe.config.train.epochs)
