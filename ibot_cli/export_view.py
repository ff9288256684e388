"""How `ibot export` tells what it wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ibot_cli import console

if TYPE_CHECKING:
    from ibot_cli.weights.export.write import ExportResult

_UNITS = ("B", "KiB", "MiB", "GiB")


def show(result: ExportResult) -> None:
    """The files, the differences, and the lines that open them."""
    console.note(f"Written to {result.out}: {result.title}.\n")
    sizes = [(name, size_text(size)) for name, size in result.files.items()]
    console.table(["File", "Size"], sizes, right=["Size"], keep=["Size"])
    console.note("")
    _show_differences(result)
    for text in (*result.notes, *(result.agreement.sentences() if result.agreement is not None else ())):
        console.note(text)
    console.note("")
    console.note(result.usage)


def size_text(size: int) -> str:
    """A number of bytes for people."""
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    return f"{amount:.0f} {_UNITS[unit]}" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"


def _show_differences(result: ExportResult) -> None:
    from ibot_cli.weights.export.compare import difference_text

    here, tolerance = f"at {result.image_size} px", "Tolerance"
    columns, rows = ["Output", here, tolerance], []
    if result.elsewhere is not None:
        columns.append(f"at {result.other_size} px")
    for name, difference in result.differences.items():
        row = [name, difference_text(difference), f"{result.tolerance:.0e}"]
        rows.append(row if result.elsewhere is None else [*row, difference_text(result.elsewhere[name])])
    console.table(columns, rows, right=columns[1:], keep=columns)
    console.note("")
    console.note(
        f"Largest difference over largest value, on {result.num_images} real images, read back with {result.reader}."
    )
    if result.elsewhere is not None and any(result.elsewhere.values()):
        console.note(
            f"At {result.other_size} px, for information: there {result.reader} resizes the positions in its own way."
        )
