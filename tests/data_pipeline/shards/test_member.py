from pathlib import Path

import pytest

from ibot_cli.data.decode import UnreadableImage, read_content
from ibot_cli.data.shards.member import is_member
from ibot_cli.data.single import read_levels
from ibot_cli.data.sources import open_source
from ibot_cli.errors import DataError
from ibot_cli.evaluate.predict import open_images
from tests.data_pipeline.images import write_image
from tests.data_pipeline.shards.tars import labelled, picture, write_tar


def test_the_path_that_is_shown_is_a_path_to_read(tmp_path: Path) -> None:
    source = open_source(str(write_tar(tmp_path / "odd.tar" / "x.tar", {"./c/a.png": 3, "b.png": 4})), channels=3)
    for index, seed in ((0, 3), (1, 4)):
        assert is_member(source.path(index))
        assert read_content(Path(source.path(index))) == picture(seed)
        assert (read_levels(source.path(index), 3) == source.levels(index)).all()


def test_members_that_are_not_there(tmp_path: Path) -> None:
    path = labelled(tmp_path / "x.tar", [1])
    assert not is_member(str(path)) and not is_member(f"{tmp_path}/y.tar/a.png")
    with pytest.raises(UnreadableImage, match=r"x\.tar holds no member of this name"):
        read_content(path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: cannot be read"):
        read_levels(str(path / "a.png"), 3)
    (tmp_path / "file").touch()
    with pytest.raises(UnreadableImage, match="cannot be read"):
        read_content(tmp_path / "file" / "a.png")


def test_files_folders_shards_and_members_are_mixed_at_will(tmp_path: Path) -> None:
    shard = labelled(tmp_path / "s" / "x.tar", [1, 2])
    alone, other = write_image(tmp_path / "one.png"), write_image(tmp_path / "f" / "two.png", 1)
    places = [alone, shard.parent, f"{shard}/00001.png", other.parent, f"{tmp_path}/s/{{x,x}}.tar"]
    source = open_images([str(place) for place in places], 3)
    paths = [source.path(index) for index in range(len(source))]
    members = [f"{shard}/00000.png", f"{shard}/00001.png"]
    assert paths == [str(alone), *members, members[1], str(other), *members]
    assert [source.encoded(index).content for index in (1, 2, 3, 5)] == [picture(n) for n in (0, 1, 1, 0)]
    assert source.labels is None and source.levels(4).shape == (16, 20, 3)
    with pytest.raises(IndexError):
        source.path(7)
    other_order = open_images([str(place) for place in reversed(places)], 3)
    assert source.fingerprint != other_order.fingerprint
