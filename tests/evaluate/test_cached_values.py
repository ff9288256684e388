import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ibot_cli.cache_folder import cache_folder
from ibot_cli.evaluate import cached_values
from ibot_cli.evaluate.cached_values import cached_value

VALUE: Mapping[str, Any] = {"top1": 0.5, "seeds": (0.25, float("nan")), "name": "é"}
STORED = {"top1": 0.5, "seeds": [0.25, None], "name": "é"}


def measured(key: str = "key", kind: str = "kind") -> int:
    """How often the value had to be measured."""
    calls = []

    def measure() -> Mapping[str, Any]:
        calls.append(key)
        return VALUE

    assert cached_value(kind, key, measure) == STORED
    return len(calls)


def only() -> Path:
    (path,) = (cache_folder("kind")).iterdir()
    return path


def test_measured_once_per_kind_and_key() -> None:
    assert [measured(*request) for request in (("a",), ("a",), ("b",), ("a", "other"), ("a", "other"))] == [
        1,
        0,
        1,
        1,
        0,
    ]


def test_another_version_measures_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measured() == 1
    monkeypatch.setattr(cached_values, "__version__", "0.0")
    assert measured() == 1


@pytest.mark.parametrize("content", ["", "{half", "[1]", "3", '{"key": "key"}', '{"key": "key", "value": [1]}'])
def test_a_damaged_file_is_replaced(content: str) -> None:
    measured()
    only().write_text(content)
    assert (measured(), measured()) == (1, 0)


def test_the_file_of_another_key_is_not_believed() -> None:
    measured()
    stored = json.loads(only().read_text())
    only().write_text(json.dumps({**stored, "key": "another"}))
    assert measured() == 1


def test_without_a_place_for_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert (measured(), measured()) == (1, 1)


def test_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IBOT_CACHE_GIB", "0")
    assert (measured(), measured()) == (1, 1) and not cache_folder().exists()
