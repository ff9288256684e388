"""Pattern layouts: the prototypes that most patches belong to, with their best patches."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ibot_cli.errors import WeightsError
from ibot_cli.visualize.pages import inline_image
from ibot_cli.visualize.patterns.find import PatternOptions, find_patterns, patch_side
from ibot_cli.visualize.patterns.result import Pattern
from ibot_cli.visualize.patterns.tiles import Pictures, outlined_tile
from ibot_cli.visualize.patterns.wording import class_name, other_class
from ibot_cli.visualize.report.samples.choice import some_images
from ibot_cli.visualize.report.samples.options import StageProgress
from ibot_cli.visualize.report.samples.subject import Subject
from ibot_cli.visualize.sheets import picture_sheet

_SIDE, _COLUMNS = 72, 6
_LARGE_GRID = 8  # patches per side; on smaller ones a wide window is mostly outside of the image


@dataclass(frozen=True, kw_only=True)
class PatternSheet:
    """One pattern as the page shows it.

    Attributes:
        pattern: Its figures.
        label: Name of its most common class, or None.
        members_label: That of the members shown where it is another, or None.
        uri: Its best members, as a `data:` URI.
    """

    pattern: Pattern
    label: str | None
    members_label: str | None
    uri: str


def pattern_values(subject: Subject, progress: StageProgress | None = None) -> Mapping[str, object]:
    """What the template `report_patterns.html` shows.

    Raises:
        WeightsError: The weights have no head, or give scores that are not finite.
        DataError: No image can be read, or all are dark.
    """
    options = subject.options
    if subject.loaded.head is None and subject.loaded.classifier is not None:
        raise WeightsError(
            "This network was fine-tuned: a classifier took the place of the projection head, whose prototypes the "
            "patterns are.",
            "The pre-training run still has them.",
        )
    source = some_images(subject.source, options.most_images, options.seed)
    found = find_patterns(subject.loaded, source, _asked(subject), progress=progress)
    pictures = Pictures(source)
    sheets = [
        PatternSheet(
            pattern=pattern,
            label=class_name(pattern.label, found),
            members_label=other_class(pattern, found),
            uri=inline_image(_sheet(pictures, pattern)),
        )
        for pattern in found.patterns
    ]
    return {
        "sheets": sheets,
        "found": found,
        "part": subject.part,
        "num_source": len(subject.source),
        "chosen": len(source) < len(subject.source),
        "largest": None if source.labels is None else float(np.bincount(source.labels).max() / len(source)),
        "command": shlex.join(["ibot", "visualize-patterns", str(subject.run), subject.data]),
        "notes": (*found.warnings, *found.notes),
    }


def _asked(subject: Subject) -> PatternOptions:
    options, loaded = subject.options, subject.loaded
    per_side = loaded.image_size // patch_side(loaded)
    return PatternOptions(
        top_k=options.members,
        window=5 if per_side >= _LARGE_GRID else 3,
        num_patterns=options.patterns,
        seed=options.seed,
        precision=options.precision,
        device=options.device,
        workers=options.workers,
    )


def _sheet(pictures: Pictures, pattern: Pattern) -> Image.Image:
    """The members without any text, which the page has below."""
    images = [(pictures.read(member.index), member) for member in pattern.members]
    tiles = [None if image is None else outlined_tile(image, member, _SIDE) for image, member in images]
    return picture_sheet(tiles, columns=_COLUMNS, side=_SIDE)
