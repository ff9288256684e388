"""The network of a run and the images that a report shows it with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ibot_cli.core.classifier import PooledNorm
from ibot_cli.data.sources import Source
from ibot_cli.errors import DataError, RunError
from ibot_cli.evaluate.retrieval.gallery import Gallery, open_gallery
from ibot_cli.visualize.report.samples.options import SampleOptions
from ibot_cli.weights.load import LoadedBackbone, load_weights

ELSEWHERE = "If the images are elsewhere now, name them with --data."


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the sections are about.

    Attributes:
        run: The run directory.
        data: DATA.
        loaded: The network.
        gallery: The training images, and the test images where the data have some.
        options: What is asked for.
    """

    run: Path
    data: str
    loaded: LoadedBackbone
    gallery: Gallery
    options: SampleOptions

    @property
    def source(self) -> Source:
        """The images to show: of the test part, else all."""
        return self.gallery.source if self.gallery.queries is None else self.gallery.queries

    @property
    def part(self) -> str:
        """What `source` is, for a sentence."""
        return "images" if self.gallery.queries is None else "test images"

    @property
    def has_class_token(self) -> bool:
        """Whether token 0 is a class token that was trained, and not the mean of the patches."""
        backbone = self.loaded.backbone
        return bool(getattr(backbone, "has_class_token", True)) and not isinstance(
            getattr(backbone, "norm", None), PooledNorm
        )


def open_subject(run: Path, options: SampleOptions) -> Subject:
    """Load the newest weights of a run and open its images.

    Raises:
        RunError: The run has no readable checkpoint, or does not say which images it was trained on.
        WeightsError: The weights do not fit.
        DataError: The images cannot be opened.
    """
    loaded = load_weights(str(run), which=options.which)
    data = options.data if options.data is not None else data_of(run)
    try:
        gallery = open_gallery(data, channels=loaded.channels, bits=loaded.bits)
    except DataError as error:
        raise error if options.data is not None else DataError(error.message, ELSEWHERE) from error
    return Subject(run=run, data=data, loaded=loaded, gallery=gallery, options=options)


def data_of(run: Path) -> str:
    """DATA that a run was trained on, as `data.json` has them.

    Raises:
        RunError: The file is missing or damaged.
    """
    path = run / "data.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        data = None
    if not isinstance(data, str):
        raise RunError(f"{path} does not say which images the run was trained on.", "Name them with --data.")
    return data
