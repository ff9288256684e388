"""How `ibot data pack` tells what it wrote."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ibot_cli import console
from ibot_cli.progress import PLAIN_INTERVAL, counted, duration, size_text, stage_bars

if TYPE_CHECKING:
    from ibot_cli.data.packing.pack import PackResult

SHOWN = 20


@contextlib.contextmanager
def progress_of() -> Iterator[Callable[[str, int, int], None]]:
    """A bar per split on a terminal, a line every half minute elsewhere."""
    begun = last = time.monotonic()
    with stage_bars() as bar:

        def report(split: str, done: int, total: int) -> None:
            nonlocal last
            bar(split, done, total)
            if sys.stderr.isatty() or time.monotonic() - last < PLAIN_INTERVAL:
                return
            last = time.monotonic()
            console.note(f"{split}: {done:,} of {total:,} images, {duration(last - begun)} spent")

        yield report


def stopped(out: Path) -> None:
    """Say after an interruption how to go on."""
    from ibot_cli.data.shards.description import UNFINISHED

    if (out / UNFINISHED).exists():
        console.note(f"Stopped. The complete shards in {out} stay; the same command goes on after them.")


def show(result: PackResult) -> None:
    """Sizes before and after, and what was left out."""
    done = "was packed before" if result.finished_before else "packed"
    parts = ", ".join(
        f"{split} {counted(images, 'image')} in {counted(result.shards[split], 'shard')}"
        for split, images in result.images.items()
    )
    labels = f"labels of {result.classes:,} classes" if result.classes else "no labels"
    console.note(f"{result.out} {done}: {parts}, {labels}.")
    if result.stored_bytes:
        share = result.packed_bytes / result.stored_bytes
        console.note(
            f"{size_text(result.stored_bytes)} of files became {size_text(result.packed_bytes)} of shards "
            f"({share:.0%}); {result.kept:,} of {counted(sum(result.images.values()), 'file')} kept their bytes."
        )
    if result.decode_ms is not None:
        before, after = result.decode_ms
        console.note(f"Decoding an image takes {after:.2f} ms instead of {before:.2f} ms on one core, by a sample.")
    for note in result.notes:
        console.note(note)
    if result.unreadable:
        console.warn(
            f"{counted(len(result.unreadable), 'unreadable file')} left out; {result.out}/pack.json lists them."
        )
        for path, reason in list(result.unreadable.items())[:SHOWN]:
            console.warn(f"{path}: {reason}")
