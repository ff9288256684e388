"""The comparison on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ibot_cli.errors import DataError, ExportError, WeightsError
from ibot_cli.weights.export.compare import IMAGES, compare, comparison_images, difference_text
from tests.weights.export.networks import GREY, VIT, subject_of


@pytest.mark.parametrize("shape", [VIT, GREY], ids=["photos", "digits"])
def test_embedded_images_by_channels(shape: object) -> None:
    subject = subject_of(shape)  # type: ignore[arg-type]
    images = comparison_images(subject)
    assert images(subject.image_size).shape == (IMAGES, subject.channels, subject.image_size, subject.image_size)
    assert images(48).shape[-1] == 48 and images(48).std() > 0.3


def test_images_of_a_folder_are_prepared_as_evaluations_do_it(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(np.full((40, 40, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "5.png").write_text("no image")
    found = comparison_images(subject_of(VIT), str(tmp_path))(32)
    mean, std = torch.tensor([0.4, 0.45, 0.5]), torch.tensor([0.2, 0.22, 0.25])
    expected = (torch.tensor([0.0, 50.0, 100.0, 150.0])[:, None] / 255 - mean) / std
    torch.testing.assert_close(found.mean(dim=(2, 3)), expected, atol=1e-5, rtol=0)


def test_too_few_images_are_told(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=r"has 3 readable images; the comparison needs 4\.") as told:
        comparison_images(subject_of(VIT), str(tmp_path))
    assert "--data" in str(told.value.hint)


def test_largest_difference_over_largest_value() -> None:
    expected = {"cls": torch.tensor([[1.0, -4.0]]), "patches": torch.zeros(1, 2, 2)}
    found = {"cls": torch.tensor([[1.5, -4.0]])}
    assert compare(lambda _: expected, lambda _: found, torch.zeros(1), {"patches"}) == {"cls": 0.125}
    assert [difference_text(value) for value in (0.0, 0.125)] == ["0", "1.2e-01"]


def test_outputs_that_cannot_be_compared_are_told() -> None:
    expected = {"cls": torch.zeros(1, 2)}
    with pytest.raises(ExportError, match=r"gives `cls` as \[1, 3\], not \[1, 2\]\."):
        compare(lambda _: expected, lambda _: {"cls": torch.zeros(1, 3)}, torch.zeros(1))
    for found, told in (({}, "no output"), ({"cls": torch.zeros(1, 2), "more": torch.zeros(1)}, "cls, more")):
        with pytest.raises(ExportError, match=rf"gives {told}, not cls\."):
            compare(lambda _: expected, lambda _, found=found: found, torch.zeros(1))  # type: ignore[misc]
    with pytest.raises(WeightsError, match=r"gives NaN or infinity on real images, in cls\."):
        compare(lambda _: {"cls": torch.full((1, 2), torch.nan)}, lambda _: expected, torch.zeros(1))


def test_every_output_is_asked_for_but_those_without_values() -> None:
    expected = {"cls": torch.ones(1, 2), "patches": torch.zeros(1, 0, 2), "logits": torch.ones(1, 3)}
    whole = compare(lambda _: expected, lambda _: expected, torch.zeros(1))
    assert whole == {"cls": 0.0, "logits": 0.0}
    with pytest.raises(ExportError, match=r"gives cls, not cls, patches, logits\."):
        compare(lambda _: expected, lambda _: {"cls": torch.ones(1, 2)}, torch.zeros(1))
