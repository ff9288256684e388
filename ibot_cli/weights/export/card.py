"""The model card of an export: what it is, how it was made, how good it is, and how to open it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import yaml

from ibot_cli import __version__
from ibot_cli.quantities import counted
from ibot_cli.weights.export import many_bands
from ibot_cli.weights.export.agreement import Agreement
from ibot_cli.weights.export.compare import difference_text
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.history import class_names, data_name, data_text, method_text, recipe_text, title_of
from ibot_cli.weights.export.subject import Subject

CARD = "README.md"
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")
_KINDS = {"vit": "vision-transformer", "swin": "swin-transformer", "other": "image-features"}


@dataclass(frozen=True, kw_only=True)
class RecordedFigure:
    """One number that the run has recorded about the weights.

    Attributes:
        measure: What was measured.
        data: On which images; a name, never a path.
        value: The number.
        percent: Whether people read it as a percentage.
        random: The same of random weights; None when not measured.
        pixels: The same of raw pixels; None when not measured.
    """

    measure: str
    data: str
    value: float
    percent: bool
    random: float | None
    pixels: float | None

    def text(self, value: float | None) -> str:
        """`value` as this figure is read; empty for None."""
        if value is None:
            return ""
        return f"{value:.1%}" if self.percent else f"{value:.3f}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What reading back showed; the fields are those of `ExportResult`."""

    num_images: int
    differences: Mapping[str, float]
    tolerance: float
    other_size: int | None
    elsewhere: Mapping[str, float] | None
    agreement: Agreement | None
    notes: tuple[str, ...] = ()

    @property
    def classifies(self) -> bool:
        """Whether the file gives class scores."""
        return "logits" in self.differences


def model_card(
    subject: Subject,
    form: Form,
    options: ExportOptions,
    measured: Measured,
    usage: str,
    figures: Sequence[RecordedFigure] = (),
) -> str:
    """Markdown with YAML metadata in front.

    Args:
        subject: The network.
        form: What was written.
        options: Says the licence.
        measured: What reading back showed.
        usage: The lines that open it.
        figures: What the run has recorded about these weights.
    """
    sections = [
        (f"# {title_of(subject, measured.classifies)}", _facts(subject, form, measured)),
        ("## How to open it", f"```python\n{usage}\n```"),
        ("## Preparation of images", _preparation(subject)),
        ("## From the original file", _from_elsewhere(subject)),
        ("## Training data", data_text(subject)),
        ("## Recipe", recipe_text(subject)),
        ("## Results", _results(figures)),
        ("## Check of this file", _check(form, options, measured)),
        ("## Licence", _licence(options.licence)),
    ]
    texts = [f"{heading}\n\n{text}" for heading, text in sections if text]
    return f"---\n{_metadata(subject, form, options, measured)}---\n\n" + "\n\n".join(texts) + "\n"


def _metadata(subject: Subject, form: Form, options: ExportOptions, measured: Measured) -> str:
    """What hubs read."""
    method, licence = subject.loaded.origin.method, options.licence
    tags = [_KINDS[subject.kind]]
    if method not in (None, "supervised"):
        tags += ["self-supervised-learning", str(method).lower().replace(" ", "-")]
    stated = {"license": "unknown"}
    if licence is not None and _IDENTIFIER.fullmatch(licence):
        stated = {"license": licence.lower()}
    elif licence is not None:
        stated = {"license": "other", "license_name": licence}
    content = {
        "library_name": form.library,
        "pipeline_tag": "image-classification" if measured.classifies else "image-feature-extraction",
        "tags": tags,
        **stated,
    }
    text: str = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    return text


def _facts(subject: Subject, form: Form, measured: Measured) -> str:
    parameters = sum(value.numel() for value in subject.network.backbone.parameters())
    size, origin = subject.image_size, subject.loaded.origin
    rows = [
        ("Method", method_text(origin)),
        ("Network", _network_text(subject)),
        ("Parameters", f"{parameters:,} in the backbone"),
        ("Takes", f"any number of {many_bands.kind_of_images(subject)} images of {size} x {size} pixels"),
        ("Gives", _outputs(subject, measured)),
        *([("Classes", class_names(subject.classes or ()))] if measured.classifies else []),
        ("Form", f"{form.title}, written by ibot {__version__}"),
    ]
    if size != subject.native_image_size:
        native = subject.native_image_size
        rows.append(("Trained at", f"{native} x {native} pixels; positions were resized to {size} x {size}"))
    missing = len(subject.loaded.missing)
    if missing:
        rows.append(
            ("Incomplete", f"{counted(missing, 'tensor')} of the network not in the original file; fresh random values")
        )
    return _table(("", ""), rows)


