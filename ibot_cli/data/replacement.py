"""The image of a sample, or the one that stands in for it when its file is unreadable."""

from __future__ import annotations

from PIL import Image

from ibot_cli.data.bad_files import BadLimits, list_bad
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source
from ibot_cli.errors import DataError


def read_or_replace(
    source: Source, seed: int, sample: int, visit: int, *, limits: BadLimits, bad: dict[str, str]
) -> tuple[Image.Image, int]:
    """The image of a sample or its replacement, and its index.

    The replacement is the first readable image from a start drawn from (seed, sample, visit), so it is the same in
    every worker and after a resume.

    Args:
        source: The images.
        seed: Of the run.
        sample: Which image.
        visit: How often it was seen before.
        limits: How many unreadable files may be met before giving up.
        bad: Takes the unreadable files met: path to reason.

    Raises:
        DataError: Too many files are unreadable, or one could not be read for another reason.
    """
    index, start = sample, -1
    for probe in range(len(source) + 1):
        try:
            return source.read(index), index
        except UnreadableImage as error:
            bad[error.path] = error.reason
            limits.check(bad)
        except Exception as error:
            raise not_the_file(f"{source.path(index)} cannot be read", error) from error
        if start < 0:
            start = int(stream(seed, sample, visit, "replacement").integers(len(source)))
        index = (start + probe) % len(source)
    raise DataError(f"No readable image in {source.name}:\n{list_bad(bad)}", hint="Check the files.")


def not_the_file(what: str, error: Exception) -> DataError:
    """An error that is not the file's fault, with the image that it happened to."""
    return DataError(f"{what}: {type(error).__name__}: {error}.", hint="Please report this, with the image.")
