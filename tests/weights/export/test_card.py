"""The model card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ibot_cli.config.schema import Config
from ibot_cli.weights.export.agreement import Agreement
from ibot_cli.weights.export.card import Measured, RecordedFigure, model_card
from ibot_cli.weights.export.form import ExportOptions
from ibot_cli.weights.export.forms import FORMS
from ibot_cli.weights.export.history import class_names, data_name
from ibot_cli.weights.export.subject import Subject, export_subject
from tests.weights.export.networks import VIT, loaded_backbone, loaded_classifier, subject_of

MEASURED = Measured(
    num_images=8, differences={"cls": 0.0, "patches": 3e-7}, tolerance=1e-5, other_size=48,
    elsewhere={"cls": 0.01, "patches": 0.02}, agreement=None,
)  # fmt: skip


def card(subject: Subject, form: str = "timm", measured: Measured = MEASURED, **options: Any) -> str:
    figures = options.pop("figures", ())
    return model_card(subject, FORMS[form], ExportOptions(**options), measured, "import it", figures)


def front(text: str) -> Any:
    return yaml.safe_load(text.split("---\n")[1])


def of_run(run: Path, told: dict[str, Any], config: Config | None = None) -> Subject:
    run.mkdir()
    (run / "data.json").write_text(json.dumps(told))
    loaded = loaded_backbone(VIT)
    return export_subject(replace(loaded, origin=replace(loaded.origin, run=run, config=config, epoch=7, step=90)))


def test_what_hubs_read() -> None:
    assert front(card(subject_of(VIT))) == {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["vision-transformer", "self-supervised-learning", "ibot"],
        "license": "unknown",
    }
    classifier, scores = subject_of(VIT, "cls"), replace(MEASURED, differences={"cls": 0.0, "logits": 0.0})
    assert front(card(classifier, form="onnx", measured=scores))["pipeline_tag"] == "image-classification"
    text = card(classifier, form="official", measured=replace(MEASURED, notes=("Without the classifier.",)))
    assert front(text)["pipeline_tag"] == "image-feature-extraction" and "2.0e-02. Without the classifier." in text
    assert "# memory: a vision transformer" in text and "| Classes |" not in text


@pytest.mark.parametrize(
    ("licence", "stated", "sentence"),
    [
        (None, {"license": "unknown"}, "Not stated. Whoever passes these weights on has to settle it."),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}, "CC-BY-4.0. The licences of the training images"),
        ("Ours: ask", {"license": "other", "license_name": "Ours: ask"}, "Ours: ask. The licences of the training"),
    ],
)
def test_a_licence_is_never_invented(licence: str | None, stated: dict[str, str], sentence: str) -> None:
    text = card(subject_of(VIT), licence=licence)
    assert {key: value for key, value in front(text).items() if "license" in key} == stated
    assert sentence in text and "any weights that the training started from count too" in text


def test_the_network_its_images_and_its_check() -> None:
    text = card(subject_of(VIT))
    for part in (
        "# memory: a vision transformer pre-trained with iBOT",
        "| Network | ViT: 2 blocks of width 32, 4 heads, patches of 8 x 8 pixels |",
        "| Takes | any number of RGB images of 32 x 32 pixels |",
        "| Gives | `cls` [B, 32], `patches` [B, 16, 32] |",
        "```python\nimport it\n```",
        "2. Resize the shorter side to 35 pixels, bicubic; cut out the central 32 x 32.",
        "subtract (0.4, 0.45, 0.5), divide by (0.2, 0.22, 0.25).",
        "Read back with timm and compared with the network it came from, on 8 real images: the largest difference is "
        "3.0e-07 of the largest value (tolerance 1e-05). At 48 x 48 pixels, where positions are interpolated, it is "
        "2.0e-02.",
        "The file does not say which images it was trained on.",
        "No evaluation of these weights is recorded.",
    ):
        assert part in text
    parameters = sum(value.numel() for value in subject_of(VIT).loaded.backbone.parameters())
    assert f"{parameters:,} in the backbone" in text and "Recipe" not in text


def test_another_image_size_is_told() -> None:
    text = card(export_subject(loaded_backbone(VIT), 48))
    assert "| Trained at | 32 x 32 pixels; positions were resized to 48 x 48 |" in text


def test_the_data_and_the_recipe_of_a_run(tmp_path: Path) -> None:
    config = replace(Config(), init=replace(Config().init, weights="/home/someone/older"))
    told = {"data": "/home/someone/photos/", "num_images": 1485, "classes": ["a", "b"]}
    text = card(of_run(tmp_path / "myrun", told, config))
    assert "# myrun: a vision transformer" in text and "iBOT, teacher, 7 epochs (90 steps)" in text
    assert (
        "`photos`: 1,485 images in 2 classes. Labels were not used. The training started from the weights `older`."
    ) in text
    assert "- Views: 2 global crops of 224 pixels and 10 local crops of 96." in text
    assert "- Length: 800 epochs, batches of 1024, seed 0." in text
    assert "someone" not in text and str(tmp_path) not in text


def test_a_damaged_record_of_the_data_is_no_reason_to_stop(tmp_path: Path) -> None:
    subject = of_run(tmp_path / "run", {})
    (tmp_path / "run" / "data.json").write_text("{")
    assert "The file does not say which images" in card(subject)


def test_a_classifier_names_its_classes_and_its_start(tmp_path: Path) -> None:
    run = tmp_path / "flowers"
    run.mkdir()
    told = {"data": "builtin:photos", "num_images": 9, "origin": {"weights": "/home/someone/demo"}}
    (run / "data.json").write_text(json.dumps(told))
    loaded = loaded_classifier(VIT, "mean")
    arguments = {"train": {"epochs": 3, "batch_size": 4}, "optim": {"lr": 0.002, "layer_decay": 0.75}}
    loaded = replace(loaded, origin=replace(loaded.origin, run=run, arguments=arguments))
    text = card(export_subject(loaded), measured=replace(MEASURED, differences={"cls": 0.0, "logits": 0.0}))
    assert "# flowers: an image classifier" in text and "| Classes | 3: dark, light, odd |" in text
    assert "`builtin:photos`: 9 images. The training started from the weights `demo`." in text
    assert "learning rate 0.002, layer decay 0.75" in text and "Pooling: mean" in text


def test_figures_with_their_baselines() -> None:
    figures = (
        RecordedFigure(measure="k-NN top-1", data="photos", value=0.9583, percent=True, random=0.429, pixels=None),
        RecordedFigure(measure="k-means NMI", data="photos", value=0.805, percent=False, random=None, pixels=0.701),
    )
    text = card(subject_of(VIT), figures=figures)
    assert "| k-NN top-1 | `photos` | 95.8% | 42.9% |  |" in text
    assert "| k-means NMI | `photos` | 0.805 |  | 0.701 |" in text


def test_fewer_bits_say_what_they_cost_without_a_path() -> None:
    agreement = Agreement(data="/home/someone/photos", num_images=50, cosine_mean=0.999, cosine_least=0.99)
    text = card(subject_of(VIT), form="onnx", precision="int8", measured=replace(MEASURED, agreement=agreement))
    assert "compared in int8 with" in text and "On 50 images of photos" in text and "someone" not in text


def test_random_tensors_are_told() -> None:
    loaded = replace(loaded_backbone(VIT), missing=("backbone.norm.weight",))
    assert "| Incomplete | 1 tensor of the network not in the original file; fresh random values |" in card(
        export_subject(loaded)
    )


@pytest.mark.parametrize(
    ("given", "name"),
    [("builtin:digits", "builtin:digits"), ("/home/me/x/", "x"), ("x.txt", "x.txt"), ("/", "images"),
     ("timm:vit_tiny", "timm:vit_tiny"), ("hf:some/birds", "hf:some/birds"), ("hf:/home/me/birds", "hf:birds"),
     ("/home/me/{a/train,b/train}-{00..12}.tar", "*-{00..12}.tar")],
)  # fmt: skip
def test_names_of_data(given: str, name: str) -> None:
    assert data_name(given) == name


def test_many_classes_are_cut() -> None:
    assert class_names(tuple(map(str, range(30)))).endswith("18, 19, ...")


def test_what_loading_the_weights_of_others_has_shown_is_told(tmp_path: Path) -> None:
    notes = ["The mean and deviation of its images are a guess."]
    loaded = replace(loaded_backbone(VIT), notes=notes)
    assert f"## From the original file\n\n- {notes[0]}\n\n##" in card(export_subject(loaded))
    of_ours = replace(loaded, origin=replace(loaded.origin, run=tmp_path))
    assert "original file" not in card(export_subject(of_ours)) and "original file" not in card(subject_of(VIT))


def test_weights_from_before_the_training_claim_none(tmp_path: Path) -> None:
    subject = of_run(tmp_path / "run", {"data": "flowers", "num_images": 12, "classes": ["a", "b"]}, Config())
    loaded = subject.loaded
    text = card(export_subject(replace(loaded, origin=replace(loaded.origin, epoch=0, step=0))))
    assert "# run: a vision transformer from before its training\n" in text and "0 epochs (0 steps)" in text
    assert "## Training data\n\nNone yet.\n" in text and "flowers" not in text and "## Recipe" not in text
