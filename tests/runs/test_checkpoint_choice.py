from pathlib import Path

import pytest

from ibot_cli.errors import RunError, UsageError
from ibot_cli.runs.checkpoint_choice import choose_checkpoints


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("")
    for name in ("00000900", "00000100.keep", "00000500", "00000500.keep", "00001000"):
        (tmp_path / "checkpoints" / f"step-{name}.pt").write_text("")
    (tmp_path / "checkpoints" / "step-00000700.pt.unreadable").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("all", ["00000100.keep", "00000500.keep", "00000900", "00001000"]),
        ("last:2", ["00000900", "00001000"]),
        ("last:99", ["00000100.keep", "00000500.keep", "00000900", "00001000"]),
        ("1000, 100,1000", ["00000100.keep", "00001000"]),
        ("500", ["00000500.keep"]),
    ],
)
def test_choices(run: Path, text: str, steps: list[str]) -> None:
    assert [path.name for path in choose_checkpoints(str(run), text)] == [f"step-{step}.pt" for step in steps]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("last:0", "--checkpoints last:0: '0' is not a positive whole number."),
        ("last:", "--checkpoints last:: '' is not a positive whole number."),
        ("newest", "--checkpoints newest: 'newest' is not a step."),
        ("100,,500", "--checkpoints 100,,500: '' is not a step."),
        ("-100", "--checkpoints -100: '-100' is not a step."),
    ],
)
def test_words_that_say_nothing(run: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_checkpoints(str(run), text)
    assert caught.value.message == message
    assert caught.value.hint == "Write all, last:N, or steps such as 1000,2000."


def test_steps_without_a_checkpoint(run: Path) -> None:
    with pytest.raises(UsageError, match=r"--checkpoints 100,7,8: .* has no checkpoint of step 7, 8\.") as caught:
        choose_checkpoints(str(run), "100,7,8")
    assert caught.value.hint == "It has 100, 500, 900, 1000."


def test_no_run_and_no_checkpoint(run: Path) -> None:
    with pytest.raises(UsageError, match=r"--checkpoints all chooses .* weights.pth is not a run directory") as caught:
        choose_checkpoints("weights.pth", "all")
    assert caught.value.hint == "Name the directory that `ibot pretrain` made."
    for path in (run / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(RunError, match="has no checkpoint yet"):
        choose_checkpoints(str(run), "all")
