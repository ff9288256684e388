"""Pillow and torchcodec on the same files: odd ones, broken ones, and those that are decoded smaller."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from ibot_cli.config.schema import DataConfig, ViewsConfig
from ibot_cli.data.decode import PixelFormat, UnreadableImage, open_bytes
from ibot_cli.data.formats import jpeg
from ibot_cli.data.formats.jpeg import decoder_in_use, require_decoder, usual_decoder
from ibot_cli.data.rng import stream
from ibot_cli.data.sources import open_source
from ibot_cli.data.transform import ViewRecipe, cut_views, draw_views, usable_shrink
from ibot_cli.errors import DataError

DECODERS = ["pillow", "torchcodec"]
CHINA = Image.fromarray(load_sample_image("china.jpg"))
SMALL = CHINA.resize((121, 83))
ORIENTATION = 0x0112


@pytest.fixture(params=DECODERS)
def decoder(request):
    if request.param == "torchcodec":
        pytest.importorskip("torchcodec")
    return request.param


def encoded(image, kind="JPEG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation):
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data.tobytes()


def noisy_exif():
    """EXIF data that end in the middle of an entry."""
    return exif(6)[:20] + b"\xff\xff"


def foreign():
    """An application segment that only looks like EXIF data; torchcodec alone would turn the image."""
    content = encoded(SMALL, exif=exif(6))
    return content.replace(b"Exif\0\0", b"Text\0\0", 1)


ODD = {
    "baseline": encoded(SMALL, quality=90),
    "progressive": encoded(SMALL, progressive=True),
    "full colour": encoded(SMALL, subsampling="4:4:4"),
    "half colour": encoded(SMALL, subsampling="4:2:2"),
    "restart markers": encoded(SMALL, restart_marker_rows=1),
    "grey": encoded(SMALL.convert("L")),
    "cmyk": encoded(SMALL.convert("CMYK")),
    "turned": encoded(SMALL, exif=exif(6)),
    "mirrored": encoded(SMALL, exif=exif(5)),
    "upright with EXIF": encoded(SMALL, exif=exif(1)),
    "damaged EXIF": encoded(SMALL, exif=noisy_exif()),
    "not EXIF": foreign(),
    "something behind the end": encoded(SMALL) + b"\0" * 100,
    "two pictures": encoded(SMALL, "MPO", save_all=True, append_images=[SMALL.rotate(180)]),
    "one pixel": encoded(SMALL.crop((3, 3, 4, 4))),
    "named wrongly": encoded(SMALL, "PNG"),
    "palette": encoded(SMALL.quantize(9), "GIF"),
    "deep grey": encoded(Image.fromarray(np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)), "PNG"),
    "transparent": encoded(SMALL.convert("RGBA"), "WEBP", lossless=True),
}
GOOD = encoded(SMALL, quality=90)
BROKEN = {
    "empty": (b"", "the file is empty"),
    "half": (GOOD[: len(GOOD) // 2], r"damaged \(image file is truncated"),
    "without its end": (GOOD[:-2], r"damaged \(image file is truncated"),
    "one byte short": (GOOD[:-1], r"damaged \(image file is truncated"),
    "progressive, half": (encoded(SMALL, progressive=True)[:2000], r"damaged \(image file is truncated"),
    "grey, half": (encoded(SMALL.convert("L"))[:1500], r"damaged \(image file is truncated"),
    "header alone": (GOOD[:150], "damaged"),
    "two bytes": (b"\xff\xd8", "not an image"),
    "web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    "text": (b"hello", "not an image"),
    "tables lost": (GOOD.replace(b"\xff\xdb", b"\xff\xfe"), "damaged"),
    "half a PNG": (encoded(SMALL, "PNG")[:2000], "damaged"),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", list(ODD))
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_odd_files_have_the_levels_of_pillow(kind, channels, decoder):
    picture = open_bytes(ODD[kind], "x", PixelFormat(channels=channels, decoder=decoder))
    with Image.open(io.BytesIO(ODD[kind])) as image:
        turn = {"turned": Image.Transpose.ROTATE_270, "mirrored": Image.Transpose.TRANSPOSE}.get(kind)
        image = image if turn is None else image.transpose(turn)
        if kind == "deep grey":
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        expected = np.asarray(image.convert("RGB").convert({1: "L", 3: "RGB"}[channels]))
    levels = picture.levels()
    assert picture.size == (levels.shape[1], levels.shape[0])
    assert levels.flags.c_contiguous and levels.dtype == np.uint8
    np.testing.assert_array_equal(levels, expected.reshape(*expected.shape[:2], channels))
    np.testing.assert_array_equal(np.asarray(picture.image()), expected)


@pytest.mark.parametrize("kind", list(BROKEN))
def test_broken_files_are_refused_with_the_reason(kind, decoder):
    content, reason = BROKEN[kind]
    for _ in range(2):
        with pytest.raises(UnreadableImage, match=reason):
            open_bytes(content, "x", PixelFormat(decoder=decoder)).levels()


def test_torchcodec_is_used_where_it_is_there_and_faster(monkeypatch):
    pytest.importorskip("torchcodec")
    calls = []
    original = jpeg._torchcodec()
    monkeypatch.setattr(jpeg, "_torchcodec", lambda: lambda *args, **kw: (calls.append(1), original(*args, **kw))[1])

    def used(kind, **pixels):
        calls.clear()
        open_bytes(ODD[kind], "x", PixelFormat(**pixels)).levels()
        return bool(calls)

    assert used("baseline") and used("grey", channels=1) and used("upright with EXIF")
    assert not used("baseline", decoder="pillow")
    assert not any(used(kind) for kind in ("turned", "cmyk", "grey", "named wrongly"))


def test_what_torchcodec_refuses_is_decoded_by_pillow(monkeypatch):
    def refuses(*args, **options):
        raise RuntimeError("no")

    monkeypatch.setattr(jpeg, "_torchcodec", lambda: refuses)
    assert open_bytes(GOOD, "x", PixelFormat()).levels().shape == (83, 121, 3)


def test_without_torchcodec(monkeypatch, tmp_path):
    monkeypatch.setattr(jpeg, "_torchcodec", lambda: "No module named 'torchcodec'")
    assert open_bytes(GOOD, "x", PixelFormat()).levels().shape == (83, 121, 3)
    assert usual_decoder() == "pillow" and decoder_in_use().startswith("pillow ")
    with pytest.raises(DataError, match=r"torchcodec cannot be imported \(No module") as refused:
        open_source(str(tmp_path), channels=3, decoder="torchcodec")
    assert "ibot-cli[fast]" in refused.value.hint and "data.decoder=pillow" in refused.value.hint


def test_a_torchcodec_that_cannot_be_imported_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    jpeg._torchcodec.cache_clear()
    try:
        assert usual_decoder() == "pillow"
        with pytest.raises(DataError, match="torchcodec"):
            require_decoder("torchcodec")
    finally:
        jpeg._torchcodec.cache_clear()
    with pytest.raises(ValueError, match="turbo"):
        require_decoder("turbo")


@pytest.mark.parametrize("shrink", [2, 4, 8])
@pytest.mark.parametrize("size", [(640, 427), (121, 83), (17, 9), (64, 8)])
def test_sides_of_smaller_images(size, shrink):
    picture = open_bytes(encoded(CHINA.resize(size)), "x", PixelFormat())
    assert picture.shrinks and picture.size == size
    assert picture.levels(shrink).shape == (-(-size[1] // shrink), -(-size[0] // shrink), 3)
    assert picture.levels().shape == (size[1], size[0], 3)


def test_what_cannot_be_decoded_smaller():
    whole, ragged = (encoded(CHINA.crop((0, 0, 640, height)), exif=exif(6)) for height in (424, 427))
    assert open_bytes(whole, "x", PixelFormat()).levels(4).shape == (160, 106, 3)
    tiny = encoded(CHINA.crop((0, 0, 40, 7)))
    for content, pixels in ((ragged, {}), (tiny, {}), (encoded(SMALL, "PNG"), {}), (whole, {"bits": 16})):
        picture = open_bytes(content, "x", PixelFormat(**pixels))
        assert not picture.shrinks and picture.levels(4).shape == picture.levels().shape


def tiled(width, height):
    """The photograph beside and above itself, every other one upside down."""
    image = Image.new("RGB", (width, height))
    for row in range(-(-height // 427)):
        for column in range(-(-width // 640)):
            part = CHINA if (row + column) % 2 else CHINA.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            image.paste(part, (640 * column, 427 * row))
    return image


def differences(image, recipe, visits):
    """Mean and largest difference of each view from that of the whole image, and the shrinks that were used."""
    picture = open_bytes(encoded(image, quality=92), "x", PixelFormat())
    found, shrinks = [], set()
    for visit in range(visits):
        rng = [stream(0, 0, visit, "crops") for _ in range(3)]
        shrinks.add(usable_shrink(picture, draw_views(*picture.size, recipe, rng[0])))
        small, _ = cut_views(picture, recipe, rng[1])
        whole, _ = cut_views(_Whole(picture), recipe, rng[2])
        for one, two in zip(small, whole, strict=True):
            apart = (one.int() - two.int()).abs()
            found.append((float(apart.float().mean()), int(apart.max())))
    return np.array(found), shrinks


class _Whole:
    """A picture that does not shrink."""

    shrinks = False

    def __init__(self, picture):
        self.size, self.levels = picture.size, picture.levels


def test_views_of_smaller_images_are_those_of_the_whole_to_a_level():
    views = ViewsConfig(num_local=2, global_size=96, local_size=32, local_scale=(0.02, 0.2))
    recipe = ViewRecipe.from_config(views, DataConfig())
    found, shrinks = differences(tiled(1283, 857), recipe, 6)
    assert shrinks >= {2} and max(shrinks) <= 4
    assert found[:, 0].max() <= 1 and found[:, 1].max() <= 30


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tiled", "enlarged"])
def test_published_views_of_twelve_megapixels(kind):
    image = tiled(4000, 3000) if kind == "tiled" else CHINA.resize((4000, 3000), Image.Resampling.BICUBIC)
    found, shrinks = differences(image, ViewRecipe.from_config(ViewsConfig(), DataConfig()), 4)
    assert max(shrinks) >= 2 and found[:, 0].max() <= 1 and found[:, 1].max() <= 30


def test_every_box_keeps_twice_the_pixels_of_its_view():
    views = dataclasses.replace(ViewsConfig(), num_local=1)
    recipe = ViewRecipe.from_config(views, DataConfig())

    class Sized:
        shrinks = True

    used = set()
    for visit in range(60):
        drawn = draw_views(4000, 3000, recipe, stream(0, 0, visit, "crops"))
        shrink = usable_shrink(Sized(), drawn)
        used.add(shrink)
        room = min(min(view.box[2:]) / view.size for view in drawn)
        assert shrink == 1 or room >= 2 * shrink
        assert shrink == 8 or room < 4 * shrink
    assert used == {1, 2, 4} or used == {2, 4}
    turned = [view._replace(degrees=3.0) for view in drawn]
    assert usable_shrink(Sized(), turned) == 1
