"""The model card of an export: what it is, how it was made, how good it is, and how to open it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ibot_cli.weights.export.agreement import Agreement
from ibot_cli.weights.export.form import ExportOptions, Form
from ibot_cli.weights.export.subject import Subject

CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What reading back showed; the fields are those of `ExportResult`."""

    num_images: int
    differences: Mapping[str, float]
    tolerance: float
    other_size: int | None
    elsewhere: Mapping[str, float] | None
    agreement: Agreement | None


def model_card(subject: Subject, form: Form, options: ExportOptions, measured: Measured, usage: str) -> str:
    """Markdown with YAML metadata in front.

    Args:
        subject: The network.
        form: What was written.
        options: Says the licence.
        measured: What reading back showed.
        usage: The lines that open it.
    """
    return f"# {subject.loaded.origin.method or 'Vision'} backbone\n\n```python\n{usage}\n```\n"
