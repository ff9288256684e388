"""Arguments and options that several commands share, so that they are spelled and explained the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ibot_cli.errors import UsageError

WEIGHTS_HELP = (
    "A run directory; a checkpoint or export of ours; a file of iBOT, DINO, DINOv2, BEiT, MAE or timm (.pth, "
    ".safetensors); a folder of timm or Hugging Face; or timm:NAME."
)
WeightsArgument = Annotated[str, typer.Argument(metavar="WEIGHTS", help=WEIGHTS_HELP, show_default=False)]
LabelledData = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Labelled images: a folder with class sub-folders (train/ and val/ inside are used), a CSV file, tar "
        "shards, hf:NAME or hf:FOLDER, builtin:digits or builtin:photos.",
        show_default=False,
    ),
]
AnyData = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A folder of images, a text or CSV file of paths, tar shards, hf:NAME or hf:FOLDER, builtin:digits or "
        "builtin:photos.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of a table.")]
NoBaselines = Annotated[bool, typer.Option("--no-baselines", help="Skip random weights and raw pixels.")]
NoCache = Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache of features.")]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:N or auto.", show_default=False)]
Workers = Annotated[
    int | None,
    typer.Option(metavar="N", help="Loader processes; 0 loads in the main process.", min=0, show_default=False),
]
Heads = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Attention heads of a ViT of unusual width; no tensor shows them.", min=1, show_default=False
    ),
]
Partial = Annotated[
    bool, typer.Option("--partial", help="Load the tensors that fit, report the others; at least half must fit.")
]
Which = Annotated[Literal["teacher", "student"], typer.Option(help="The network of a checkpoint that holds both.")]
Precision = Annotated[str, typer.Option(metavar="TYPE", help="Arithmetic of the feature pass: fp32 or bf16.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything random.", min=0)]
Preset = Annotated[
    str | None, typer.Option(metavar="NAME", help="A recipe; see `ibot presets list`.", show_default=False)
]
ConfigFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A YAML file with settings; wins over the preset.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="One setting, for example optim.lr=1e-3; may be repeated."),
]
RunOut = Annotated[Path | None, typer.Option(metavar="DIR", help="The run directory to write.")]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="WEIGHTS",
        help="Start from trained weights: anything that WEIGHTS can be elsewhere.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in --out.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved plan and run no step.")]


def positive_integers(option: str, text: str, example: str) -> list[int]:
    """As `whole_numbers`, from 1 on."""
    return whole_numbers(option, text, example, least=1)


def whole_numbers(option: str, text: str, example: str, *, least: int = 0) -> list[int]:
    """The numbers of an option that takes several, separated by commas.

    Args:
        option: Its name, for the message.
        text: What was given.
        example: What could have been.
        least: 0 or 1.

    Raises:
        UsageError: One of them is no whole number, or below `least`.
    """
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if not part.isdecimal() or int(part) < least]
    if wrong:
        kind = "positive whole number" if least else "whole number"
        raise UsageError(f"{option} {text}: {wrong[0]!r} is not a {kind}.", f"Write for example {option} {example}.")
    return [int(part) for part in parts]
