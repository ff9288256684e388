import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ibot_cli import console
from ibot_cli.errors import IBotError


@dataclass(frozen=True)
class Result:
    top1: float
    per_k: dict[str, float]
    where: Path


def test_errors_go_to_stderr_with_their_hint(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_error(IBotError("No [bold]images[/bold] in /a/b.", "Give another folder."))
    console.print_error(IBotError("Only a message. " + "long " * 60))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[:2] == ["error: No [bold]images[/bold] in /a/b.", "hint: Give another folder."]
    assert len(lines) == 3


def test_warnings_and_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.warn("Careful.")
    console.note("Fine.")
    assert capsys.readouterr() == ("", "warning: Careful.\nFine.\n")


def test_json_goes_to_stdout_and_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    console.emit_json(Result(top1=0.5, per_k={"20": 0.5}, where=Path("runs/a")))
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {"top1": 0.5, "per_k": {"20": 0.5}, "where": str(Path("runs/a"))}
    with pytest.raises(TypeError, match="object has no JSON form"):
        console.emit_json(object())


def test_a_table_in_a_pipe_keeps_a_row_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["k", "what"], [("20", "word " * 60), ("100", "[b]")], title="k-NN", right=["k"], data=True)
    out, err = capsys.readouterr()
    assert err == ""
    lines = [line.rstrip() for line in out.splitlines()]
    assert len(lines) == 5
    assert lines[0] == "k-NN"
    assert lines[-1].split() == ["100", "[b]"]
    assert "\x1b" not in out


def test_tables_for_people_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console.table(["k"], [("20",)])
    out, err = capsys.readouterr()
    assert out == ""
    assert "20" in err


def test_definitions(capsys: pytest.CaptureFixture[str]) -> None:
    console.definitions([("optim.lr = 0.1", ["Peak learning rate.", "source: [1]"])])
    assert capsys.readouterr().out == "optim.lr = 0.1\n    Peak learning rate.\n    source: [1]\n"


def test_a_terminal_gets_colour_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import sys

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())
    console.warn("Careful.")
    assert "\x1b[1;33m" in sys.stderr.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", Terminal())
    console.warn("Careful.")
    assert "33m" not in sys.stderr.getvalue()
    assert "warning:" in sys.stderr.getvalue()


def test_quiet_leaves_out_what_is_neither_data_nor_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    console.keep_quiet(True)
    try:
        console.note("Fine.")
        console.table(["k"], [("20",)])
        assert capsys.readouterr() == ("", "")
        console.table(["k"], [("20",)], data=True)
        console.warn("Careful.")
        console.print_error(IBotError("Wrong."))
        out, err = capsys.readouterr()
    finally:
        console.keep_quiet(False)
    assert "20" in out and err == "warning: Careful.\nerror: Wrong.\n"
    console.note("Fine.")
    assert capsys.readouterr().err == "Fine.\n"


def test_only_the_first_of_several_processes_writes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    console.note("a note")
    console.warn("a warning")
    console.table(["a"], [["b"]], data=True)
    console.emit_json({})
    console.emit_text("text")
    assert capsys.readouterr() == ("", "")
    console.print_error(IBotError("wrong"))
    assert capsys.readouterr().err == "error: wrong\n"
