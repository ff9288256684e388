"""A form in which weights leave: how it is checked, written, read back and opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from ibot_cli.weights.export.subject import Subject
from ibot_cli.weights.loaded import LoadedBackbone

Precision = Literal["fp32", "fp16", "int8"]
TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the user chose besides the form.

    Attributes:
        with_head: Whether the projection head goes with it.
        precision: Of the weights in the file; only ONNX has others than `fp32`.
        licence: What the card says; None where the user did not say.
        student: The other network of a checkpoint that holds both, for the full layout of the authors; None for the
            backbone alone.
    """

    with_head: bool = False
    precision: Precision = "fp32"
    licence: str | None = None
    student: LoadedBackbone | None = None


def _no_notes(subject: Subject, options: ExportOptions) -> tuple[str, ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Form:
    """One value of `--to`.

    Attributes:
        name: As typed.
        title: For people.
        file: The single file that it consists of; None for a folder of several.
        extra: The optional dependencies that it needs: `hf`, `onnx`; None without.
        library: Of the model card's metadata, by which a hub knows how to open it.
        check: Refuses what the form cannot hold, before anything is written; raises WeightsError or UsageError.
        write: Fills an empty folder.
        read_back: Opens that folder with the target's own library; the result takes normalised images
            `[B, C, H, W]` and gives outputs by the names of `Reference.forward`, as many as the form has.
        usage: Python lines that open it; the second argument is the path.
        reader: The library that reads it back, where that is not `library`.
        notes: What the user should be told about what the form leaves out.
        takes_both: Of forms that hold student and teacher: whether their heads, given the teacher and the student,
            go with them; None for forms of one network.
        leaves_out: Outputs that the form has no place for; the comparison asks for all others.
        resizes: Whether what was read back takes images of other sizes, by the target's own position interpolation.
        tolerance: Largest relative difference in fp32.
        reduced: The tolerance of every other precision that the form has.
    """

    name: str
    title: str
    file: str | None
    extra: str | None
    library: str
    check: Callable[[Subject, ExportOptions], None]
    write: Callable[[Subject, Path, ExportOptions], None]
    read_back: Callable[[Path], Callable[[Tensor], dict[str, Tensor]]]
    usage: Callable[[Subject, str], str]
    reader: str | None = None
    notes: Callable[[Subject, ExportOptions], tuple[str, ...]] = _no_notes
    takes_both: Callable[[LoadedBackbone, LoadedBackbone], bool] | None = None
    leaves_out: frozenset[str] = frozenset()
    resizes: bool = False
    tolerance: float = TOLERANCE
    reduced: Mapping[str, float] = field(default_factory=dict)
