from pathlib import Path
from typing import Any

import pytest

from ibot_cli.visualize.report.evaluations import evaluated
from ibot_cli.visualize.report.record import read_run
from ibot_cli.visualize.report.verdict import findings, health
from tests.evaluate.records import add_finetune, add_knn
from tests.visualize.report.runs import finetune_run, pretrain_run, resume

UNIFORM = {"target_entropy/cls": 0.999, "target_entropy/patch": 0.999}
NARROW = {"target_entropy/patch": 0.01, "marginal_entropy/patch": 0.0, "used_prototypes/patch": 1}


def told(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """The state in a word, and tone and text of everything said."""
    run = read_run(path)
    return health(run)[0], [(each.tone, each.text) for each in findings(run, evaluated(run))]


def said(found: list[tuple[str, str]], tone: str, text: str) -> bool:
    return any(each == tone and text in words for each, words in found)


def test_a_healthy_run(tmp_path: Path) -> None:
    word, found = told(pretrain_run(tmp_path / "run"))
    assert word == "Healthy"
    assert said(found, "good", "All 6 epochs that were planned are complete.")
    assert said(found, "good", "class-token targets carry 40.0% of the largest possible entropy and use 200 prototypes")
    assert said(found, "good", "Every one of 120 updates was finite")
    assert said(found, "good", "k-NN accuracy on held-out training images rose from 60.0% (epoch 1) to 90.0%")
    assert said(found, "", "was not evaluated yet")
    assert {tone for tone, _ in found} == {"good", ""}


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (UNIFORM, "Since epoch 3: Collapse to uniform: the teacher's class-token targets carry 99.9%"),
        (NARROW, "Since epoch 3: Collapse to few prototypes: the teacher's patch targets use about 1.0 of 256"),
    ],
)
def test_a_collapse_comes_first_with_what_to_change(tmp_path: Path, values: dict[str, Any], text: str) -> None:
    word, found = told(pretrain_run(tmp_path / "run", each_epoch=lambda epoch: values if epoch > 2 else {}))
    assert word == "Collapsed"
    assert found[0][0] == "bad" and any(
        text in words and "To fix it" in words for tone, words in found if tone == "bad"
    )
    assert not any("No collapse" in words for _, words in found)


def test_a_collapse_that_is_over(tmp_path: Path) -> None:
    word, found = told(pretrain_run(tmp_path / "run", each_epoch=lambda epoch: NARROW if epoch in (2, 3) else {}))
    assert word == "With incidents" and said(found, "warn", "In epochs 2 to 3 the run looked collapsed, and recovered.")


def test_one_bad_epoch_is_no_collapse(tmp_path: Path) -> None:
    word, found = told(pretrain_run(tmp_path / "run", each_epoch=lambda epoch: NARROW if epoch == 2 else {}))
    assert word == "Healthy" and said(found, "good", "No collapse.")


def test_almost_uniform_targets(tmp_path: Path) -> None:
    word, found = told(pretrain_run(tmp_path / "run", each_epoch=lambda _: {"target_entropy/cls": 0.96}))
    assert word == "Almost uniform" and said(found, "warn", "The class-token targets are almost uniform.")


def test_skipped_updates(tmp_path: Path) -> None:
    word, found = told(pretrain_run(tmp_path / "few", each_step=lambda step: {"skipped": step == 7}))
    assert word == "With incidents" and said(
        found, "warn", "1 update of 120 (0.83%) not finite and skipped, the first at step 7."
    )
    lost = {"skipped": True, "loss/total": float("nan"), "grad_norm": float("nan")}
    word, found = told(pretrain_run(tmp_path / "many", each_step=lambda step: lost if step > 100 else {}))
    assert (
        word == "Unstable" and said(found, "bad", "20 updates of 120 (16.67%)") and said(found, "bad", "Lower optim.lr")
    )


