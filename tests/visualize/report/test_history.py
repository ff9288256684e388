from pathlib import Path

from ibot_cli.visualize.report.environment import environment_section
from ibot_cli.visualize.report.history import sessions
from ibot_cli.visualize.report.record import read_run
from tests.visualize.report.runs import pretrain_run, resume, rewrite


def test_a_run_that_never_stopped_has_one_session(tmp_path: Path) -> None:
    run = read_run(pretrain_run(tmp_path / "run"))
    assert [(each.step, each.changes) for each in sessions(run)] == [(0, ())]
    assert environment_section(run).values["sessions"] == []


def test_each_is_compared_with_the_one_before(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "a run")
    resume(path, 20)
    resume(path, 50, cpu="Another", packages={"torch": "2.12.0", "numpy": "2.0.0"}, devices=["A100", "A100"])
    resume(path, 70, packages={"torch": "2.12.0", "numpy": "2.0.0"}, devices=[])
    command = f"ibot pretrain --out '{path}' --resume"
    assert environment_section(read_run(path)).values["sessions"] == [
        ("–", "0", "0", "ibot pretrain --out runs/digits", "nothing"),
        ("2030-01-02 03:20", "20", "1", command, "nothing"),
        ("2030-01-02 03:50", "50", "2.5", command, "processor A processor before, Another now; "
         "torch 2.11.0 before, 2.12.0 now"),
        ("2030-01-02 03:10", "70", "3.5", command, "processor Another before, A processor now; "
         "GPUs A100, A100 before, none now"),
    ]  # fmt: skip


def test_without_the_beginning(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    resume(path, 20)
    (path / "env.json").unlink()
    first = sessions(read_run(path))[0]
    assert (first.step, first.command, first.changes) == (0, "", ())
    file = path / "resumes.jsonl"
    file.write_text(file.read_text() + '{"step": 40, "half')
    assert [each.step for each in sessions(read_run(path))] == [0, 20]
    file.write_text('{"step": "two"}\n')
    run = read_run(path)
    assert run.resumes == () and "resumes.jsonl is damaged, so it is not known when the run went on." in run.problems


def test_times_are_told_in_utc(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    rewrite(path / "env.json", time="2030-01-01T01:30:00+02:00")
    machine = environment_section(read_run(path)).values["machine"]
    assert ("Began", "2029-12-31 23:30 UTC") in machine  # type: ignore[operator]
