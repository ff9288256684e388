import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ibot_cli.data.shards.headers import Member, Walk, members
from ibot_cli.data.shards.random_file import RandomFile
from tests.data_pipeline.shards.tars import write_tar

LONG = "folder/" * 30 + "n" * 90 + ".jpg"
NAMES = {"a.jpg": b"x" * 700, LONG: b"y" * 512, "empty.jpg": b"", "ümläut.jpg": b"z", "d/" * 60 + "e.jpg": b"1" * 5000}


def walk(path: Path) -> tuple[list[Member], Walk]:
    file = RandomFile(str(path))
    met = Walk(size=file.state()[0])
    return list(members(file, met)), met


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_where_tarfile_finds_them(tmp_path: Path, format: int) -> None:
    content = {name: part for name, part in NAMES.items() if format != tarfile.USTAR_FORMAT or name != LONG}
    path = write_tar(tmp_path / "x.tar", content, format)
    with tarfile.open(path) as tar:
        expected = [(member.name, member.offset_data, member.size) for member in tar]
    assert [tuple(member) for member in walk(path)[0]] == expected
    data = path.read_bytes()
    assert [data[m.offset : m.offset + m.size] for m in walk(path)[0]] == list(content.values())


def test_folders_links_and_files_with_holes_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, kind in [("d", tarfile.DIRTYPE), ("s.jpg", tarfile.SYMTYPE), ("h.jpg", tarfile.LNKTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "l" * 150
            tar.addfile(info)
        info = tarfile.TarInfo("last.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    found, met = walk(tmp_path / "x.tar")
    assert [member.name for member in found] == ["last.jpg"]
    assert met.links == ["s.jpg", "h.jpg"] and met.cut is None and met.damage is None


@pytest.mark.skipif(shutil.which("tar") is None, reason="GNU tar writes them")
@pytest.mark.parametrize("format", ["gnu", "posix"])
def test_sparse_files_of_gnu_tar(tmp_path: Path, format: str) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        for place in range(30):  # more holes than one header lists
            file.seek(place * 100_000)
            file.write(b"x" * 4096)
    (tmp_path / "b.jpg").write_bytes(b"plain")
    command = ["tar", "--sparse", f"--format={format}", "-cf", "x.tar", "a.jpg", "b.jpg"]
    if subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("another tar")
    found, met = walk(tmp_path / "x.tar")
    assert [member.name for member in found] == ["b.jpg"] and len(met.sparse) == 1


def test_sizes_beyond_octal_digits(tmp_path: Path) -> None:
    info = tarfile.TarInfo("big.jpg")
    info.size = 9 << 30
    (tmp_path / "x.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    with (tmp_path / "x.tar").open("r+b") as file:
        file.truncate(512 + info.size)
    assert walk(tmp_path / "x.tar")[0] == [Member("big.jpg", 512, 9 << 30)]


def test_two_tar_files_in_one(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{name}.tar", {f"{name}.jpg": name}) for name in "ab")
    (tmp_path / "both.tar").write_bytes(first.read_bytes() + second.read_bytes())
    assert [member.name for member in walk(tmp_path / "both.tar")[0]] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("kept", [100, 512, 1200, 1536, 2000])
def test_complete_members_of_a_truncated_tar_file(tmp_path: Path, kept: int) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": "x" * 100, "b.jpg": "y" * 600, "c.jpg": "z"})
    path.write_bytes(path.read_bytes()[:kept])
    found, met = walk(path)
    assert [m.name for m in found] == ["a.jpg"][: kept // 1024]
    assert met.cut == {100: "its last header", 512: "a.jpg", 1200: "its last header"}.get(kept, "b.jpg")


def test_damage_ends_the_walk(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", {"a.jpg": "x", "b.jpg": "y", "c.jpg": "z"})
    data = bytearray(path.read_bytes())
    data[1024 + 5] ^= 1
    path.write_bytes(data)
    found, met = walk(path)
    assert [member.name for member in found] == ["a.jpg"] and met.damage == 1024
