"""An export in fewer bits beside the network it came from, on data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ibot_cli.errors import DataError
from ibot_cli.evaluate.exported import agreement_on
from ibot_cli.evaluate.knn.protocol import evaluate_knn
from ibot_cli.weights.export.agreement import Agreement
from ibot_cli.weights.export.subject import Subject, export_subject
from tests.evaluate.images import write_folder
from tests.weights.export.networks import CLASSES, GREY, loaded_backbone, loaded_classifier


@pytest.fixture
def data(tmp_path: Path) -> str:
    """Two of the classifier's classes and one that it does not know."""
    root = tmp_path / "data"
    write_folder(root / "train", {"dark": 9, "light": 9, "strange": 9}, seed=1)
    write_folder(root / "val", {"dark": 5, "light": 4, "strange": 3}, seed=2)
    return str(root)


def same(subject: Subject, images: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = subject.network(images)
    return found


def test_backbone_is_judged_as_knn_eval_does_it(data: str) -> None:
    loaded = loaded_backbone(GREY)
    subject = export_subject(loaded)
    found = agreement_on(subject, lambda images: same(subject, images), data)
    expected = evaluate_knn(loaded, data, ks=[20], baselines=False, cache=False).result
    assert found.before == found.after == expected.top1 and found.same == 1.0
    assert (found.num_train, found.num_images, found.k) == (27, 12, 20)
    assert found.cosine_least == pytest.approx(1.0) and found.notes == ()


def test_export_that_lost_its_features(data: str) -> None:
    subject = export_subject(loaded_backbone(GREY))

    def broken(images: Tensor) -> dict[str, Tensor]:
        cls = torch.ones(len(images), GREY.width or 0)
        return {"cls": torch.cat([cls[:, :12], -cls[:, 12:]], dim=1)}

    found = agreement_on(subject, broken, data)
    assert found.after == pytest.approx(5 / 12)  # with equal features everything is of the first class
    assert found.same is not None and found.same < 1
    assert found.cosine_mean < 0.9


def test_classifier_is_judged_on_the_classes_that_it_knows(data: str) -> None:
    subject = export_subject(loaded_classifier(GREY, "cls"))

    def turned(images: Tensor) -> dict[str, Tensor]:
        outputs = same(subject, images)
        return outputs | {"logits": outputs["logits"].roll(1, dims=1)}

    answers = _answers(subject, data)
    truth = ["dark"] * 5 + ["light"] * 4
    found = agreement_on(subject, turned, data)
    assert found.before == pytest.approx(sum(a == t for a, t in zip(answers, truth, strict=True)) / 9)
    rolled = [CLASSES[(CLASSES.index(answer) + 1) % 3] for answer in answers]
    assert found.after == pytest.approx(sum(a == t for a, t in zip(rolled, truth, strict=True)) / 9)
    assert (found.same, found.num_images, found.method, found.num_train) == (0.0, 12, "classifier", None)
    assert found.notes == ("Accuracy is over the 9 images of classes that the classifier knows.",)
    assert found.cosine_least == pytest.approx(1.0)


def _answers(subject: Subject, data: str) -> list[str]:
    """What the classifier itself says about the validation images of the classes it knows."""
    from ibot_cli.data.sources import open_source
    from ibot_cli.data.transform import eval_transform

    transform = eval_transform(*subject.loaded.preparation)
    answers = []
    for name in ("dark", "light"):
        source = open_source(f"{data}/val/{name}", channels=1)
        images = torch.stack([transform(source.read(place)) for place in range(len(source))])
        assert subject.classifier is not None
        with torch.no_grad():
            answers += [CLASSES[place] for place in subject.classifier(images).argmax(1)]
    return answers


def test_classifier_on_other_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "other", {"cat": 4, "dog": 4})
    subject = export_subject(loaded_classifier(GREY, "mean"))
    found = agreement_on(subject, lambda images: same(subject, images), str(tmp_path / "other"))
    assert (found.before, found.after, found.same) == (None, None, 1.0)
    assert "none of the classifier's classes" in found.notes[0]


@pytest.mark.parametrize("pooling", [None, "cls"])
def test_images_without_labels(pooling: str | None, tmp_path: Path) -> None:
    write_folder(tmp_path, {"flat": 6})
    loaded = loaded_backbone(GREY) if pooling is None else loaded_classifier(GREY, "cls")
    subject = export_subject(loaded)
    (tmp_path / "flat" / "0.png").write_bytes(b"no image")
    found = agreement_on(subject, lambda images: same(subject, images), str(tmp_path / "flat"))
    assert (found.num_images, found.before, found.k) == (5, None, None)
    assert found.same == (None if pooling is None else 1.0)
    assert "0.png" in found.notes[0]


def test_data_that_do_not_exist(tmp_path: Path) -> None:
    subject = export_subject(loaded_backbone(GREY))
    with pytest.raises(DataError, match="nowhere"):
        agreement_on(subject, lambda images: same(subject, images), str(tmp_path / "nowhere"))


def test_sentences() -> None:
    knn = Agreement(
        data="builtin:digits",
        num_images=360,
        cosine_mean=0.9999,
        cosine_least=0.98,
        method="k-NN",
        num_train=1437,
        k=20,
        before=0.96,
        after=0.95,
        same=0.985,
        notes=("One image is damaged.",),
    )
    assert knn.sentences() == [
        "On 360 images of builtin:digits, 1,437 training images, k = 20: k-NN accuracy 96.00 % before, 95.00 % after "
        "(-1.00 points); the same class for 98.50 %; cosine of the features 0.999900 on average, 0.980000 at least.",
        "One image is damaged.",
    ]
    bare = Agreement(data="the comparison", num_images=8, cosine_mean=1.0, cosine_least=1.0)
    assert bare.sentences() == [
        "On 8 images of the comparison: cosine of the features 1.000000 on average, 1.000000 at least."
    ]
