"""The splits of DATA that a pack takes over, and what identifies them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ibot_cli.data.folders import CHOSEN
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.places import own_parts
from ibot_cli.data.sources import Source, open_source

TRAIN, VAL = "train", "val"


def open_parts(data: str) -> dict[str, Source]:
    """The images of DATA by split: `train`, and `val` where the data have a test part of their own.

    Raises:
        DataError: As `open_source`.
    """
    parts = {TRAIN: open_source(data, channels=3, split="train")}
    if own_parts(data):
        parts[VAL] = open_source(data, channels=3, split="test")
    return parts


def notes_of(data: str, parts: Mapping[str, Source]) -> list[str]:
    """What the user should know about how DATA were read."""
    notes = [note for source in parts.values() for note in source.notes if not note.startswith(CHOSEN)]
    own = own_parts(data)
    if own:
        left = f"; {', '.join(own[2:])} not used" if len(own) > 2 else ""
        notes.insert(0, f"The parts are {own[0]} and {own[1]}, which is for testing{left}.")
    return list(dict.fromkeys(notes))


def request_of(parts: Mapping[str, Source], options: PackOptions) -> dict[str, Any]:
    """What is to be packed and how; equal requests give equal packs.

    Returns:
        Plain values, as JSON keeps them.
    """
    images = {
        split: {"images": len(source), "fingerprint": source.fingerprint, "labels": _label_digest(source)}
        for split, source in parts.items()
    }
    return {"options": asdict(options), "splits": images}


def _label_digest(source: Source) -> str | None:
    if source.labels is None:
        return None
    names = "\0".join(source.classes or ())
    return hashlib.sha256(names.encode(errors="surrogateescape") + source.labels.tobytes()).hexdigest()
