import io
import struct
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes, read_content

RAMP = np.linspace(0, 255, 48 * 40).reshape(40, 48).astype(np.uint8)
GREY = Image.fromarray(RAMP)
COLOUR = Image.fromarray(np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1))


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content, channels=3):
    picture = open_bytes(content, "x", PixelFormat(channels=channels))
    image, levels = picture.image(), picture.levels()
    assert image.mode == {1: "L", 3: "RGB"}[channels] and image.size == picture.size
    values = np.asarray(image)
    assert levels.flags.c_contiguous
    np.testing.assert_array_equal(levels, values.reshape(*values.shape[:2], channels))
    return values


def decoded_file(path, channels=3):
    return open_bytes(read_content(path), str(path), PixelFormat(channels=channels)).levels()


def with_alpha(image, mode):
    image = image.convert(mode)
    image.putalpha(Image.fromarray(RAMP[:, ::-1].copy()))
    return image


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "GIF", "WEBP", "JPEG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_formats(kind, channels):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = GREY if kind == "GIF" else COLOUR
    expected = np.asarray(image.convert({1: "L", 3: "RGB"}[channels]))
    tolerance = {"JPEG": 40}.get(kind, 0)
    np.testing.assert_allclose(
        decoded(encoded(image, kind, **options), channels).astype(int), expected.astype(int), atol=tolerance
    )


@pytest.mark.parametrize("image", [with_alpha(COLOUR, "RGBA"), with_alpha(GREY, "LA")])
def test_alpha_is_dropped_over_the_stored_colours(image):
    base = image.convert("RGB") if image.mode == "RGBA" else image.getchannel("L").convert("RGB")
    np.testing.assert_array_equal(decoded(encoded(image)), np.asarray(base))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 256, 2))])
def test_palettes_with_and_without_transparency(channels, transparency):
    image = COLOUR.quantize(100)
    content = encoded(image, transparency=transparency) if transparency is not None else encoded(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = decoded(content, channels)
    expected = image.convert("RGB").convert({1: "L", 3: "RGB"}[channels])
    np.testing.assert_allclose(values.astype(int), np.asarray(expected).astype(int), atol=1)


def test_cmyk():
    np.testing.assert_allclose(
        decoded(encoded(COLOUR.convert("CMYK"), "TIFF")).astype(int), np.asarray(COLOUR).astype(int), atol=1
    )
    assert decoded(encoded(COLOUR.convert("CMYK"), "JPEG", quality=95), 1).shape == (40, 48)


def test_one_bit():
    image = GREY.point(lambda level: 255 * (level > 99)).convert("1")
    np.testing.assert_array_equal(decoded(encoded(image), 1), np.asarray(image) * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_by_their_range(kind, channels):
    values = RAMP.astype(np.uint16) * 257
    got = decoded(encoded(Image.fromarray(values), kind), channels)
    np.testing.assert_array_equal(got if channels == 1 else got[..., 0], RAMP)


def test_big_endian_sixteen_bit_tiff():
    values = (RAMP.astype(np.uint16) * 257).astype(">u2")
    content = encoded(Image.frombytes("I;16B", (48, 40), values.tobytes()), "TIFF")
    np.testing.assert_array_equal(decoded(content, 1), RAMP)


def test_dark_sixteen_bit_images_stay_dark():
    assert decoded(encoded(Image.fromarray(RAMP.astype(np.uint16))), 1).max() == 1


def test_sixteen_bit_pgm():
    body = (RAMP.astype(np.uint16) * 16).astype(">u2").tobytes()
    np.testing.assert_allclose(decoded(b"P5 48 40 4095 " + body, 1).astype(int), RAMP.astype(int) * 4080 / 4095, atol=1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP.astype(np.float32) / 255, RAMP),
        (RAMP.astype(np.float32), RAMP),
        (RAMP.astype(np.float32) * 257, RAMP),
        (RAMP.astype(np.float32) * 1000 - 5000, RAMP),
        (RAMP.astype(np.int32), RAMP),
        (RAMP.astype(np.int32) * 257, RAMP),
        (RAMP.astype(np.int32) * 70000 - 9, RAMP),
        (np.full_like(RAMP, 7, dtype=np.int32) * -1, np.zeros_like(RAMP)),
    ],
)
def test_thirty_two_bits_are_scaled_never_clipped(values, expected):
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(values), "TIFF"), 1), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(COLOUR, kind, exif=exif)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    got = decoded(content)
    np.testing.assert_array_equal(got, expected)
    assert got.shape[:2] == ((48, 40) if orientation > 4 else (40, 48))


def test_damaged_exif_is_ignored():
    content = encoded(COLOUR, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xee" * 20)
    assert decoded(content).shape == (40, 48, 3)


def test_the_first_frame_of_an_animation_counts():
    content = encoded(GREY, "GIF", save_all=True, append_images=[Image.new("L", GREY.size, 9)])
    np.testing.assert_array_equal(decoded(content, 1), RAMP)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM"])
def test_truncated_files_are_unreadable_even_if_someone_made_pillow_tolerant(kind, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(noise, kind)
    with pytest.raises(UnreadableImage):
        decoded(content[: len(content) // 2], 3)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"hello", "not an image"),
        (encoded(GREY)[:60], "damaged"),
    ],
)
def test_reasons(content, reason, tmp_path):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UnreadableImage, match=reason) as caught:
        decoded_file(tmp_path / "a.jpg", 3)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jpg'}: ")


def test_decompression_bombs_are_refused():
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    content = bytearray(encoded(COLOUR))
    content[16:29] = header
    content[29:33] = struct.pack(">I", __import__("zlib").crc32(b"IHDR" + header))
    with pytest.raises(UnreadableImage, match="too large"):
        decoded(bytes(content), 3)


def test_values_that_are_not_finite():
    values = RAMP.astype(np.float32)
    values[0, 0] = np.nan
    with pytest.raises(UnreadableImage, match="not finite"):
        decoded(encoded(Image.fromarray(values), "TIFF"), 1)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(UnreadableImage, match="No such file"):
        decoded_file(tmp_path / "none.png", 3)
    with pytest.raises(UnreadableImage, match="directory"):
        decoded_file(tmp_path, 3)


def test_no_file_stays_open(tmp_path):
    (tmp_path / "a.tiff").write_bytes(encoded(COLOUR, "TIFF"))
    (tmp_path / "b.tiff").write_bytes(encoded(COLOUR, "TIFF")[:300])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        decoded_file(tmp_path / "a.tiff", 3)
        with pytest.raises(UnreadableImage):
            decoded_file(tmp_path / "b.tiff", 3)
