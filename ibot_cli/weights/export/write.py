"""`export`: write a form beside its place, read it back, compare, describe, and only then move it there."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ibot_cli.errors import ExportError, IBotError, UsageError
from ibot_cli.weights.export.agreement import Agreement, cosines
from ibot_cli.weights.export.card import CARD, Measured, RecordedFigure, model_card
from ibot_cli.weights.export.compare import Images, Network, compare
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.place import check_place, filled_place, final_name, is_single_file
from ibot_cli.weights.export.subject import Subject

Judge = Callable[[Network], Agreement]
NEEDED = {"hf": ("transformers",), "onnx": ("onnx", "onnxruntime", "onnxscript")}


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """What was written and how far it is from the network it came from.

    Attributes:
        form: Its name.
        title: Of the form, for people.
        reader: The library that read it back.
        out: The folder or file.
        files: Names and sizes in bytes.
        image_size: Side in pixels of the images that it takes.
        num_images: Compared.
        differences: Largest |difference| / largest |value| per output, at `image_size`.
        tolerance: What they had to stay below.
        other_size: Side in pixels of the other comparison; None where the form takes one size only.
        elsewhere: As `differences` at `other_size`, where the target's own position interpolation counts.
        agreement: Accuracy and cosine on data, before and after; None for fp32.
        usage: Python lines that open it.
        notes: What the user should be told.
    """

    form: str
    title: str
    reader: str
    out: str
    files: Mapping[str, int]
    image_size: int
    num_images: int
    differences: Mapping[str, float]
    tolerance: float
    other_size: int | None
    elsewhere: Mapping[str, float] | None
    agreement: Agreement | None
    usage: str
    notes: tuple[str, ...]


def check_export(form: Form, out: Path, options: ExportOptions) -> None:
    """Refuse, before any weights are loaded, what cannot be written.

    Raises:
        UsageError: An optional package is missing, the place is taken, or the form has no such precision.
    """
    check_extra(form)
    if options.precision not in ("fp32", *form.reduced):
        raise UsageError(f"--{options.precision}: the form {form.name} has fp32 weights only.", "Use --to onnx for it.")
    check_place(form, out)


def check_extra(form: Form) -> None:
    """Refuse a form whose packages are not installed.

    Raises:
        UsageError: It says what to install.
    """
    missing = [name for name in NEEDED.get(form.extra or "", ()) if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--to {form.name} needs what is not installed: {', '.join(missing)}.",
            f"pip install 'ibot-cli[{form.extra}]'",
        )


def export(
    subject: Subject,
    form: Form,
    out: Path,
    options: ExportOptions,
    images: Images,
    *,
    judge: Judge | None = None,
    figures: Sequence[RecordedFigure] = (),
) -> ExportResult:
    """Write one form; nothing is left at `out` unless it was read back and is the same network.

    Args:
        subject: The network.
        form: One of `FORMS`.
        out: A new or empty folder, or a path that ends as the form's single file does.
        options: What else was chosen.
        images: The images of the comparison; see `comparison_images`.
        judge: Compares what was read back with the network on data, where the precision is not fp32; see
            `ibot_cli.evaluate.exported.agreement_on`. Without it the images of the comparison are used.
        figures: What the run has recorded about these weights, for the card.

    Raises:
        UsageError: See `check_export`.
        WeightsError: The form cannot hold this network.
        ExportError: What was written does not open or differs by more than the form's tolerance, or the disk is full.
    """
    check_export(form, out, options)
    form.check(subject, options)
    with filled_place(form, out) as folder:
        form.write(subject, folder, options)
        measured = _measured(subject, form, folder, options, images, judge)
        opened = out if form.file is None or is_single_file(form, out) else out / form.file
        card = model_card(subject, form, options, measured, form.usage(subject, opened.name), figures)
        (folder / CARD).write_text(card, encoding="utf-8")
        files = {
            final_name(form, out, path): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()
        }
    return ExportResult(
        form=form.name,
        title=form.title,
        reader=form.reader or form.library,
        out=str(out),
        files=files,
        image_size=subject.image_size,
        num_images=measured.num_images,
        differences=measured.differences,
        tolerance=measured.tolerance,
        other_size=measured.other_size,
        elsewhere=measured.elsewhere,
        agreement=measured.agreement,
        usage=form.usage(subject, str(opened)),
        notes=(*subject.loaded.notes, *measured.notes),
    )


def _measured(
    subject: Subject, form: Form, folder: Path, options: ExportOptions, images: Images, judge: Judge | None
) -> Measured:
    opened, batch = _opened(form, folder), images(subject.image_size)
    differences = compare(subject.network, opened, batch, form.leaves_out)
    tolerance = form.reduced.get(options.precision, form.tolerance)
    name, worst = max(differences.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])
    if not worst <= tolerance:
        raise ExportError(
            f"The exported {form.name} is not the network it came from: `{name}` differs by {worst:.1e} of its largest "
            f"value on {len(batch)} images; the tolerance is {tolerance:.0e}.",
            "Nothing was written. Please report this with the command and the versions of the libraries."
            if options.precision == "fp32"
            else f"Nothing was written. The network does not bear {options.precision}; export it in fp32.",
        )
    other = _other_size(subject) if form.resizes else None
    return Measured(
        num_images=len(batch),
        differences=differences,
        tolerance=tolerance,
        other_size=other,
        elsewhere=None if other is None else compare(subject.network, opened, images(other), form.leaves_out),
        agreement=None if options.precision == "fp32" else (judge or _judged_by(subject, batch))(opened),
        notes=form.notes(subject, options),
    )


def _opened(form: Form, folder: Path) -> Network:
    try:
        return form.read_back(folder)
    except (IBotError, OSError):
        raise
    except Exception as error:  # other libraries raise what they like
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ExportError(
            f"{form.reader or form.library} does not open what was written for it: {reason}",
            "Nothing was written. Please report this with the command and the versions of the libraries.",
        ) from error


def _judged_by(subject: Subject, batch: Tensor) -> Judge:
    """By the features of a few images alone."""

    def judge(opened: Network) -> Agreement:
        with torch.no_grad():
            mean, least = cosines(subject.network(batch)["cls"], opened(batch)["cls"])
        return Agreement(data="the comparison", num_images=len(batch), cosine_mean=mean, cosine_least=least)

    return judge


def _other_size(subject: Subject) -> int | None:
    """Half as large again, in whole patches; a Swin has no positions to resize."""
    if subject.kind != "vit" or subject.stride is None:
        return None
    return max(1, round(subject.image_size * 0.5 / subject.stride)) * subject.stride + subject.image_size
