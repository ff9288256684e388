import base64
import io

import numpy as np
import pytest
from PIL import Image

from ibot_cli.visualize.pages import inline_image


def opened(uri: str) -> Image.Image:
    head, _, content = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/webp;base64")
    return Image.open(io.BytesIO(base64.b64decode(content)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_small_images_lose_nothing(mode: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8))
    image = noise.convert("L").convert("I").convert("I;16") if mode == "I;16" else noise.convert(mode)
    shown = opened(inline_image(image))
    assert shown.size == (24, 16)
    if mode not in ("I;16", "CMYK"):
        assert np.array_equal(np.asarray(shown.convert("RGB")), np.asarray(image.convert("RGB")))


def test_large_images_become_small_files() -> None:
    ramp = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (400, 2))).convert("RGB")
    uri = inline_image(ramp, longest=256)
    assert opened(uri).size == (256, 200) and uri.startswith("data:image/webp")
    assert len(uri) < 5_000
    assert opened(inline_image(ramp)).size == ramp.size
    assert opened(inline_image(Image.new("RGB", (1000, 1)), longest=10)).size == (10, 1)


def test_metadata_stay_behind() -> None:
    image = Image.new("RGB", (300, 300))
    exif = Image.Exif()
    exif[270] = "taken at home"
    image.info["exif"] = exif.tobytes()
    assert b"taken at home" not in base64.b64decode(inline_image(image).partition(",")[2])
    assert "exif" in image.info, "the caller's image is left alone"


def test_an_image_needs_an_extent() -> None:
    with pytest.raises(ValueError, match="0 pixels"):
        inline_image(Image.new("RGB", (5, 5)), longest=0)
