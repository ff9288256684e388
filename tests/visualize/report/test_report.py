import hashlib
from pathlib import Path

import pytest

from ibot_cli.errors import RunError, UsageError
from ibot_cli.visualize.report.report import write_report
from ibot_cli.visualize.report.samples.options import SampleOptions
from tests.evaluate.records import add_cluster, add_knn
from tests.visualize.pages.document import Document, check_page
from tests.visualize.report.runs import append_line, finetune_run, pretrain_run, resume, rewrite

SECTIONS = ["overview", "curves", "evaluations", "data", "configuration", "environment", "reproduce"]
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\" & `"


def page(run: Path, title: str | None = None) -> Document:
    """The report without samples, checked."""
    written = write_report(run, title=title)
    assert written.path == run / "report.html" and written.size == written.path.stat().st_size < 300_000
    return check_page(written.path.read_text(encoding="utf-8"))


def sections(document: Document) -> list[str]:
    return [str(attributes["id"]) for attributes in document.all("section")]


def test_everything_about_a_run(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "digits", notes=["A note on the images."])
    add_knn(path, 0.7)
    add_cluster(path, 0.8)
    document = page(path)
    assert sections(document) == SECTIONS
    text = document.text()
    for words in (
        "iBOT pre-training of vit_tiny, width 64, depth 3, patch 4, 16 px on builtin:digits (train).",
        "k-NN top-1 70.0% random weights 40.0%, raw pixels 90.0%: below raw pixels",
        "k-means NMI 0.800",
        "Optimisation Healthy",
        "6 of 6 120 steps",
        "1,437 10 classes",
        "A note on the images.",
        "No unreadable image was met.",
        "train.epochs",
        "torch 2.11.0",
        "step-00000120.pt",
        "pip install torch==2.11.0 numpy==2.0.0",
        "ibot pretrain --out runs/digits",
        f"ibot knn-eval {path} builtin:digits",
    ):
        assert words in text, words
    charts = [attributes for attributes in document.all("svg") if attributes.get("role") == "img"]
    assert len(charts) == 14
    titles = {text for tag, text in document.texts if tag == "title"}
    assert {
        "Losses",
        "Entropy of a target",
        "Prototypes in use",
        "k-NN accuracy while training",
        "Learning rate",
    } <= titles


def test_fine_tuning(tmp_path: Path) -> None:
    document = page(finetune_run(tmp_path / "tuned"))
    text = document.text()
    assert "Fine-tuning of the teacher of runs/digits on builtin:digits (train)." in text
    assert "Top-1 80.0% on test images, while training" in text
    titles = {text for tag, text in document.texts if tag == "title"}
    assert {"Top-1 accuracy", "Loss per epoch", "Gradient norm"} <= titles and "Losses" not in titles
    assert "Entropy of a target" not in titles


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_hardly_begun(tmp_path: Path, epochs: int) -> None:
    text = page(pretrain_run(tmp_path / "run", epochs=epochs)).text()
    assert f"{epochs} of 6" in text and "--resume" in text
    assert ("The run has not recorded a single step yet" in text) == (epochs == 0)
    assert ("There is no checkpoint." in text) == (epochs == 0)
    assert "The run was not evaluated yet. An example:" in text


def test_names_from_outside_do_no_harm(tmp_path: Path) -> None:
    quiet = page(pretrain_run(tmp_path / "quiet", classes=["a"], notes=["b"], name="c", data="/d"), title="e")
    path = tmp_path / "<script>alert(1)<b>"
    loud = page(pretrain_run(path, classes=[HOSTILE], notes=[HOSTILE], name=HOSTILE, data=HOSTILE), title=HOSTILE)
    assert [tag for tag, _ in quiet.elements] == [tag for tag, _ in loud.elements]
    assert ("h1", HOSTILE) in loud.texts
    (path / "bad_files.json").write_text('{"count": 1, "files": {"<script>.png": "<b>"}}')
    rewrite(path / "env.json", command=["ibot", "pretrain", HOSTILE], cpu=HOSTILE, packages={HOSTILE: HOSTILE})
    again = page(path)
    assert len(again.all("script")) == len(quiet.all("script")) and "onerror" not in {
        k for _, a in again.elements for k in a
    }
    assert HOSTILE in again.text() and "<script>.png" in again.text()


def test_nothing_else_of_the_run_is_changed(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    add_knn(path, 0.7)

    def state() -> dict[str, tuple[str, int]]:
        files = [file for file in path.rglob("*") if file.is_file()]
        return {f.name: (hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in files}

    before = state()
    write_report(path, out=tmp_path / "elsewhere.html")
    assert state() == before
    write_report(path)
    after = state()
    assert after.pop("report.html")[0] and after == before


def test_damage_is_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run", data=str(tmp_path / "gone"))
    append_line(path, "damaged\n")
    (path / "env.json").write_text("[]")
    (path / "evaluations.jsonl").write_text("{}\n")
    text = page(path).text()
    assert "1 line of metrics.jsonl (line 127) could not be read" in text
    assert f"The images are not there any more: {tmp_path / 'gone'}." in text
    assert "the machine is not known" in text and "its preset is not known" in text
    assert "line 1 is not the record of an evaluation" in text
    for name in ("config.yaml", "data.json"):
        (path / name).write_text("- 1")
    text = page(path).text()
    assert "settings cannot be read by this version" in text and "nothing is known about the images" in text


def test_entries_of_another_kind_are_left_out(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run", num_images="many", notes=3, origin=["x"])
    resume(path, 20, packages=7)
    rewrite(path / "env.json", packages=[1], time=5)
    (path / "bad_files.json").write_text('{"files": 1}')
    append_line(path, '{"step": 120, "epochs_done": 7, "used_prototypes/patch": ["a"], "target_entropy/cls": "x"}\n')
    text = page(path).text()
    for words in (
        "data.json holds no such thing as ibot writes as num_images, notes, origin; it is left out.",
        "env.json holds no such thing as ibot writes as packages, time;",
        "resumes.jsonl holds no such thing as ibot writes as packages;",
        "bad_files.json holds no such thing as ibot writes as files;",
    ):
        assert words in text, words


def test_unreadable_images_are_named_up_to_a_number(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    files = ", ".join(f'"{number:03d}.png": "truncated"' for number in range(50))
    (path / "bad_files.json").write_text(f'{{"count": 50, "files": {{{files}}}}}')
    text = page(path).text()
    assert "50 could not be read and were replaced by others; the first 20" in text
    assert "019.png" in text and "020.png" not in text


def test_a_very_long_run_stays_small(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run", epochs=300, planned=300, each_step=lambda step: {"loss/total": 1 / step})
    document = page(path)
    rows = [len(points) for a in document.all("polyline") if (points := str(a["points"]).split())]
    assert max(rows) <= 262


def test_samples_that_cannot_be_shown_say_why(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")  # its checkpoint is none
    document = check_page(write_report(path, samples=SampleOptions()).path.read_text())
    assert [s for s in sections(document) if s in SECTIONS] == SECTIONS
    assert "neighbours" in sections(document) and "step-00000120.pt" in document.text()


def test_where_a_report_cannot_go(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    with pytest.raises(RunError, match="is not a run"):
        write_report(tmp_path)
    with pytest.raises(UsageError, match="is a directory"):
        write_report(path, out=path)
    with pytest.raises(UsageError, match=r"does not end in \.html"):
        write_report(path, out=path / "config.yaml")
    with pytest.raises(UsageError, match="--title is blank"):
        write_report(path, title=" ")
    assert not (path / "report.html").exists()
