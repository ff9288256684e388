import pytest
from PIL import Image

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.probe import probe, time_loading
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import ViewRecipe
from ibot_cli.errors import DataError
from tests.data_pipeline.images import write_image, write_images


def test_summary_of_mixed_files(tmp_path):
    write_images(tmp_path, 3)
    write_image(tmp_path / "wide.png", size=(90, 10))
    Image.new("L", (5, 5)).save(tmp_path / "grey.png")
    Image.new("P", (6, 6)).save(tmp_path / "palette.png")
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    summary = probe(open_source(str(tmp_path), channels=3))
    assert (summary.num_images, summary.num_classes, summary.num_checked) == (7, None, 7)
    assert (summary.smallest, summary.largest) == ((5, 5), (90, 10))
    assert summary.modes == {"RGB": 4, "L": 1, "P": 1}
    assert list(summary.unreadable) == [str(tmp_path / "bad.jpg")]
    text = "\n".join(summary.sentences())
    assert "7 images, no labels" in text and "1 of 7 checked files (14.3%) cannot be read" in text
    assert "Decoded all: 4 RGB, 1 L, 1 P; sizes 5 x 5 to 90 x 10 pixels." in text


def test_a_large_source_is_sampled_with_a_seed():
    digits = open_source("builtin:digits", channels=1)
    summary = probe(digits, limit=100)
    assert (summary.num_images, summary.num_classes, summary.num_checked) == (1437, 10, 100)
    assert "a sample of 100" in "\n".join(summary.sentences()) and summary == probe(digits, limit=100)


def test_no_readable_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"None of the 1 files .* can be read") as caught:
        probe(open_source(str(tmp_path), channels=3))
    assert "a.jpg: the file is empty" in caught.value.message and caught.value.hint


def test_time_of_a_sample():
    recipe = ViewRecipe.from_config(ViewsConfig(global_size=16, local_size=8), DataConfig(channels=1))
    assert 0 < time_loading(open_source("builtin:digits", channels=1), recipe, None, samples=3) < 1
