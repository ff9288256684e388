"""What is made of a sample's picture, or of the one that stands in for it when its file is unreadable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ibot_cli.data.bad_files import BadLimits, list_bad
from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.picture import Picture
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import Source
from ibot_cli.errors import DataError

T = TypeVar("T")


def use_or_replace(
    source: Source,
    seed: int,
    sample: int,
    visit: int,
    use: Callable[[Picture], T],
    *,
    failure: str,
    limits: BadLimits,
    bad: dict[str, str],
) -> tuple[T, int]:
    """What `use` makes of a sample's picture or of its replacement, and the index of the picture.

    The replacement is the first readable picture from a start drawn from (seed, sample, visit), so it is the same in
    every worker and after a resume. Pixels are decoded inside `use`, so damage shows there.

    Args:
        source: The images.
        seed: Of the run.
        sample: Which image.
        visit: How often it was seen before.
        use: Called with one picture after the other until one is readable; it draws its random numbers afresh each
            time.
        failure: The message when `use` fails at a readable picture, with `{}` for its path.
        limits: How many unreadable files may be met before giving up.
        bad: Takes the unreadable files met: path to reason.

    Raises:
        DataError: Too many files are unreadable, or one could not be used for another reason.
    """
    index, start = sample, -1
    for probe in range(len(source) + 1):
        what = "{} cannot be read"
        try:
            picture = source.open(index)
            what = failure
            return use(picture), index
        except UnreadableImage as error:
            bad[error.path] = error.reason
            limits.check(bad)
        except Exception as error:
            raise _not_the_file(what.format(source.path(index)), error) from error
        if start < 0:
            start = int(stream(seed, sample, visit, "replacement").integers(len(source)))
        index = (start + probe) % len(source)
    raise DataError(f"No readable image in {source.name}:\n{list_bad(bad)}", hint="Check the files.")


def _not_the_file(what: str, error: Exception) -> DataError:
    """An error that is not the file's fault, with the image that it happened to."""
    return DataError(f"{what}: {type(error).__name__}: {error}.", hint="Please report this, with the image.")
