import numpy as np
import pytest

from ibot_cli.data.packing.member_names import MemberNames


class Paths:
    """A source of names alone."""

    def __init__(self, paths: list[str], labels: list[int] | None = None, classes: list[str] | None = None) -> None:
        self._paths = paths
        self.labels = None if labels is None else np.array(labels)
        self.classes = classes

    def __len__(self) -> int:
        return len(self._paths)

    def path(self, index: int) -> str:
        return self._paths[index]


def names(paths: list[str], labels: list[int] | None = None, classes: list[str] | None = None) -> list[str]:
    found = MemberNames(Paths(paths, labels, classes))  # type: ignore[arg-type]
    return [found[index] for index in range(len(paths))]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["/data/x/a.jpg", "/data/x/b.jpg"], ["a", "b"]),
        (["/data/x/1/a.jpg", "/data/x/2/deep/a.jpg"], ["1/a", "2/deep/a"]),
        (["/one/a.jpg", "/two/a.jpg"], ["one/a", "two/a"]),
        (["/d/a.b.c.jpg", "/d/v1.2/x.jpeg"], ["a_b_c", "v1.2/x"]),
        (["/d/a.b.jpg", "/d/a_b.jpg", "/d/a_b-2.jpg"], ["a_b", "a_b-3", "a_b-2"]),
        (["/d/a.jpg", "/d/a.png", "/d/a.webp"], ["a", "a-2", "a-3"]),
        (["/d/a.jpg", "/d/a.jpg"], ["a", "a-2"]),
        (["/d/list/../x/a.jpg", "/d/y/./b.jpg"], ["x/a", "y/b"]),
        (["/d/new\nline.jpg", "/d/back\\slash.jpg"], ["new_line", "back/slash"]),
        (["/d/noend", "/d/odd.data"], ["noend", "odd_data"]),
        (["/d/x-000000.tar/cat/a.jpg", "/d/x-000001.tar/dog/b.jpg"], ["cat/a", "dog/b"]),
        (["builtin:digits/7", "builtin:digits/9"], ["7", "9"]),
        (["single.jpg"], ["single"]),
        (["../../a.jpg", "../b.jpg"], ["a", "b"]),
        (["/d/é ü.jpg", "/d/x.jpg"], ["é ü", "x"]),
    ],
)
def test_names_are_the_paths_as_far_as_they_differ_with_one_dot_left_for_the_extension(
    paths: list[str], expected: list[str]
) -> None:
    assert names(paths) == expected


def test_the_class_comes_first() -> None:
    paths = ["/d/train/cat/a.jpg", "/d/train/dog/b.jpg"]
    assert names(paths, [0, 1], ["cat", "dog"]) == ["cat/a", "dog/b"]
    assert names(["/d/a.jpg", "/d/b.jpg"], [1, 0], ["cat", "dog"]) == ["dog/a", "cat/b"]  # as from a CSV file
    assert names(["/d/cat/a.jpg", "/d/cat/b.jpg"], [0, 0], ["cat", "dog"]) == ["cat/a", "cat/b"]  # a part with one
    assert names(["/cat/cat/a.jpg", "/cat/dog/cat.jpg"], [0, 1], ["cat", "dog"]) == ["cat/a", "dog/cat"]
    assert names(["/cat/x/a.jpg", "/cat/y/b.jpg"], [0, 0], ["cat", "dog"]) == ["cat/x/a", "cat/y/b"]
    assert names(["/d/a.jpg", "/d/b.jpg"], [1, 0], ["..", "../../up"]) == ["up/a", "_/b"]
    assert names(["/d/x/china/sky/1", "/d/x/china/lake/2"], [1, 0], ["china/lake", "china/sky"]) == [
        "china/sky/1",
        "china/lake/2",
    ]


def test_names_are_unique_where_all_are_alike() -> None:
    found = names(["/d/a.jpg"] * 300 + ["/d/a-2.jpg"])
    assert len(set(found)) == 301
