"""Packing: every image of DATA, in its order, into tar shards."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ibot_cli.data.packing.journal import VERSION, Journal, Shard, differs
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.packing.parts import notes_of, open_parts, request_of
from ibot_cli.data.packing.place import claimed
from ibot_cli.data.packing.sample import Sample, check_room, sample_of
from ibot_cli.data.packing.shards import Packing, pack_split
from ibot_cli.data.shards.description import PACK, UNFINISHED
from ibot_cli.data.sources import Source
from ibot_cli.durable import write_json
from ibot_cli.errors import DataError

Report = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """A finished pack.

    Attributes:
        out: Its folder.
        images: Number by split.
        shards: Number by split.
        classes: Number of classes, or None without labels.
        stored_bytes: Of the files that went in; 0 for embedded data.
        packed_bytes: Of the shards.
        kept: Images whose file kept its bytes.
        unreadable: Reason by path, of the files that are left out.
        decode_ms: Milliseconds to decode an image before and after, measured on a sample; None where nothing changed.
        notes: Sentences for the user.
        finished_before: Whether there was nothing to do.
    """

    out: Path
    images: dict[str, int]
    shards: dict[str, int]
    classes: int | None
    stored_bytes: int
    packed_bytes: int
    kept: int
    unreadable: dict[str, str]
    decode_ms: tuple[float, float] | None
    notes: list[str]
    finished_before: bool


def pack(data: str, out: Path, options: PackOptions, *, workers: int, report: Report) -> PackResult:
    """Write DATA into tar shards, in its order, with its splits and labels.

    Complete shards of an interrupted call with the same arguments stay; the result has the same bytes then, and for
    any number of workers. `pack.json` is written last and says that the pack is complete.

    Args:
        data: As for `open_source`.
        out: The folder to fill: new, empty, or with the beginning of the same pack.
        options: What it is to be.
        workers: Processes that decode and encode; 0 is this one.
        report: Takes split, images done, and images in all.

    Raises:
        DataError: As `open_source`; the folder holds something else; the disk is full or too small; too many files
            are unreadable.
        RunError: Another process packs into the folder.
    """
    parts = open_parts(data)
    with claimed(out, data):
        request = request_of(parts, options)
        found = _finished(out, request)
        sample = sample_of(parts, options)
        if found is not None:
            return _result(out, data, found, parts, sample, finished_before=True)
        journal = Journal.load(out, request)
        check_room(out, sample, {split: len(source) - journal.stop(split) for split, source in parts.items()})
        content = _written(Packing(parts, options, journal), journal, workers, report, data)
        return _result(out, data, content, parts, sample, finished_before=False)


def _finished(out: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of `pack.json`, where the same pack is complete."""
    if not (out / PACK).is_file():
        return None
    try:
        content: dict[str, Any] = json.loads((out / PACK).read_bytes())
        there = content.get("request", {})
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{out / PACK} cannot be read: {error}.", hint="Pack into another folder.") from error
    if there != request:
        raise differs(out, there, request, "a finished pack")
    (out / UNFINISHED).unlink(missing_ok=True)  # all that a kill between the last two steps leaves
    return content


def _written(packing: Packing, journal: Journal, workers: int, report: Report, data: str) -> dict[str, Any]:
    out = journal.folder
    try:
        journal.save()
        unreadable: dict[str, str] = {}
        for split in packing.parts:
            unreadable |= pack_split(packing, split, workers=workers, report=report)
        content = _content(packing.parts, journal, unreadable, data)
        write_json(out / PACK, content)
        (out / UNFINISHED).unlink()
    except DataError:
        if not journal.shards:  # or the same command would be refused once the images are repaired
            (out / UNFINISHED).unlink(missing_ok=True)
        raise
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}.",
            hint="Make room or repair it; the same command goes on after the last complete shard.",
        ) from error
    return content


def _content(parts: Mapping[str, Source], journal: Journal, unreadable: Mapping[str, str], data: str) -> dict[str, Any]:
    """What `pack.json` says."""
    shards = journal.shards
    named: dict[str, str] = {path: reason for shard in shards for path, reason in shard.unreadable.items()}
    return {
        "version": VERSION,
        "data": data,
        "classes": next((source.classes for source in parts.values() if source.classes is not None), None),
        "splits": {split: [_entry(shard) for shard in journal.of(split)] for split in parts},
        "images": sum(shard.images for shard in shards),
        "bytes": sum(shard.bytes for shard in shards),
        "stored_bytes": sum(shard.stored for shard in shards),
        "kept": sum(shard.kept for shard in shards),
        "deep": sum(shard.deep for shard in shards),
        "unreadable": {**named, **unreadable},
        "request": journal.request,
    }


def _entry(shard: Shard) -> dict[str, Any]:
    return {"file": shard.file, "images": shard.images, "bytes": shard.bytes}


def _result(
    out: Path,
    data: str,
    content: Mapping[str, Any],
    parts: Mapping[str, Source],
    sample: Sample,
    *,
    finished_before: bool,
) -> PackResult:
    splits: Mapping[str, list[Mapping[str, Any]]] = content["splits"]
    notes = notes_of(data, parts)
    if content["deep"]:
        kept = "file with {}, kept its bytes." if content["deep"] == 1 else "files with {}, kept their bytes."
        notes.append(f"{content['deep']:,} {kept.format('more than 8 bits, or TIFF of other than 1 or 3 bands')}")
    return PackResult(
        out=out,
        images={split: sum(shard["images"] for shard in shards) for split, shards in splits.items()},
        shards={split: len(shards) for split, shards in splits.items()},
        classes=None if content["classes"] is None else len(content["classes"]),
        stored_bytes=content["stored_bytes"],
        packed_bytes=content["bytes"],
        kept=content["kept"],
        unreadable=dict(content["unreadable"]),
        decode_ms=sample.decode_ms,
        notes=notes,
        finished_before=finished_before,
    )
