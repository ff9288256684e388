import pytest

from ibot_cli.data.bad_files import BadFiles, BadLimits
from ibot_cli.errors import DataError


def entries(count):
    return [(f"{index}.png", "the file is empty") for index in range(count)]


def test_both_limits_must_be_exceeded():
    bad = BadFiles(BadLimits(num_images=2000, max_ratio=0.01, max_files=10))
    assert bad.add(entries(20)) == [f"{index}.png" for index in range(20)]
    assert bad.add(entries(20)) == [] and len(bad) == 20
    with pytest.raises(DataError, match=r"21 of 2,000 files cannot be read; a run stops above 10 files and 0\.01"):
        bad.add(entries(21))
    few = BadFiles(BadLimits(num_images=100, max_ratio=0.01, max_files=10))
    few.add(entries(10))
    with pytest.raises(DataError):
        few.add(entries(11))


def test_the_error_lists_twenty_files():
    with pytest.raises(DataError) as caught:
        BadFiles(BadLimits(num_images=50, max_ratio=0.0, max_files=0)).add(entries(23))
    lines = caught.value.message.splitlines()
    assert len(lines) == 22 and lines[1] == "  0.png: the file is empty" and lines[-1] == "  and 3 more"
    assert caught.value.hint
