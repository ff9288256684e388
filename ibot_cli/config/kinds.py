"""The kinds of configuration: pre-training and fine-tuning, each with its schema, its checks and its command."""

from __future__ import annotations

from dataclasses import dataclass

from ibot_cli.config.checks import CHECKS, Check
from ibot_cli.config.finetune import FinetuneConfig
from ibot_cli.config.finetune_checks import FINETUNE_CHECKS
from ibot_cli.config.schema import Config


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of configuration.

    Args:
        name: For machines: `pretrain` or `finetune`.
        noun: For people, as in "a setting of ...".
        command: The command that takes it.
        root: Its schema.
        checks: What its settings must fulfil together.
        prefix: What the names of its presets begin with, or "" for every name that belongs to no other kind.
        example: The preset that shows every setting best.
    """

    name: str
    noun: str
    command: str
    root: type
    checks: tuple[Check, ...]
    prefix: str
    example: str


PRETRAIN = Kind(
    name="pretrain",
    noun="pre-training",
    command="ibot pretrain",
    root=Config,
    checks=CHECKS,
    prefix="",
    example="ibot_vits16",
)
FINETUNE = Kind(
    name="finetune",
    noun="fine-tuning",
    command="ibot finetune",
    root=FinetuneConfig,
    checks=FINETUNE_CHECKS,
    prefix="finetune_",
    example="finetune_vits16",
)
KINDS = (PRETRAIN, FINETUNE)


def kind_of(root: type) -> Kind:
    """The kind whose schema is `root`."""
    return next(kind for kind in KINDS if kind.root is root)


def kind_of_preset(name: str) -> Kind:
    """The kind of the preset `name`, which its name says."""
    return next((kind for kind in KINDS if kind.prefix and name.startswith(kind.prefix)), PRETRAIN)
