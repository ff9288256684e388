"""Other files than TIFF in any number of channels and 16 bits, resizing, and what people are shown."""

import io

import numpy as np
import pytest
from PIL import Image

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes
from ibot_cli.data.formats.bands import displayable, resized_levels, to_channels
from ibot_cli.data.transform import eval_transform


def noise(bands, dtype=np.uint8, size=(24, 30)):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, bands), dtype=dtype, endpoint=True)


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def levels(content, channels, bits=8):
    return open_bytes(content, "x", PixelFormat(channels=channels, bits=bits)).levels()


@pytest.mark.parametrize(("mode", "bands"), [("LA", 2), ("RGBA", 4), ("CMYK", 4)])
def test_files_with_exactly_so_many_channels(mode, bands):
    array = noise(bands)
    content = saved(Image.fromarray(array, mode), "TIFF" if mode == "CMYK" else "PNG")
    np.testing.assert_array_equal(levels(content, bands), array)


def test_other_numbers_are_refused():
    content = saved(Image.fromarray(noise(3)))
    for wanted in (2, 4, 5):
        with pytest.raises(UnreadableImage) as caught:
            levels(content, wanted)
        assert caught.value.reason == f"it has 3 channels, the network sees {wanted} (data.channels)"
    with pytest.raises(ValueError, match="it has 4 channels, the network sees 3"):
        to_channels(noise(4), 3)


def test_grey_png_of_16_bits():
    array = noise(1, np.uint16)
    content = saved(Image.fromarray(array[..., 0]))
    np.testing.assert_array_equal(levels(content, 1, 16), array)
    np.testing.assert_array_equal(levels(content, 3, 16), np.repeat(array, 3, axis=2))
    np.testing.assert_array_equal(levels(content, 1), np.rint(array / 257))


def test_colour_png_of_16_bits_keeps_what_pillow_drops():
    imagecodecs = pytest.importorskip("imagecodecs")
    array = noise(3, np.uint16)
    content = imagecodecs.png_encode(array)
    np.testing.assert_array_equal(levels(content, 3, 16), array)
    assert levels(content, 3).dtype == np.uint8


def test_plain_files_become_16_bits_without_a_change():
    array = noise(3)
    np.testing.assert_array_equal(levels(saved(Image.fromarray(array)), 3, 16), array.astype(np.uint16) * 257)
    np.testing.assert_array_equal(levels(saved(Image.fromarray(array).quantize(8)), 3, 16) % 257, 0)


def test_exif_orientation_of_16_bits():
    array, exif = noise(1, np.uint16), Image.Exif()
    exif[0x0112] = 6
    content = saved(Image.fromarray(array[..., 0]), "PNG", exif=exif)
    np.testing.assert_array_equal(levels(content, 1, 16), np.rot90(array, -1))


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (5, np.uint8), (2, np.uint16)])
def test_resizing_is_that_of_pillow_band_by_band(channels, dtype):
    array = noise(channels, dtype)
    found = resized_levels(array, 17, 11)
    assert found.dtype == dtype and found.shape == (11, 17, channels)
    for band in range(channels):
        one = Image.fromarray(array[..., band].astype(np.float32))
        expected = np.asarray(one.resize((17, 11), Image.Resampling.BICUBIC))
        clipped = expected.clip(0, np.iinfo(dtype).max)
        np.testing.assert_allclose(found[..., band].astype(float), clipped, atol=1.5 if dtype == np.uint8 else 3)
    assert resized_levels(array, 30, 24) is array


@pytest.mark.parametrize("channels", [1, 3])
def test_levels_and_images_are_prepared_alike(channels):
    array = noise(channels, size=(40, 52))
    prepare = eval_transform(16, 0.875, channels, (0.4,) * channels, (0.2,) * channels)
    image = Image.fromarray(array if channels == 3 else array[..., 0])
    assert prepare(array).equal(prepare(image))


@pytest.mark.parametrize(("bits", "channels"), [(8, 5), (16, 1), (16, 5)])
def test_what_the_network_is_given_of_an_image_that_needs_no_resizing(bits, channels):
    dtype = np.uint8 if bits == 8 else np.uint16
    array = noise(channels, dtype, size=(18, 18))
    mean, std = np.linspace(0.2, 0.6, channels), np.linspace(0.1, 0.3, channels)
    found = eval_transform(16, 16 / 18, channels, tuple(mean), tuple(std))(array)
    expected = (array[1:17, 1:17] / (2**bits - 1) - mean) / std
    np.testing.assert_allclose(found.numpy(), np.moveaxis(expected, -1, 0), atol=1e-5)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_people_are_shown_the_first_channels(channels, mode):
    array = noise(channels)
    shown = displayable(array)
    assert shown.mode == mode
    np.testing.assert_array_equal(np.asarray(shown), array[..., :3] if channels >= 3 else array[..., 0])


def test_deep_images_are_stretched_for_people():
    dark = (np.linspace(1000, 3000, 24 * 30 * 5).reshape(24, 30, 5)).astype(np.uint16)
    shown = np.asarray(displayable(dark))
    assert shown.min() == 0 and shown.max() == 255 and abs(shown.mean() - 127.5) < 2
    assert np.asarray(displayable(np.full((4, 4, 1), 900, np.uint16))).max() == 0
