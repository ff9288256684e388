import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ibot_cli.cli import app
from ibot_cli.errors import RunError, UsageError
from tests.visualize.report.runs import append_line, pretrain_run


def run(*args: Path | str) -> Result:
    return CliRunner().invoke(app, ["report", *map(str, args)], catch_exceptions=False)


def test_the_report_is_in_the_run(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    result = run(path, "--no-samples")
    assert result.exit_code == 0 and result.stdout == ""
    assert f"Report: {path / 'report.html'} (0.1 MB)" in result.stderr
    assert "<h1>run</h1>" in (path / "report.html").read_text()


def test_elsewhere_under_another_name(tmp_path: Path) -> None:
    path, out = pretrain_run(tmp_path / "run"), tmp_path / "page.html"
    append_line(path, "damaged\n")
    result = run(path, "--no-samples", "--out", out, "--title", "A title", "--json")
    written = json.loads(result.stdout)
    assert written["path"] == str(out) and written["size"] == out.stat().st_size
    assert written["sections"][0] == "overview" and "metrics.jsonl" in written["problems"][0]
    assert "warning: 1 line of metrics.jsonl" in result.stderr
    assert "<h1>A title</h1>" in out.read_text() and not (path / "report.html").exists()


def test_wrong_usage(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    with pytest.raises(RunError, match="does not exist"):
        run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not a run"):
        run(tmp_path)
    with pytest.raises(UsageError, match=r"does not end in \.html"):
        run(path, "--out", path / "metrics.jsonl")
    with pytest.raises(UsageError, match="--no-samples shows no images"):
        run(path, "--no-samples", "--data", "builtin:digits")
