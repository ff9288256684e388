"""`ibot export`: weights for other programs, read back and compared before they are handed over."""

from __future__ import annotations

from functools import partial as bound
from pathlib import Path
from typing import Annotated, Literal

import typer

from ibot_cli import console
from ibot_cli.errors import UsageError
from ibot_cli.options import Heads, Json, Partial, WeightsArgument


def export(
    weights: WeightsArgument,
    to: Annotated[
        Literal["timm", "hf", "onnx", "torch-export", "safetensors", "official"],
        typer.Option(
            metavar="FORM",
            help="A folder of timm or hf (Hugging Face), or a single file: onnx, torch-export, safetensors, or "
            "official for the layout of the authors' checkpoints.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(metavar="PATH", help="A new or empty folder, or the file itself (NAME.onnx).", show_default=False),
    ],
    which: Annotated[
        Literal["teacher", "student"] | None,
        typer.Option(
            help="The network of a checkpoint that holds both; else the teacher, and both for official.",
            show_default=False,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Side of the images it will take; else its own.", min=1, show_default=False),
    ] = None,
    with_head: Annotated[
        bool, typer.Option("--with-head", help="The projection head too, with its prototypes.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Images to compare on; else embedded ones.", show_default=False),
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Weights in half precision (onnx).")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Matrices in 8-bit integers (onnx).")] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            "--licence", "--license", metavar="NAME", help="For the model card, such as CC-BY-4.0.", show_default=False
        ),
    ] = None,
    json: Json = False,
    heads: Heads = None,
    partial: Partial = False,
) -> None:
    """Write weights in the form of another program, with a model card.

    The file is opened with that program's own library and compared with the network on real images; a difference
    above the tolerance is an error, and nothing is written.
    """
    if fp16 and int8:
        raise UsageError("--fp16 and --int8 exclude each other.", "Leave one of them out.")
    from ibot_cli.evaluate.exported import agreement_on
    from ibot_cli.evaluate.recorded import recorded_figures
    from ibot_cli.export_view import show
    from ibot_cli.progress import waiting
    from ibot_cli.weights.export.compare import comparison_images
    from ibot_cli.weights.export.forms import FORMS, ExportOptions
    from ibot_cli.weights.export.request import open_subject
    from ibot_cli.weights.export.write import check_export
    from ibot_cli.weights.export.write import export as library

    form = FORMS[to]
    options = ExportOptions(
        with_head=with_head, precision="fp16" if fp16 else "int8" if int8 else "fp32", licence=licence
    )
    check_export(form, out, options)
    with waiting("loading the weights"):
        subject, options = open_subject(weights, form, options, which, image_size, heads=heads, partial=partial)
        images = comparison_images(subject, data)
    judge = None if data is None else bound(agreement_on, subject, data=data)
    with waiting(f"writing and reading back {form.title}"):
        result = library(subject, form, out, options, images, judge=judge, figures=recorded_figures(subject.loaded))
    show(result)
    if json:
        console.emit_json(result)
