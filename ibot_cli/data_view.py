"""How `ibot data stats` tells what it found: the facts, what is wrong with some files, duplicates, and advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ibot_cli import console
from ibot_cli.quantities import counted, size_text

if TYPE_CHECKING:
    from ibot_cli.data.statistics.result import ClassCount, Copy, Duplicates, Sizes, Spread, Statistics

_BAD, _GROUPS, _COPIES, _KINDS = 10, 5, 4, 6  # what the tables show; --json has everything
_CERTAINTY = {"file": 0, "pixels": 1, "look": 2, None: 3}
_SAME = {"file": "same file", "pixels": "same pixels", "look": "looks the same"}


def show(found: Statistics) -> None:
    """The report, on stderr."""
    console.table([found.data, ""], _facts(found), keep=[found.data] if len(found.data) < 30 else [])
    _show_sizes(found)
    if found.unreadable:
        bad = list(found.unreadable.items())
        console.note("")
        console.table([f"Cannot be read: {len(bad):,}", "why"], bad[:_BAD])
        _more(len(bad) - _BAD, "file")
    if found.duplicates.groups:
        _show_duplicates(found.duplicates)
    for text in found.notes:
        console.note(text)
    if found.advice:
        console.note("")
        console.table(["", "What to do"], [("-", text) for text in found.advice])


def _facts(found: Statistics) -> list[tuple[str, str]]:
    rows = [("images", _count(found))]
    if found.num_checked < found.num_images:
        rows.append(("looked at", f"a random sample of {found.num_checked:,}; all below is about these"))
    rows.append(("classes", _classes(found.classes)))
    if found.total_bytes is not None:
        rows.append(("on disk", size_text(found.total_bytes)))
    rows += [("formats", _counts(found.formats)), ("modes", _counts(found.modes))]
    channels = found.channels
    if len(channels.mean) in (1, 3):  # what is colour among other bands, nobody knows
        rows.append(("without colour", _grey(found)))
    rows += [("mean", _numbers(channels.mean)), ("deviation", _numbers(channels.std))]
    if found.flat:
        rows.append(("blank", f"{counted(len(found.flat), 'image')} of nearly one grey level, such as {found.flat[0]}"))
    rows.append(("unreadable", f"{len(found.unreadable):,}"))
    rows.append(("duplicates", _duplicates(found.duplicates)))
    return rows


def _count(found: Statistics) -> str:
    parts = "" if len(found.parts) == 1 else ": " + ", ".join(f"{name} {size:,}" for name, size in found.parts.items())
    return f"{found.num_images:,}{parts}"


def _classes(classes: Sequence[ClassCount] | None) -> str:
    if classes is None:
        return "none"
    ordered = sorted(classes, key=lambda each: each.total)
    least, most = ordered[0], ordered[-1]
    middle = ordered[len(ordered) // 2].total
    return (
        f"{len(classes):,}, of {least.total:,} ({least.name}) to {most.total:,} ({most.name}) images, median {middle:,}"
    )


def _grey(found: Statistics) -> str:
    grey = found.stored_grey + (found.content_grey or 0)
    share = f"{grey:,} ({grey / found.num_readable:.1%})"
    return f"{share}, {found.content_grey:,} of them stored in colour" if found.content_grey else share


def _duplicates(known: Duplicates) -> str:
    if not known.groups:
        return "none"
    counts = (
        (known.num_same_file, "same file"),
        (known.num_same_pixels, "same pixels"),
        (known.num_look_alike, "look the same"),
    )
    kinds = ", ".join(f"{number:,} {kind}" for number, kind in counts if number)
    return f"{counted(known.num_images, 'image')} in {counted(len(known.groups), 'group')}: {kinds} as an earlier one"


def _show_sizes(found: Statistics) -> None:
    sizes: Sizes = found.sizes
    rows = [
        ("width", *_cells(sizes.width, 0)),
        ("height", *_cells(sizes.height, 0)),
        ("shorter side", *_cells(sizes.short_side, 0)),
        ("width / height", *_cells(sizes.aspect, 2)),
    ]
    if found.file_bytes is not None:
        rows.append(("file", *(size_text(round(value)) for value in _ends(found.file_bytes))))
    numbers = ["smallest", "5 %", "median", "95 %", "largest"]
    console.note("")
    console.table(["pixels", *numbers], rows, right=numbers, keep=["pixels", *numbers])


def _ends(spread: Spread) -> tuple[float, ...]:
    return spread.smallest, spread.p5, spread.median, spread.p95, spread.largest


def _cells(spread: Spread, digits: int) -> list[str]:
    return [f"{value:,.{digits}f}" for value in _ends(spread)]


def _show_duplicates(known: Duplicates) -> None:
    rows = []
    numbered = enumerate(known.groups, start=1)
    ordered = sorted(numbered, key=lambda each: min(_CERTAINTY[copy.same] for copy in each[1]))
    for number, group in ordered[:_GROUPS]:
        certain = sorted(group[1:], key=lambda copy: _CERTAINTY[copy.same])
        for place, copy in enumerate([group[0], *certain][:_COPIES]):
            rows.append((f"{number}" if place == 0 else "", copy.path, _where(copy), _SAME.get(copy.same or "", "")))
        if len(group) > _COPIES:
            rows.append(("", f"... and {len(group) - _COPIES:,} more", "", ""))
    console.note("")
    console.table(["group", "image", "part, class", ""], rows, right=["group"], keep=["group"])
    _more(len(known.groups) - _GROUPS, "group")


def _where(copy: Copy) -> str:
    return ", ".join(text for text in (copy.part, copy.label) if text is not None)


def _more(count: int, noun: str) -> None:
    if count > 0:
        console.note(f"... and {counted(count, f'more {noun}', f'more {noun}s')}: --json has all of them.")


def _counts(counts: Mapping[str, int]) -> str:
    shown = list(counts.items())
    more = f" and {counted(len(shown) - _KINDS, 'more kind', 'more kinds')}" if len(shown) > _KINDS else ""
    return ", ".join(f"{number:,} {name}" for name, number in shown[:_KINDS]) + more


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
