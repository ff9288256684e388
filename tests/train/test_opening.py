from collections.abc import Callable
from pathlib import Path

import pytest

from ibot_cli import distributed
from ibot_cli.data.sources import open_source
from ibot_cli.errors import DataError
from ibot_cli.train.opening import check_same_images
from tests.data_pipeline.images import write_image


def folder(root: Path, *names: str) -> str:
    for name in names:
        write_image(root / name)
    return str(root)


def beside(other: str) -> Callable[[dict[str, str]], dict[str, str]]:
    """What two processes say, of which the other sees the images of `other`."""
    said: dict[str, str] = {}

    def merged(entries: dict[str, str]) -> dict[str, str]:
        said.update(entries)
        return said

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "merged", merged)
        check_same_images(open_source(other, channels=3))
    return merged


@pytest.mark.parametrize(
    ("theirs", "how"),
    [
        (("a/1.png", "b/2.png", "b/3.png"), None),
        (("a/1.png", "b/2.png", "b/3.png", "b/4.png"), "there are 3 and 4"),
        (("a/1.png", "a/2.png", "b/3.png"), "names or classes differ"),
        (("a/1.png", "b/2.png", "b/4.png"), "names or classes differ"),
    ],
    ids=["elsewhere", "one more", "another class", "another name"],
)
def test_processes_that_see_other_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: tuple[str, ...], how: str | None
) -> None:
    ours = open_source(folder(tmp_path / "ours", "a/1.png", "b/2.png", "b/3.png"), channels=3)
    monkeypatch.setattr(distributed, "merged", beside(folder(tmp_path / "theirs", *theirs)))
    if how is None:
        check_same_images(ours)
        return
    with pytest.raises(DataError) as caught:
        check_same_images(ours)
    assert caught.value.message == f"The processes do not see the same images in {ours.name}: {how}."
