"""How much of an image is shown around a patch."""

from __future__ import annotations

from ibot_cli.errors import UsageError
from ibot_cli.visualize.patterns.find import patch_side, require_head
from ibot_cli.visualize.patterns.result import Kind
from ibot_cli.weights.load import LoadedBackbone

DEFAULT = 5


def choose_window(loaded: LoadedBackbone, kind: Kind, asked: int | None = None) -> int:
    """Side of the window in patches: as asked, else 5, or less where 5 would show the whole image every time.

    Raises:
        UsageError: It is even or below 1, or so large that every window would show the whole image.
        WeightsError: The weights have no head.
    """
    require_head(loaded)
    if asked is not None and (asked < 1 or asked % 2 == 0):
        raise UsageError(f"--window {asked}: a window has its patch in the middle.", "Give an odd number: 1, 3, 5, ...")
    if kind == "cls":
        return DEFAULT if asked is None else asked
    rows = max(1, loaded.image_size // patch_side(loaded))
    if asked is None:
        return min(DEFAULT, 2 * rows - 1)
    if asked > 2 * rows - 1:
        raise UsageError(
            f"--window {asked}: the network sees {rows} x {rows} patches, and windows of "
            f"{2 * rows - 1} already show the whole image.",
            f"Give at most {2 * rows - 1}; 1 is the patch alone.",
        )
    return asked