def test_an_unfinished_run(tmp_path: Path) -> None:
    path = tmp_path / "a run"
    word, found = told(pretrain_run(path, epochs=2))
    assert word == "Healthy" and said(found, "warn", "2 epochs of 6 done.")
    assert said(found, "warn", f"ibot pretrain --out '{path}' --resume")
    word, found = told(pretrain_run(tmp_path / "fresh", epochs=0))
    assert word == "Not known yet" and said(found, "warn", "0 epochs of 6 done. There is no checkpoint yet")


def test_accuracy_that_falls_or_stays(tmp_path: Path) -> None:
    _, found = told(pretrain_run(tmp_path / "falls", each_epoch=lambda epoch: {"knn_accuracy": 0.9 - 0.1 * epoch}))
    assert said(found, "warn", "was best after epoch 1 (80.0%) and fell to 30.0%, by more than chance explains.")
    _, found = told(pretrain_run(tmp_path / "stays", each_epoch=lambda epoch: {"knn_accuracy": 0.8 + 0.001 * epoch}))
    assert said(
        found, "warn", "was 80.1% at first and 80.6% at last; with about 144 images to judge by, that is no more"
    )
    _, found = told(pretrain_run(tmp_path / "easy", each_epoch=lambda _: {"knn_accuracy": 1.0}))
    assert said(found, "", "was 100.0% at first and 100.0% at last: these images are too easy")
    _, found = told(finetune_run(tmp_path / "tuned"))
    assert said(found, "good", "The top-1 accuracy rose from 60.0% (epoch 2) to 80.0%.")


@pytest.mark.parametrize("last", [143 / 144, 141 / 144])
def test_an_image_or_three_less_than_all_is_no_fall(tmp_path: Path, last: float) -> None:
    _, found = told(
        pretrain_run(tmp_path / "run", each_epoch=lambda epoch: {"knn_accuracy": 1.0 if epoch < 6 else last})
    )
    assert not any("fell to" in words for _, words in found)
    assert said(found, "" if last > 0.98 else "warn", f"was 100.0% at first and {last:.1%} at last")


def test_few_images_tell_little(tmp_path: Path) -> None:
    few = {"num_images": 50}  # of which 5 are held out
    _, found = told(
        pretrain_run(tmp_path / "run", each_epoch=lambda epoch: {"knn_accuracy": 0.2 * min(epoch, 3)}, **few)
    )
    assert said(found, "warn", "was 20.0% at first and 60.0% at last; with about 5 images to judge by")


def test_a_run_that_went_on(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    resume(path, 40)
    assert said(
        told(path)[1], "", "The run was stopped and went on 1 time, the last time after step 40; see Environment."
    )
    resume(path, 80, packages={"torch": "2.12.0", "numpy": "2.0.0"})
    assert said(told(path)[1], "warn", "went on 2 times, the last time after step 80; see Environment. Versions or the")


def test_what_a_fine_tuned_run_is_judged_by(tmp_path: Path) -> None:
    path = finetune_run(tmp_path / "tuned")
    add_knn(path, 0.95)
    add_finetune(path, path, 0.8)
    assert said(told(path)[1], "", "fine-tuned top-1 on builtin:digits is 80.0%: no baseline was measured.")


def test_baselines(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run")
    add_knn(path, 0.95)
    assert said(told(path)[1], "good", "k-NN top-1 on builtin:digits is 95.0%: above random weights and raw pixels.")
    add_knn(path, 0.7)
    assert said(told(path)[1], "warn", "k-NN top-1 on builtin:digits is 70.0%: below raw pixels.")


def test_waiting_and_unreadable_images(tmp_path: Path) -> None:
    path = pretrain_run(tmp_path / "run", each_step=lambda step: {"speed/wait_share": 0.5} if step % 10 == 0 else {})
    (path / "bad_files.json").write_text('{"count": 2, "files": {"a.png": "broken", "b.png": "broken"}}')
    _, found = told(path)
    assert said(found, "", "50% of its time waiting for images")
    assert said(found, "warn", "2 images could not be read and were replaced by others")
