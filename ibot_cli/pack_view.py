"""How `ibot data pack` tells what it wrote."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ibot_cli import console
from ibot_cli.progress import PLAIN_INTERVAL, stage_bars
from ibot_cli.quantities import counted, duration, size_text

if TYPE_CHECKING:
    from ibot_cli.data.packing.pack import PackResult

SHOWN = 20


class Progress:
    """A bar per split on a terminal, a line every half minute elsewhere; as a context manager it is there and gone."""

    def __init__(self) -> None:
        self._bars = contextlib.ExitStack()
        self._begun = self._last = time.monotonic()

    def __enter__(self) -> Progress:
        self._bar = self._bars.enter_context(stage_bars())
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.close()

    def __call__(self, split: str, done: int, total: int) -> None:
        """See `ibot_cli.data.packing.pack.pack`."""
        self._bar(split, done, total)
        if not sys.stderr.isatty() and time.monotonic() - self._last >= PLAIN_INTERVAL:
            self._last = time.monotonic()
            console.note(f"{split}: {done:,} of {total:,} images, {duration(self._last - self._begun)} spent")


def stopped(out: Path) -> None:
    """Say after an interruption how to go on."""
    from ibot_cli.data.shards.description import UNFINISHED

    if (out / UNFINISHED).exists():
        shards = counted(len(list(out.glob("*.tar"))), "complete shard")
        console.note(f"Stopped with {shards} in {out}; the same command goes on from there.")


def show(result: PackResult) -> None:
    """Sizes before and after, and what was left out."""
    done = "was packed before" if result.finished_before else "packed"
    parts = ", ".join(
        f"{f'{split} ' if len(result.images) > 1 else ''}{counted(images, 'image')} in "
        f"{counted(result.shards[split], 'shard')}"
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
            f"{counted(len(result.unreadable), 'unreadable file')} left out; {result.out}/pack.json lists "
            f"{'it' if len(result.unreadable) == 1 else 'them'}."
        )
        for path, reason in list(result.unreadable.items())[:SHOWN]:
            console.warn(f"{path}: {reason}")
