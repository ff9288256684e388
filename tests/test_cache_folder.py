from pathlib import Path

import pytest

from ibot_cli.cache_folder import cache_folder, cache_limit
from ibot_cli.errors import UsageError


@pytest.mark.parametrize(("text", "size"), [("", 20 * 2**30), ("0", 0), (" 2.5 ", 5 * 2**29)])
def test_limit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", text)
    assert cache_limit() == size


def test_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "default-cache" / "ibot"
    assert cache_folder("a", "b") == tmp_path / "default-cache" / "ibot" / "a" / "b"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "ibot"


@pytest.mark.parametrize("text", ["-1", "much", "nan", "inf"])
def test_a_limit_that_is_no_size(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", text)
    with pytest.raises(UsageError, match="not a number of GiB") as caught:
        cache_limit()
    assert caught.value.hint == "The default is 20; 0 is no cache."
