"""Where the picture of matches is written."""

from __future__ import annotations

import os
import re
from pathlib import Path

from PIL import Image

from ibot_cli.data.single import is_image_file
from ibot_cli.errors import DataError, UsageError
from ibot_cli.evaluate.output_file import check_output
from ibot_cli.runs.evaluations import run_of
from ibot_cli.visualize.png import write_png

_LONGEST = 80  # bytes of an image's name; two of them fit into a file name


def picture_path(out: Path | None, weights: str, first: str, second: str | None) -> Path:
    """The file to write, refused before anything is computed; `write_picture` makes its folder.

    Args:
        out: As asked for; None for `figures/correspondence_IMAGES.png` in the run that WEIGHTS belong to, else
            `correspondence.png` here.
        weights: WEIGHTS as given.
        first: The first image or DATA, as given.
        second: The second image; None for views of the first, `correspondence_views_IMAGE.png`.

    Raises:
        UsageError: It cannot be written there, or is not called `.png`.
    """
    run = run_of(weights)
    if out is not None or run is None:
        path = out or Path("correspondence.png")
        check_output(path, "--out", ".png")
        return path
    folder = run / "figures"
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file.", "Move it away, or name a picture with --out.")
    holder = folder if folder.exists() else run
    if not os.access(holder, os.W_OK | os.X_OK):
        raise UsageError(f"Nothing can be written to {holder}.", "Name a picture somewhere else with --out.")
    parts = ("views", first) if second is None else (first, second)
    return folder / f"correspondence_{'_'.join(map(_name, parts))}.png"


def write_picture(path: Path, image: Image.Image) -> None:
    """Write it, whole or not at all.

    Raises:
        DataError: It cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{path.parent} cannot be made: {error.strerror or error}.", "Check the run's space and permissions."
        ) from error
    write_png(path, image)


def _name(place: str) -> str:
    """A path or DATA as part of a file name; with its folders, as files of many folders are called alike."""
    plain = str(Path(place).with_suffix("")) if is_image_file(place) else place
    name = re.sub(r"[^\w.-]+", "-", plain).strip("-.")
    return name.encode()[-_LONGEST:].decode(errors="ignore").strip("-.") or "image"
