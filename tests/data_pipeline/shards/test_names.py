from pathlib import Path

import pytest

from ibot_cli.data.shards.names import anywhere_pattern, find_shards, part_of
from ibot_cli.errors import DataError


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    for name in ["s-2.tar", "s-10.tar", "s-1.tar", ".hidden.tar", "notes.txt", "sub/s-0.tar"]:
        (tmp_path / "data" / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / "data" / name).touch()
    return tmp_path / "data"


def names(data: str | Path) -> tuple[str, ...]:
    found = find_shards(str(data))
    assert found is not None
    return found.names


def test_a_folder_gives_its_tar_files_in_natural_order(shards: Path) -> None:
    assert names(shards) == ("s-1.tar", "s-2.tar", "s-10.tar", "sub/s-0.tar")


def test_patterns(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(shards / "s-*.tar") == ("s-1.tar", "s-2.tar", "s-10.tar")
    assert names(shards / "s-{10,1}.tar") == ("s-10.tar", "s-1.tar")
    assert names(shards / "{s-2,sub/s-0}.tar") == ("s-2.tar", "sub/s-0.tar")
    assert names(shards / "**" / "s-[0-2].tar") == ("s-1.tar", "s-2.tar", "sub/s-0.tar")
    assert names(shards / "{s-1,*1}.tar") == ("s-1.tar",)  # named twice, read once
    assert names(shards / "s*b") == ("s-0.tar",)
    assert names(shards / "s-2.tar") == ("s-2.tar",)
    monkeypatch.chdir(shards)
    assert names("s-{1..2}.tar") == ("s-1.tar", "s-2.tar")
    monkeypatch.setenv("HOME", str(shards.parent))
    assert names("~/data/s-{1..2}.tar") == ("s-1.tar", "s-2.tar")


def test_a_file_that_is_called_like_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "x[1].tar").touch()
    assert names(tmp_path / "x[1].tar") == ("x[1].tar",)


def test_what_is_no_tar_shard(shards: Path, tmp_path: Path) -> None:
    (shards / "sub" / "image.JPG").touch()
    (tmp_path / "list.txt").touch()
    for data in (shards, tmp_path / "list.txt", tmp_path / "nothing"):
        assert find_shards(str(data)) is None
    assert find_shards("https://example.org/{0..9}.tar") is None


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("s-{1..4}.tar", r"s-3\.tar, .*s-4\.tar are missing; .* names 4 files"),
        ("s-{1..3}.tar", r"s-3\.tar is missing"),
        ("t-{0001..0300}.tar", r"None of the 300 files .* exists; the first is .*t-0001\.tar"),
        ("t-*.tar", "Nothing is called as"),
        ("*.txt", r"matches no tar file \(1 \.txt\)"),
    ],
)
def test_patterns_that_miss(shards: Path, pattern: str, text: str) -> None:
    with pytest.raises(DataError, match=text) as caught:
        find_shards(str(shards / pattern))
    assert caught.value.hint


@pytest.mark.parametrize("name", ["x.tar.gz", "x.tgz", "x.tar.zst"])
def test_compressed_tar_files_are_refused_however_they_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / name).touch()
    for data in (tmp_path / "only" / name, tmp_path / "only", tmp_path / "only" / "x*"):
        with pytest.raises(DataError, match=f"{name}.* is compressed") as caught:
            find_shards(str(data))
        assert "Unpack it once" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train-000.tar", "train"),
        ("imagenet1k-validation-00.tar", "validation"),
        ("VAL_3.tar", "val"),
        ("test/train-0.tar", "test"),
        ("training-0.tar", None),
        ("images-0.tar", None),
    ],
)
def test_the_part_that_a_name_tells(name: str, part: str | None) -> None:
    assert part_of(name) == part


def test_a_pattern_is_the_same_from_another_folder(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = shards / "odd {1,2} [x]"
    odd.mkdir()
    (odd / "s-7.tar").touch()
    monkeypatch.chdir(odd)
    stored = anywhere_pattern("{s-7,s-7}.tar")
    monkeypatch.chdir(shards.parent)
    assert names(stored) == ("s-7.tar",)
    both = f"{{{shards}/s-1,{shards}/s-2}}.tar"
    assert anywhere_pattern(both) == both
