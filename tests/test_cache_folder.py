import os
import time
from pathlib import Path

import pytest

from ibot_cli.cache_folder import cache_folder, cache_limit, remove_old, used
from ibot_cli.data.sources import open_source
from ibot_cli.errors import UsageError
from tests.data_pipeline.images import write_image


@pytest.mark.parametrize(("text", "size"), [("", 20 * 2**30), ("0", 0), (" 2.5 ", 5 * 2**29)])
def test_limit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", text)
    assert cache_limit() == size


def test_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "default-cache" / "ibot"
    assert cache_folder("a", "b") == tmp_path / "default-cache" / "ibot" / "a" / "b"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ibot"


def test_a_user_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OSError, match="ot a directory"):
        cache_folder("folders").mkdir(parents=True)
    write_image(tmp_path / "1.png")
    assert len(open_source(str(tmp_path), channels=3)) == 1


@pytest.mark.parametrize("text", ["-1", "much", "nan", "inf"])
def test_a_limit_that_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", text)
    with pytest.raises(UsageError, match="not a number of GiB") as caught:
        cache_limit()
    assert caught.value.hint == "The default is 20; 0 is no cache."


def test_old_entries_are_removed(tmp_path: Path) -> None:
    now = time.time()
    for name, days in (("new", 0), ("recent", 1), ("large", 2), ("unused", 91)):
        (tmp_path / name).write_bytes(b"x" * (1000 if name == "large" else 10))
        os.utime(tmp_path / name, (now - days * 86400,) * 2)
    remove_old(tmp_path, 2000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["large", "new", "recent"]
    remove_old(tmp_path, 500)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "recent"]


def test_removing_never_fails(tmp_path: Path) -> None:
    remove_old(tmp_path / "nowhere")
    used(tmp_path / "nowhere")
    (tmp_path / "folder").mkdir()
    remove_old(tmp_path, 0)
    assert (tmp_path / "folder").exists()