def _network_text(subject: Subject) -> str:
    shape, backbone = subject.shape, subject.network.backbone
    if shape is None:
        return subject.loaded.architecture
    if subject.kind == "swin":
        return f"{shape.arch}, windows of {shape.window_size} x {shape.window_size} tokens"
    registers = f", {shape.registers} registers" if shape.registers else ""
    scale = ", layer scale" if shape.layer_scale else ""
    return (
        f"ViT: {backbone.num_blocks} blocks of width {backbone.dim}, {backbone.heads} heads, patches of "
        f"{shape.patch_size} x {shape.patch_size} pixels{registers}{scale}"
    )


@torch.no_grad()
def _outputs(subject: Subject, measured: Measured) -> str:
    outputs = subject.network(torch.zeros(1, subject.channels, subject.image_size, subject.image_size))
    shapes = {name: ", ".join(map(str, outputs[name].shape[1:])) for name in measured.differences}
    return ", ".join(f"`{name}` [B, {shape}]" for name, shape in shapes.items())


def _preparation(subject: Subject) -> str:
    size, resized = subject.image_size, math.floor(subject.image_size / subject.crop_ratio)
    channels = "one grey channel" if subject.channels == 1 else "RGB"
    first = f"Convert to {channels}."
    if not many_bands.is_plain(subject):
        first = f"Take all {subject.channels} channels, as levels from 0 to {2**subject.bits - 1:,}."
    return "\n".join(
        [
            f"1. {first}",
            f"2. Resize the shorter side to {resized} pixels, bicubic; cut out the central {size} x {size}.",
            f"3. Scale to 0..1, subtract {_numbers(subject.mean)}, divide by {_numbers(subject.std)}.",
        ]
    )


def _from_elsewhere(subject: Subject) -> str:
    """What loading the weights of others has shown; of a run of ours the notes are about its folder."""
    notes = [] if subject.loaded.origin.run is not None else subject.loaded.notes
    return "\n".join(f"- {note}" for note in notes)


def _results(figures: Sequence[RecordedFigure]) -> str:
    if not figures:
        return "No evaluation of these weights is recorded."
    rows = [
        (one.measure, f"`{one.data}`", one.text(one.value), one.text(one.random), one.text(one.pixels))
        for one in figures
    ]
    note = "Measured on the original network; an empty baseline was not measured."
    return f"{_table(('Measure', 'Data', 'These weights', 'Random weights', 'Raw pixels'), rows)}\n\n{note}"


def _check(form: Form, options: ExportOptions, measured: Measured) -> str:
    worst = max(measured.differences.values())
    precision = "" if options.precision == "fp32" else f" in {options.precision}"
    lines = [
        f"Read back with {form.reader or form.library} and compared{precision} with the network it came from, on "
        f"{measured.num_images} real images: the largest difference is {difference_text(worst)} of the largest value "
        f"(tolerance {measured.tolerance:.0e})."
    ]
    if measured.elsewhere is not None and any(measured.elsewhere.values()):
        lines.append(
            f"At {measured.other_size} x {measured.other_size} pixels, where positions are interpolated, it is "
            f"{difference_text(max(measured.elsewhere.values()))}."
        )
    if measured.agreement is not None:
        agreement = replace(measured.agreement, data=data_name(measured.agreement.data), notes=())
        lines += agreement.sentences()
    lines += measured.notes
    return " ".join(lines)


def _licence(licence: str | None) -> str:
    bound = "The licences of the training images and of any weights that the training started from count too."
    if licence is None:
        return f"Not stated. Whoever passes these weights on has to settle it. {bound}"
    return f"{licence}. {bound}"


def _numbers(values: tuple[float, ...]) -> str:
    texts = [f"{value:g}" for value in values]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *[[cell.replace("|", "\\|") for cell in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
