"""`draw_patterns`: patterns found, compared, drawn and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ibot_cli.data.sources import Source
from ibot_cli.visualize.patterns.baselines import compare_purity
from ibot_cli.visualize.patterns.center import StageProgress
from ibot_cli.visualize.patterns.files import PatternFiles, check_pattern_folder, write_patterns
from ibot_cli.visualize.patterns.find import find_patterns
from ibot_cli.visualize.patterns.random_weights import random_patterns
from ibot_cli.visualize.patterns.result import PatternOptions, Patterns
from ibot_cli.weights.load import LoadedBackbone


@dataclass(frozen=True, kw_only=True)
class DrawnPatterns:
    """What was found and where it was drawn.

    Attributes:
        found: With the comparison of purities, where there are labels and it was asked for.
        beside: The patterns of random weights, where they were asked for.
        files: Where everything is.
    """

    found: Patterns
    beside: Patterns | None
    files: PatternFiles


def draw_patterns(
    loaded: LoadedBackbone,
    source: Source,
    folder: Path,
    options: PatternOptions,
    *,
    random: bool = False,
    baselines: bool = True,
    settings: Mapping[str, Any] | None = None,
    progress: StageProgress | None = None,
) -> DrawnPatterns:
    """Find the patterns of a network, compare their purity, and draw them into a folder.

    Args:
        loaded: Weights with a head.
        source: The images.
        folder: Made if it is not there; figures of an earlier call are replaced.
        options: What to look for.
        random: Whether to draw the patterns of random weights beside.
        baselines: Whether to compare purities with those of random weights and raw pixels; needs two classes.
        settings: Of the call, for the record; plain values.
        progress: Called with the stage, what is done and its total.

    Raises:
        WeightsError: See `find_patterns`.
        UsageError: Likewise, and see `check_pattern_folder`.
        DataError: Likewise, or the folder cannot be written.
    """
    check_pattern_folder(folder)
    found = find_patterns(loaded, source, options, progress=progress)
    beside = random_patterns(loaded, source, options, options.seed, progress=progress) if random else None
    if baselines and source.labels is not None and len(np.unique(source.labels)) > 1:
        found = replace(found, purity=compare_purity(loaded, source, options, found, progress))
    files = write_patterns(folder, source, found, beside=beside, settings=settings, progress=progress)
    return DrawnPatterns(found=found, beside=beside, files=files)
