from dataclasses import replace

import pytest

from ibot_cli.errors import UsageError, WeightsError
from ibot_cli.visualize.patterns.window import choose_window
from tests.visualize.patterns.coloured import coloured_weights

LOADED = coloured_weights()  # 4 x 4 patches


def test_five_unless_that_is_always_everything() -> None:
    assert choose_window(LOADED, "patch") == 5
    assert choose_window(replace(LOADED, image_size=16), "patch") == 3
    assert choose_window(replace(LOADED, image_size=8), "patch") == 1
    assert choose_window(replace(LOADED, image_size=8), "cls") == 5  # means nothing there


def test_what_is_asked_for() -> None:
    assert [choose_window(LOADED, "patch", asked) for asked in (1, 3, 7)] == [1, 3, 7]


@pytest.mark.parametrize("window", [0, -1, 2, 4])
def test_windows_without_a_middle(window: int) -> None:
    with pytest.raises(UsageError, match=f"--window {window}: a window has its patch in the middle.") as told:
        choose_window(LOADED, "patch", window)
    assert told.value.hint == "Give an odd number: 1, 3, 5, ..."


def test_windows_that_show_everything() -> None:
    with pytest.raises(UsageError, match="sees 4 x 4 patches, and windows of 7 already show the whole image") as told:
        choose_window(LOADED, "patch", 9)
    assert told.value.hint == "Give at most 7; 1 is the patch alone."


def test_weights_without_a_head() -> None:
    with pytest.raises(WeightsError, match="have no head"):
        choose_window(replace(LOADED, head=None), "patch")
