"""TIFF files of many bands and 16 bits, against the arrays that were written."""

import io
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes
from ibot_cli.data.formats.tiff import TiffImage, upright
from ibot_cli.data.packing.depth import is_deep

tifffile = pytest.importorskip("tifffile")
HEIGHT, WIDTH = 20, 30


def noise(bands, dtype=np.uint8, high=None):
    top = np.iinfo(dtype).max if high is None else high
    return np.random.default_rng(0).integers(0, top, (HEIGHT, WIDTH, bands), dtype=dtype, endpoint=True)


def written(array, **options):
    """The file of `[H, W, B]` values; `layout` is how the bands lie."""
    layout = options.pop("layout", "interleaved")
    planes = np.moveaxis(array, -1, 0).copy()
    buffer = io.BytesIO()
    if layout == "interleaved":
        tifffile.imwrite(buffer, array, photometric="minisblack", planarconfig="contig", **options)
    elif layout == "planes":
        tifffile.imwrite(buffer, planes, photometric="minisblack", planarconfig="separate", **options)
    elif layout == "pages":
        tifffile.imwrite(buffer, planes, photometric="minisblack", **options)
    else:
        tifffile.imwrite(buffer, planes, metadata={"axes": "CYX"}, **{layout: True}, **options)
    return buffer.getvalue()


def levels(content, channels, bits=8):
    picture = open_bytes(content, "x.tif", PixelFormat(channels=channels, bits=bits))
    found = picture.levels()
    assert found.flags.c_contiguous and (found.shape[1], found.shape[0]) == picture.size
    return found


def reason(content, channels, bits=8):
    with pytest.raises(UnreadableImage) as caught:
        open_bytes(content, "x.tif", PixelFormat(channels=channels, bits=bits)).levels()
    assert caught.value.path == "x.tif"
    return caught.value.reason


@pytest.mark.parametrize("layout", ["interleaved", "planes", "pages"])
@pytest.mark.parametrize("bands", [2, 4, 5, 13])
@pytest.mark.parametrize(("dtype", "bits"), [(np.uint8, 8), (np.uint16, 16)])
def test_every_layout_gives_the_values_that_were_written(layout, bands, dtype, bits):
    array = noise(bands, dtype)
    found = levels(written(array, layout=layout), bands, bits)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("layout", ["imagej", "ome"])
def test_stacks_of_microscopes(layout):
    array = noise(5, np.uint16)
    np.testing.assert_array_equal(levels(written(array, layout=layout), 5, 16), array)


@pytest.mark.parametrize("layout", ["interleaved", "planes", "pages"])
@pytest.mark.parametrize("options", [{"compression": "deflate"}, {"compression": "lzw", "predictor": True}])
def test_compressed_strips_and_tiles(layout, options):
    if options["compression"] == "lzw":
        pytest.importorskip("imagecodecs")
    array = noise(4, np.uint16)
    for more in ({}, {"tile": (16, 16)}, {"bigtiff": True}, {"byteorder": ">"}):
        np.testing.assert_array_equal(levels(written(array, layout=layout, **options, **more), 4, 16), array)


def test_depth_is_halved_or_doubled_by_rule():
    deep, plain = noise(5, np.uint16), noise(5)
    np.testing.assert_array_equal(levels(written(deep), 5), np.rint(deep / 257).astype(np.uint8))
    np.testing.assert_array_equal(levels(written(plain), 5, 16), plain.astype(np.uint16) * 257)


def test_twelve_bits_in_sixteen_are_kept_and_lost():
    deep = noise(5, np.uint16, high=4095)
    assert len(np.unique(levels(written(deep), 5))) <= 17
    np.testing.assert_array_equal(levels(written(deep), 5, 16), deep)


@pytest.mark.parametrize("scale", [1.0, 255.0, 60_000.0])
def test_real_numbers_take_the_first_range_that_holds_them(scale):
    array = (np.linspace(0, 1, HEIGHT * WIDTH * 5).reshape(HEIGHT, WIDTH, 5) * scale).astype(np.float32)
    top = 65535.0 if scale > 255 else scale
    np.testing.assert_allclose(levels(written(array), 5).astype(int), array / top * 255, atol=0.51)


@pytest.mark.parametrize(("found", "wanted"), [(4, 5), (5, 4), (5, 2), (2, 4), (1, 5), (6, 3)])
@pytest.mark.parametrize("bits", [8, 16])
def test_no_band_is_dropped_or_invented(found, wanted, bits):
    content = written(noise(found, np.uint16 if bits == 16 else np.uint8), layout="planes" if found > 1 else "pages")
    told = reason(content, wanted, bits)
    number = f"{found} channel{'' if found == 1 else 's'}"
    assert told == f"it has {number}, the network sees {wanted} (data.channels)"


def test_numbers_that_pillow_does_not_read_are_named():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((8, 8)))
    assert reason(buffer.getvalue(), 3) == "Pillow does not read its numbers, float64 x 1; data.bits = 16 does"
    assert not levels(buffer.getvalue(), 3, 16).any()


