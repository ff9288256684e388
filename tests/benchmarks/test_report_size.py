from pathlib import Path

from benchmarks.report_size import measure, parser


def test_a_small_report_from_end_to_end(tmp_path: Path) -> None:
    options = parser().parse_args(["--images", "40", "--classes", "2", "--size", "32", "--steps", "50"])
    found = measure(options, tmp_path)
    assert {"patterns", "attention", "neighbours"} <= set(found["sections"])
    assert 0.1 < found["megabytes"] < 2
