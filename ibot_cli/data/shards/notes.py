"""What the user should know about tar files, as sentences, and the error for those without an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ibot_cli.data.shards.index import ShardState
from ibot_cli.errors import DataError

SHOWN = 3


def notes_of(shards: Sequence[ShardState]) -> list[str]:
    """One sentence for each kind of thing that was not used."""
    notes = [note for shard in shards if (note := _damage(shard))]
    if len(notes) > SHOWN:
        notes[SHOWN:] = [f"{len(notes) - SHOWN:,} more tar files are cut off or damaged."]
    empty = [Path(shard.path).name for shard in shards if not shard.images]
    if empty:
        notes.append(f"No image in {_listed(empty)}.")
    if spare := _total(shards, "spare"):
        example = next(shard.met["spare_name"] for shard in shards if shard.met.get("spare"))
        notes.append(
            f"{spare:,} further images of the same samples not used, such as {example}: up to the first dot, names are "
            "those of other images."
        )
    if links := _total(shards, "links"):
        notes.append(f"{links:,} links in the tar files not followed.")
    if sparse := _total(shards, "sparse"):
        notes.append(f"{sparse:,} files that are stored with holes (sparse) not used.")
    return notes


def _damage(shard: ShardState) -> str:
    name, images = Path(shard.path).name, f"its {shard.images:,} complete images are used"
    if "cut" in shard.met:
        return f"{name} is cut off in {shard.met['cut']}: {images}; fetch it again for the rest."
    if "damage" in shard.met:
        return f"{name} is damaged at byte {shard.met['damage']:,}: {images}, none after it."
    return ""


def no_image(data: str, shards: Sequence[ShardState]) -> DataError:
    """The error for tar files without an image."""
    others: Counter[str] = Counter()
    for shard in shards:
        others.update(shard.met.get("others", {}))
    found = ", ".join(
        f"{count:,} {'.' + kind if kind else 'without extension'}" for kind, count in others.most_common(5)
    )
    text = f"{data} holds no image" + (f", but other members ({found})." if found else ".")
    inside = "Unpack it once: it holds tar files. " if "tar" in others else ""
    return DataError(
        " ".join(
            [text, *notes_of([shard for shard in shards if shard.images or shard.met.keys() - {"others", "folders"}])]
        ),
        hint=f"{inside}Members are called KEY.jpg (or png, webp, bmp, tiff, gif, ppm, pgm) and, with labels, KEY.cls.",
    )


def _total(shards: Sequence[ShardState], key: str) -> int:
    return sum(int(shard.met.get(key, 0)) for shard in shards)


def _listed(names: Sequence[str], most: int = SHOWN) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more:,} more" if more > 0 else "")
