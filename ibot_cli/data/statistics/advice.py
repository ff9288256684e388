"""What to do about what the statistics show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ibot_cli.data.channel_statistics import has_usual_statistics
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.picture import is_deep_mode
from ibot_cli.data.statistics.result import Statistics
from ibot_cli.quantities import counted

PACK_GAIN = 1.5  # a shorter side this many times that of a pack: decoding takes most of the loader's time
GREY_SHARE = 0.99
IMBALANCE = 10


def advise(found: Statistics) -> Statistics:
    """The same statistics with advice, in the order of what matters most."""
    return replace(found, advice=tuple(_sentences(found)))


def _sentences(found: Statistics) -> Iterator[str]:
    yield from _about_files(found)
    yield from _about_duplicates(found)
    yield from _about_classes(found)
    yield from _about_settings(found)
    yield from _about_sizes(found)


def _about_files(found: Statistics) -> Iterator[str]:
    if found.unreadable:
        share = 1 - found.num_readable / found.num_checked
        yield (
            f"Repair or remove the {counted(len(found.unreadable), 'image')} that cannot be read ({share:.2%}): "
            "training puts others in their place and stops above data.max_bad_ratio and data.max_bad_files."
        )


def _about_duplicates(found: Statistics) -> Iterator[str]:
    known = found.duplicates
    if known.num_across:
        yield (
            f"{counted(known.num_across, 'group')} of duplicates with images of both parts: copies make test figures "
            "too high. `ibot knn-eval --exclude-duplicates` leaves them out."
        )
    if known.num_mixed:
        yield f"{counted(known.num_mixed, 'group')} of duplicates with several classes: look at their labels."
    same = known.num_same_file + known.num_same_pixels
    if same:
        yield f"Remove the {counted(same, 'image')} with the very pixels of another one: they count twice in training."


def _about_classes(found: Statistics) -> Iterator[str]:
    if found.classes is None:
        return
    empty = [each.name for each in found.classes if each.total == 0]
    sizes = sorted(each.total for each in found.classes if each.total)
    if empty:
        yield f"{len(empty):,} classes have no image, {empty[0]} among them."
    if sizes and sizes[-1] >= IMBALANCE * sizes[0]:
        yield (
            f"The largest class has {sizes[-1] / sizes[0]:,.0f} times the images of the smallest: read accuracies per "
            "class (`ibot knn-eval --per-class`)."
        )


def _about_settings(found: Statistics) -> Iterator[str]:
    grey = found.stored_grey + (found.content_grey or 0)
    if len(found.channels.mean) == 3 and grey >= GREY_SHARE * found.num_readable:
        yield f"Train in grey: {grey / found.num_readable:.0%} of the images have no colour. --set data.channels=1"
        return
    deep = sum(number for mode, number in found.modes.items() if is_deep_mode(mode))
    if deep and found.bits == 8:
        yield f"{counted(deep, 'image')} with more than 8 bits per level: --set data.bits=16 keeps them."
    channels = len(found.channels.mean)
    if not has_usual_statistics(channels, found.bits):
        bits = "" if found.bits == 8 else f" --set data.bits={found.bits}"
        yield f"Train with --set data.channels={channels}{bits}; the run measures mean and deviation itself."
        return
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in (found.channels.mean, found.channels.std))
    yield f"Normalise with these data's own figures: --set data.mean={mean} --set data.std={std}"


def _about_sizes(found: Statistics) -> Iterator[str]:
    side = PackOptions.short_side
    if found.file_bytes is not None and found.sizes.short_side.median >= PACK_GAIN * side:
        yield (
            f"Half of the images have a shorter side of {found.sizes.short_side.median:,.0f} pixels or more: "
            f"`ibot data pack {found.data} OUT --short-side {side}` makes them load faster."
        )
