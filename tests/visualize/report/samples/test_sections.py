"""All sections together, of real runs and of runs that lack something."""

import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.core.heads import Head
from ibot_cli.errors import DataError
from ibot_cli.evaluate.knn.protocol import evaluate_knn
from ibot_cli.evaluate.retrieval.gallery import open_gallery
from ibot_cli.visualize.pages import render_page
from ibot_cli.visualize.report.samples import subject
from ibot_cli.visualize.report.samples.options import SampleOptions
from ibot_cli.visualize.report.samples.sections import sample_sections, sections_of
from ibot_cli.visualize.report.samples.subject import Subject
from ibot_cli.visualize.report.section import Section
from ibot_cli.weights.load import load_weights
from tests.train.runs import pretrain
from tests.visualize.networks import loaded_network
from tests.visualize.pages.document import Document, check_page
from tests.weights.finetuned_files import write_run

IDS = ["patterns", "attention", "neighbours"]


def page_of(sections: Sequence[Section]) -> Document:
    page = render_page(
        "report.html",
        title="A run",
        lead="",
        sections=sections,
        styles=list(dict.fromkeys(name for section in sections for name in section.styles)),
        scripts=list(dict.fromkeys(name for section in sections for name in section.scripts)),
    )
    return check_page(page)


def words(sections: Sequence[Section]) -> str:
    return re.sub(r"\s+", " ", page_of(sections).text())


