from pathlib import Path

import pytest

from ibot_cli.config.document import parse_document, read_document


def test_scalars_stay_text_and_lines_are_known() -> None:
    document = parse_document("optim:\n  lr: 1e-3\n  warmup_epochs: 010\nmask:\n  ratio: [0, 0.3]\n")
    assert document.tree == {"optim": {"lr": "1e-3", "warmup_epochs": "010"}, "mask": {"ratio": ["0", "0.3"]}}
    assert document.lines["optim.lr"] == 2
    assert document.lines["mask.ratio"] == 5
    assert not document.faults


def test_an_empty_text_says_nothing() -> None:
    assert parse_document("# only a comment\n").tree == {}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a is given twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: a.b is given twice, first in line 2"),
        ("- 1\n- 2\n", "line 1: it is not a mapping of settings but a list"),
        ("hello\n", "line 1: it is not a mapping of settings but a single value"),
        ("? [1, 2]\n: 3\n", "line 1: a key must be a name, not a list"),
        ("a: &x\n  b: *x\n", "line 1: a.b contains itself"),
        ("a: 1\nb: [1\n", "it is not valid YAML: line 3"),
        ("a: 1\n\tb: 2\n", "it is not valid YAML: line 2"),
        ("a: \x00\n", "it is not valid YAML"),
        ("--- \na: 1\n--- \nb: 1\n", "it is not valid YAML: line 3"),
    ],
)
def test_faults_name_the_line(text: str, fault: str) -> None:
    found = parse_document(text).faults
    assert len(found) == 1
    assert fault in found[0]


def test_every_duplicate_is_told() -> None:
    assert len(parse_document("a: 1\na: 2\nb: 1\nb: 2\n").faults) == 2


def test_a_loop_is_found_where_it_closes() -> None:
    assert "contains itself" in parse_document("a: &x\n  b:\n    c: *x\n").faults[0]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"a: \xff\xfe")
    assert read_document(tmp_path / "missing.yaml").faults == ["there is no such file"]
    assert read_document(tmp_path).faults == ["it is a directory, not a YAML file"]
    assert read_document(binary).faults == ["it is not UTF-8 text (byte 3)"]


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    file = tmp_path / "windows.yaml"
    file.write_bytes(b"\xef\xbb\xbfoptim:\r\n  lr: 1\r\n")
    assert read_document(file).tree == {"optim": {"lr": "1"}}
