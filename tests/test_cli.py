import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
from typer.testing import CliRunner

from ibot_cli import __version__, cli
from ibot_cli.config import presets
from ibot_cli.errors import DataError

HEAVY = ("torch", "torchvision", "timm", "numpy", "sklearn", "faiss", "PIL", "yaml", "tensorboard")
REPORT = """
import json, sys
from ibot_cli.cli import main
sys.argv = ["ibot", *{args}]
try:
    main()
except SystemExit as stop:
    print(json.dumps([stop.code, sorted(sys.modules)]), file=sys.stderr)
"""


def run(*args: str) -> subprocess.CompletedProcess[str]:
    """`ibot ARGS` in a fresh interpreter, as a pipe sees it."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "COLUMNS": "100"}
    command = [sys.executable, "-m", "ibot_cli", *args]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=environment, check=False)


def exit_code(monkeypatch: pytest.MonkeyPatch, args: Sequence[str]) -> object:
    monkeypatch.setattr(sys, "argv", ["ibot", *args])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["pretrain", "--help"], ["presets", "--help"]])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", REPORT.format(args=args)], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0
    assert [name for name in HEAVY if name in modules] == []


def test_help_shows_the_quick_start_and_the_exit_codes() -> None:
    done = run("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "$ ibot pretrain photos/ --out runs/photos" in done.stdout
    assert "$ ibot knn-eval runs/photos photos/" in done.stdout
    text = " ".join(done.stdout.split())
    assert "0 done, 1 a failure you can fix, 2 wrong usage or configuration, 130 and 143 interrupted" in text
    assert "Pre-train a vision transformer on your own images" in text
    assert all(name in text for name in cli.COMMANDS)


def test_without_a_command_the_help_is_shown() -> None:
    done = run()
    assert done.returncode == 2
    assert "Usage: " in done.stdout + done.stderr


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ibot {__version__}\n", "")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_with_examples(name: str) -> None:
    result = CliRunner().invoke(cli.app, [name, "--help"])
    assert result.exit_code == 0
    assert f"$ ibot {name}" in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["pretrian"], "No such command 'pretrian'. Did you mean 'pretrain'"),
        (["pretrain", "--preste", "x"], "No such option: --preste"),
        (["presets", "shw"], "No such command 'shw'. Did you mean 'show'?"),
        (["knn-eval", "a", "b", "--workers", "-1"], "Invalid value for '--workers'"),
        (["knn-eval"], "Missing argument 'WEIGHTS'"),
    ],
)
def test_wrong_usage_exits_2_and_says_why_on_stderr(args: list[str], message: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert message in done.stderr


def test_a_configuration_error_exits_2_with_a_hint() -> None:
    done = run("presets", "show", "ibot_vist16")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "error: 1 problem in the configuration.\n"
        "  - preset ibot_vist16: there is no preset of this name; did you mean ibot_vits16?\n"
        "hint: `ibot presets list` shows the presets.\n"
    )


def test_a_pattern_that_the_shell_expanded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(monkeypatch, ["pretrain", "a/0.tar", "a/1.tar", "a/2.tar"]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "3 tar files where DATA is one argument: a/0.tar to a/2.tar." in shown and "quotation marks" in shown
    assert exit_code(monkeypatch, ["pretrain", "a", "b"]) == 2
    assert "tar files" not in capsys.readouterr().err


def test_any_other_error_of_ours_exits_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> list[str]:
        raise DataError("The folder is [empty].", "Put images into it.")

    monkeypatch.setattr(presets, "names", fail)
    assert exit_code(monkeypatch, ["presets", "list"]) == 1
    assert capsys.readouterr().err == "error: The folder is [empty].\nhint: Put images into it.\n"


def test_an_interruption_exits_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(presets, "names", interrupt)
    assert exit_code(monkeypatch, ["presets", "list"]) == 130
    monkeypatch.setattr(cli, "app", interrupt)
    assert exit_code(monkeypatch, []) == 130


def test_a_termination_exits_143_and_lets_commands_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned = []

    def terminate() -> list[str]:
        try:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("went on")
        finally:
            cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(presets, "names", terminate)
    assert exit_code(monkeypatch, ["presets", "list"]) == 143
    assert cleaned == [True] and signal.getsignal(signal.SIGTERM) is before


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug() -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(presets, "names", bug)
    monkeypatch.setattr(sys, "argv", ["ibot", "presets", "list"])
    with pytest.raises(ZeroDivisionError):
        cli.main()