def test_complex_numbers_are_refused():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ones((8, 8, 2), np.complex64), photometric="minisblack", planarconfig="contig")
    assert reason(buffer.getvalue(), 2).startswith("its numbers are complex; store magnitudes")


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_planes_of_single_bits(photometric):
    array, buffer = noise(2) > 127, io.BytesIO()
    tifffile.imwrite(buffer, np.moveaxis(array, 2, 0), photometric=photometric)
    shown = array if photometric == "minisblack" else ~array
    np.testing.assert_array_equal(levels(buffer.getvalue(), 2), shown * 255)
    assert reason(buffer.getvalue(), 5) == "it has 2 channels, the network sees 5 (data.channels)"


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_inks_become_colours_as_with_8_bits(channels, mode):
    image, buffer = Image.fromarray(noise(4), "CMYK"), io.BytesIO()
    image.save(buffer, "TIFF")
    expected = np.asarray(image.convert("RGB").convert(mode)).reshape(image.height, image.width, -1)
    np.testing.assert_allclose(levels(buffer.getvalue(), channels, 16) / 257, expected, atol=0.51)
    np.testing.assert_array_equal(levels(buffer.getvalue(), 4), np.asarray(image))


def test_a_network_of_grey_or_colour_sees_files_of_16_bits():
    grey, colour = noise(1, np.uint16), noise(3, np.uint16)
    np.testing.assert_array_equal(levels(written(grey, layout="pages"), 3, 16), np.repeat(grey, 3, axis=2))
    found = levels(written(colour), 1, 16)[..., 0]
    np.testing.assert_allclose(found, colour @ np.array([0.299, 0.587, 0.114]), atol=0.51)


def test_transparency_counts_only_where_four_channels_are_asked_for():
    array, buffer = noise(4, np.uint16), io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(levels(buffer.getvalue(), 4, 16), array)
    np.testing.assert_array_equal(levels(buffer.getvalue(), 3, 16), array[..., :3])
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb", extrasamples=["unspecified"])  # such as near infrared
    assert "it has 4 channels, the network sees 3" in reason(buffer.getvalue(), 3, 16)


def test_plain_tiff_files_stay_with_pillow():
    buffer = io.BytesIO()
    Image.fromarray(noise(3)).quantize(16).save(buffer, "TIFF")
    content = buffer.getvalue()
    expected = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    np.testing.assert_array_equal(levels(content, 3), expected)
    np.testing.assert_array_equal(levels(content, 3, 16), expected.astype(np.uint16) * 257)
    assert reason(content, 4) == "it has 1 channel, the network sees 4 (data.channels)" or "palette" in reason(
        content, 4
    )


def test_stacks_along_two_axes_are_refused():
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((2, 3, 8, 8), np.uint16), imagej=True, metadata={"axes": "ZCYX"})
    assert (
        reason(buffer.getvalue(), 3, 16) == "it is a stack of 2 depth x 3 channels, not one image of so many channels"
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied(orientation):
    content = bytearray(written(noise(5), extratags=[(274, 3, 1, orientation, True)]))
    tag = content.find(struct.pack("<HH", 274, 3))
    content[tag + 8 : tag + 10] = struct.pack("<H", orientation)
    image = open_bytes(bytes(content), "x.tif", PixelFormat(channels=5))
    turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_270"}
    turns |= {7: "TRANSVERSE", 8: "ROTATE_90"}
    for band in range(5):
        expected = Image.fromarray(noise(5)[..., band])
        if orientation > 1:
            expected = expected.transpose(Image.Transpose[turns[orientation]])
        np.testing.assert_array_equal(image.levels()[..., band], np.asarray(expected))
        assert image.size == expected.size
    assert upright(noise(5), 1) is not None


@pytest.mark.parametrize("layout", ["interleaved", "planes", "pages", "imagej", "ome"])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_a_file_that_is_cut_off_is_never_half_an_image(layout, compression):
    if layout == "imagej" and compression:
        pytest.skip("ImageJ does not compress")
    array = noise(5, np.uint16)
    content = written(array, layout=layout, **({"compression": compression} if compression else {}))
    for cut in range(0, len(content), len(content) // 23):
        try:
            found = levels(content[:cut], 5, 16)
        except UnreadableImage as error:
            assert error.reason
        else:
            np.testing.assert_array_equal(found, array)  # only what follows the pixels was lost


def test_damage_is_told_in_words():
    content = written(noise(5, np.uint16), compression="deflate")
    page = TiffImage(content)._page
    start = page.dataoffsets[0]
    broken = content[: start + 20] + bytes(40) + content[start + 60 :]
    assert reason(broken, 5, 16).startswith("damaged (")
    assert reason(b"II*\0" + bytes(20), 5).startswith("damaged (")
    assert reason(b"", 5) == "the file is empty"
    assert reason(b"<!doctype html>", 5) == "it is a web page (HTML), not an image"


@pytest.mark.parametrize("bands", [2, 5])
@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}])
def test_pillow_shows_no_single_plane_of_several(bands, options):
    content = written(noise(bands), layout="planes", **options)
    for wanted in (1, 3):
        assert reason(content, wanted).startswith(f"it has {bands} channels")
    assert is_deep(content)  # a pack keeps its bytes


def test_the_first_page_counts_for_grey_and_colour_and_is_told():
    content = written(noise(5), layout="pages")
    picture = open_bytes(content, "x.tif", PixelFormat(channels=1))
    np.testing.assert_array_equal(picture.levels()[..., 0], noise(5)[..., 0])
    assert picture.stored_mode == "L, page 1 of 5"


def test_without_tifffile_the_package_is_named(monkeypatch):
    content = written(noise(5))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    told = reason(content, 5)
    assert told == "TIFF files of many bands or 16 bits need the package tifffile: pip install 'ibot-cli[tiff]'"
    assert reason(content, 3).startswith("not an image, or in a format")
