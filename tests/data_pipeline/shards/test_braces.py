import shutil
import subprocess

import pytest

from ibot_cli.data.shards.braces import expanded
from ibot_cli.errors import DataError

PATTERNS = [
    "x-{000000..000012}.tar",
    "x-{8..12}.tar",
    "x-{08..12}.tar",
    "x-{3..1}.tar",
    "x-{0..10..5}.tar",
    "{a,b}/x-{0..1}.tar",
    "x-{a,b{1..2},}.tar",
    "x-{a}.tar",
    "x-{{a,b}}.tar",
    "x-{a,b.tar",
    "x}.tar",
    "x-{a..}{1,2}",
    "plain.tar",
]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is the oracle")
def test_braces_mean_what_they_mean_in_bash() -> None:
    """One shell for all patterns: starting it takes longest."""
    script = "\n".join(f"echo {pattern}" for pattern in PATTERNS)
    lines = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.splitlines()
    for pattern, line in zip(PATTERNS, lines, strict=True):
        assert expanded(pattern) == line.split(), pattern


def test_the_padding_of_a_range() -> None:
    assert expanded("x-{000009..000010}.tar") == ["x-000009.tar", "x-000010.tar"]


def test_a_set_of_characters_keeps_its_brace() -> None:
    assert expanded("a[{]b,c[}]/{1,2}") == ["a[{]b,c[}]/1", "a[{]b,c[}]/2"]


@pytest.mark.parametrize("pattern", ["{0..99999999}.tar", "{0..2000}{0..2000}.tar"])
def test_too_many_names_are_refused_before_they_are_made(pattern: str) -> None:
    with pytest.raises(DataError, match="stands for more than 1,000,000 names"):
        expanded(pattern)