def write_images(folder: Path, parts: dict[str, int], size: tuple[int, int] = (20, 24)) -> Path:
    """Grey images whose brightness tells the class."""
    rng = np.random.default_rng(0)
    for name, count in parts.items():
        (folder / name).mkdir(parents=True)
        bright = 130 if "light" in name else 40
        for number in range(count):
            levels = rng.integers(0, 110, size).astype(np.uint8) + bright
            Image.fromarray(levels.astype(np.uint8)).save(folder / name / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    parts = {"train/dark": 12, "train/light": 12, "val/dark": 4, "val/light": 4}
    return write_images(tmp_path_factory.mktemp("images") / "data", parts)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("runs") / "run"
    pretrain(data, place, "train.epochs=1", "monitor.knn_epochs=0")
    return place


def test_a_run_shows_everything_twice_alike_and_draws_nothing_global(run: Path) -> None:
    states = torch.get_rng_state(), random.getstate()
    stages: list[str] = []
    sections = sample_sections(run, progress=lambda stage, done, total: stages.append(stage))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert [section.id for section in sections] == IDS
    assert [section.values["problem"] for section in sections] == [None, None, None]
    assert {"attention", "patterns"} <= set(stages) and any("neighbours" in stage for stage in stages)
    document = page_of(sections)
    text = re.sub(r"\s+", " ", document.text())
    assert "The 8 test images gave 128 patches" in text
    assert "What the class token attends to in the last block, for 6 of the 8 test images" in text
    assert "Of 8 test images" in text
    again = sample_sections(run)
    assert [section.values for section in again] == [section.values for section in sections]


def test_patterns_say_where_their_members_are_of_another_class(run: Path) -> None:
    section = sample_sections(run)[0]
    sheets = list(section.values["sheets"])  # type: ignore[call-overload]
    sheet = sheets[0]
    pattern = replace(sheet.pattern, purity=0.6, members_purity=0.75)
    same = replace(sheet, pattern=pattern, label="dark", members_label=None)
    text = words([replace(section, values={**section.values, "sheets": [same]})])
    assert "60% in images of class “dark” " in text.replace("\xa0", "") + " " and "of those shown" not in text
    other = replace(same, members_label="light")
    text = words([replace(section, values={**section.values, "sheets": [other]})]).replace("\xa0", "")
    assert "60% in images of class “dark”, but 75% of those shown in images of “light”" in text


def test_another_seed_shows_other_images(run: Path) -> None:
    shown = [
        [row.name for row in sample_sections(run, SampleOptions(seed=seed, attention=2))[1].values["rows"]]  # type: ignore[attr-defined]
        for seed in range(4)
    ]
    assert len({tuple(names) for names in shown}) > 1


def test_a_fine_tuned_run_says_why_it_has_no_patterns(data: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", ("dark", "light"))
    (tmp_path / "run" / "data.json").write_text(json.dumps({"data": str(data)}))
    sections = sample_sections(tmp_path / "run")
    assert [section.values["problem"] is None for section in sections] == [False, True, True]
    text = words(sections)
    assert "There are no patterns to show. This network was fine-tuned" in text
    assert "fine-tuned on the mean of its patches" in text and "the patch in the centre" in text


def test_a_network_fine_tuned_on_its_class_token_shows_that(data: Path, tmp_path: Path) -> None:
    write_run(tmp_path / "run", ("dark", "light"), pooling="cls")
    (tmp_path / "run" / "data.json").write_text(json.dumps({"data": str(data)}))
    assert "What the class token attends to" in words(sample_sections(tmp_path / "run"))


def test_weights_without_a_head(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = subject.load_weights
    monkeypatch.setattr(subject, "load_weights", lambda *args, **options: replace(load(*args, **options), head=None))
    sections = sample_sections(run)
    assert [section.values["problem"] is None for section in sections] == [False, True, True]
    assert "these weights have no head" in words(sections)


def copied(run: Path, place: Path, **changes: object) -> Path:
    shutil.copytree(run, place)
    known = json.loads((place / "data.json").read_text())
    (place / "data.json").write_text(json.dumps({**known, **changes}))
    return place


def test_images_that_are_gone_are_a_sentence_in_every_section(run: Path, tmp_path: Path) -> None:
    moved = copied(run, tmp_path / "run", data=str(tmp_path / "gone"))
    sections = sample_sections(moved)
    assert [section.id for section in sections] == IDS
    text = words(sections)
    assert text.count(f"There is no folder or file {tmp_path / 'gone'}.") == 3
    assert text.count("If the images are elsewhere now, name them with --data.") == 3
    assert not any(section.scripts for section in sections)


def test_data_names_them_anew_and_must_be_right(run: Path, data: Path, tmp_path: Path) -> None:
    moved = copied(run, tmp_path / "run", data="gone")
    assert all(section.values["problem"] is None for section in sample_sections(moved, SampleOptions(data=str(data))))
    with pytest.raises(DataError, match="There is no folder or file nowhere"):
        sample_sections(moved, SampleOptions(data="nowhere"))


@pytest.mark.parametrize("content", [None, "{", "{}", '{"data": 3}', "[]"])
def test_a_run_that_does_not_say_its_data(run: Path, tmp_path: Path, content: str | None) -> None:
    moved = copied(run, tmp_path / "run")
    if content is None:
        (moved / "data.json").unlink()
    else:
        (moved / "data.json").write_text(content)
    assert words(sample_sections(moved)).count("does not say which images the run was trained on. Name them with") == 3


def test_a_run_without_a_checkpoint(run: Path, tmp_path: Path) -> None:
    moved = copied(run, tmp_path / "run")
    shutil.rmtree(moved / "checkpoints")
    assert words(sample_sections(moved)).count("has no checkpoint yet. Continue it with --resume.") == 3


def test_very_few_images_without_labels_and_a_damaged_one(run: Path, tmp_path: Path) -> None:
    few = write_images(tmp_path / "few", {"": 3})
    (few / "broken.png").write_bytes(b"no image")
    sections = sample_sections(run, SampleOptions(data=str(few)))
    assert [section.values["problem"] for section in sections] == [None, None, None]
    text = words(sections)
    assert "The 3 images gave" in text and "for 3 of the 4 images" in text
    assert text.count("broken.png") == 3  # each section tells what it left out
    assert len(sections[2].values["rows"]) == 3  # type: ignore[arg-type]


def test_no_image_can_be_read(run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    for number in range(2):
        (tmp_path / "bad" / f"{number}.png").write_bytes(b"no image")
    text = words(sample_sections(run, SampleOptions(data=str(tmp_path / "bad"))))
    assert text.count("can be read") >= 3


def test_one_image_has_attention_and_no_neighbour(run: Path, tmp_path: Path) -> None:
    one = write_images(tmp_path / "one", {"light": 1})
    sections = sample_sections(run, SampleOptions(data=str(one)))
    assert [section.values["problem"] is None for section in sections] == [True, True, False]
    assert "The neighbours cannot be shown." in words(sections) and "which has no neighbour" in words(sections)


def test_names_of_classes_and_files_are_text(run: Path, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>{{ 7 * 7 }}'\"&"
    place = write_images(tmp_path / "odd", {hostile: 4, "light": 4})
    (place / hostile / "0.png").rename(place / hostile / "<b>&amp;\udcff.png")
    document = page_of(sample_sections(run, SampleOptions(data=str(place))))
    assert not any(image.get("src") == "x" for image in document.all("img"))
    assert not any("onerror" in attributes for _, attributes in document.elements)
    assert hostile in re.sub(r"\s+", " ", document.text())


def test_photographs_stay_within_the_budget(run: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(30):
            coarse = Image.fromarray(rng.integers(0, 255, (12, 16, 3), dtype=np.uint8))
            photo = np.asarray(coarse.resize((400, 300), Image.Resampling.BICUBIC)).astype(int)
            photo = (photo + rng.integers(-12, 12, photo.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(photo).save(tmp_path / "photos" / label / f"{number}.jpg")
    sections = sample_sections(run, SampleOptions(data=str(tmp_path / "photos")))
    document = page_of(sections)
    copies = [str(image["href"]) for image in document.all("image")]
    assert len(copies) == len(set(copies)) <= 60
    most = SampleOptions().queries * (1 + SampleOptions().neighbours)  # where no image is shown twice
    assert sum(map(len, copies)) / len(copies) * most < 3_000_000


def test_a_swin_shows_the_centre_patch_and_folds_its_many_heads(data: Path) -> None:
    loaded = loaded_network(channels=1, arch="swin_tiny", image_size=64, window_size=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = Head(loaded.backbone.dim, 16, None, hidden_size=8, bottleneck_size=4).eval()
    asked = Subject(
        run=Path("swin"),
        data=str(data),
        loaded=replace(loaded, head=head),
        gallery=open_gallery(str(data), channels=1),
        options=SampleOptions(cache=False, attention=1, queries=2, patterns=2),
    )
    sections = sections_of(asked)
    text = words(sections)
    assert [section.values["problem"] for section in sections] == [None, None, None]
    assert "This network (Swin) has no class token" in text and "18 more heads" in text


def test_as_many_are_wrong_as_the_evaluation_says(run: Path, data: Path) -> None:
    (neighbours,) = [section for section in sample_sections(run) if section.id == "neighbours"]
    measured = evaluate_knn(load_weights(str(run)), str(data), ks=(20,), baselines=False, cache=False)
    assert neighbours.values["num_wrong"] == int((~measured.correct).sum())
