import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ibot_cli.data.decode import UnreadableImage
from ibot_cli.data.packing.encode import Packed, pack_image
from ibot_cli.data.packing.options import PackOptions
from ibot_cli.data.sources import open_source
from tests.data_pipeline.packing.packs import photograph, stored, write

EXIF_ROTATED = Image.Exif()
EXIF_ROTATED[0x0112] = 6  # to be turned clockwise by 90 degrees


def one(tmp_path: Path, content: bytes, name: str = "a.jpg", **options: object) -> Packed:
    write(tmp_path / "images" / name, content)
    source = open_source(str(tmp_path / "images"), channels=3)
    return pack_image(source, 0, PackOptions(**{"short_side": 100, **options}))  # type: ignore[arg-type]


def opened(packed: Packed) -> Image.Image:
    return Image.open(io.BytesIO(packed.content))


def line_art(side: int = 200) -> Image.Image:
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    for place in range(10, side, 40):
        draw.rectangle((place, place, place + 19, side - 10), fill="navy")
    return image


def test_a_large_photograph_becomes_a_smaller_jpeg_near_the_exact_one(tmp_path: Path) -> None:
    original = photograph(300, 200)
    packed = one(tmp_path, stored(original, "JPEG", quality=98))
    image = opened(packed)
    assert (packed.extension, packed.kept, image.format, image.size, image.mode) == (
        "jpg",
        False,
        "JPEG",
        (150, 100),
        "RGB",
    )
    exact = np.asarray(original.resize((150, 100), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(np.asarray(image).astype(int) - exact).mean() < 3
    assert Image.open(io.BytesIO(packed.content)).layer[1][1:3] == (1, 1)  # colours at full resolution


def test_quality_is_that_of_jpeg(tmp_path: Path) -> None:
    content = stored(photograph(300, 200), "JPEG", quality=98)
    sizes = [len(one(tmp_path, content, quality=quality).content) for quality in (60, 92, 98)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[2] / 2


def test_a_very_large_photograph_is_decoded_small_and_still_right(tmp_path: Path) -> None:
    original = photograph(960, 900)
    image = opened(one(tmp_path, stored(original, "JPEG", quality=95)))
    exact = np.asarray(original.resize((107, 100), Image.Resampling.LANCZOS)).astype(int)
    assert image.size == (107, 100)
    assert np.abs(np.asarray(image).astype(int) - exact).mean() < 2


@pytest.mark.parametrize(
    ("name", "kind", "options"),
    [("a.jpg", "JPEG", {"quality": 30}), ("a.png", "PNG", {}), ("a.webp", "WEBP", {"quality": 80})],
)
def test_what_is_small_enough_keeps_its_bytes(tmp_path: Path, name: str, kind: str, options: dict[str, int]) -> None:
    content = stored(photograph(140, 100), kind, **options)
    packed = one(tmp_path, content, name)
    assert packed == Packed(content, name[2:], len(content), kept=True)


def test_what_would_grow_keeps_its_bytes(tmp_path: Path) -> None:
    content = stored(photograph(300, 200), "JPEG", quality=5)
    assert one(tmp_path, content).content == content


@pytest.mark.parametrize(
    ("name", "kind", "extension"), [("a", "JPEG", "jpg"), ("a.img", "PNG", "png"), ("a.dat", "TIFF", "tif")]
)
def test_names_without_the_extension_of_an_image_get_one(tmp_path: Path, name: str, kind: str, extension: str) -> None:
    write(tmp_path / name, stored(photograph(30, 20), kind))
    write(tmp_path / "list.txt", name.encode())
    packed = pack_image(open_source(str(tmp_path / "list.txt"), channels=3), 0, PackOptions(copy=True))
    assert (packed.extension, packed.kept) == (extension, True)


def test_copying_keeps_the_bytes_of_every_file(tmp_path: Path) -> None:
    content = stored(photograph(300, 200), "BMP")
    assert one(tmp_path, content, "a.bmp", copy=True) == Packed(content, "bmp", len(content), kept=True)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    content = stored(photograph(300, 200), "JPEG", quality=98, exif=EXIF_ROTATED)
    image = opened(one(tmp_path, content))
    assert image.size == (100, 150)
    assert not image.getexif()


def test_grey_stays_grey(tmp_path: Path) -> None:
    content = stored(photograph(300, 200).convert("L"), "JPEG", quality=98)
    assert opened(one(tmp_path, content)).mode == "L"


def test_a_large_drawing_stays_lossless_and_a_large_photograph_in_png_does_not(tmp_path: Path) -> None:
    drawing = line_art()
    packed = one(tmp_path, stored(drawing, "PNG", compress_level=0), "a.png")
    exact = np.asarray(drawing.resize((100, 100), Image.Resampling.LANCZOS))
    assert packed.extension == "png"
    assert np.array_equal(np.asarray(opened(packed)), exact)
    photo = one(tmp_path, stored(photograph(300, 200), "PNG"), "a.png")
    assert (photo.extension, opened(photo).format) == ("jpg", "JPEG")


def test_small_bitmaps_become_png_without_loss(tmp_path: Path) -> None:
    image = photograph(90, 80)
    packed = one(tmp_path, stored(image, "BMP"), "a.bmp")
    assert (packed.extension, packed.kept) == ("png", False)
    assert np.array_equal(np.asarray(opened(packed)), np.asarray(image))


def test_palettes_and_transparency_become_what_the_loader_sees(tmp_path: Path) -> None:
    image = line_art().convert("P")
    packed = one(tmp_path, stored(image, "PNG", compress_level=0), "a.png")
    exact = np.asarray(image.convert("RGB").resize((100, 100), Image.Resampling.LANCZOS))
    assert np.array_equal(np.asarray(opened(packed).convert("RGB")), exact)
    clear = photograph(300, 200)
    clear.putalpha(0)
    assert opened(one(tmp_path, stored(clear, "PNG"), "a.png")).mode == "RGB"


def deep_grey() -> bytes:
    return stored(Image.fromarray(np.arange(60000, dtype=np.uint16).reshape(200, 300)), "PNG")


def deep_colour() -> bytes:
    imagecodecs = pytest.importorskip("imagecodecs")
    return bytes(imagecodecs.png_encode(np.arange(180000, dtype=np.uint16).reshape(200, 300, 3)))


def bands(count: int, dtype: str = "uint8") -> bytes:
    tifffile = pytest.importorskip("tifffile")
    file = io.BytesIO()
    values = np.random.default_rng(0).integers(0, 255, (200, 300, count)).astype(dtype)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.png", deep_grey),
        ("a.png", deep_colour),
        ("a.tif", lambda: bands(4)),
        ("a.tif", lambda: bands(7)),
        ("a.tif", lambda: bands(3, "uint16")),
    ],
)
def test_deep_files_and_those_of_many_bands_keep_their_bytes(tmp_path: Path, name: str, make: object) -> None:
    content = make()  # type: ignore[operator]
    assert one(tmp_path, content, name) == Packed(content, name[2:], len(content), kept=True, deep=True)


@pytest.mark.parametrize("copy", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jpg", stored(photograph(300, 200), "JPEG")[:-2000], "truncated"),
        ("b.jpg", stored(photograph(60, 40), "JPEG")[:-400], "truncated"),
        ("a.png", stored(photograph(300, 200), "PNG")[:-2000], "damaged"),
        ("a.jpg", b"", "empty"),
        ("a.jpg", b"hello", "not an image"),
        ("a.tif", b"II*\0" + bytes(40), "."),
    ],
)
def test_unreadable_files_are_found(tmp_path: Path, name: str, content: bytes, reason: str, copy: bool) -> None:
    with pytest.raises(UnreadableImage, match=reason) as caught:
        one(tmp_path, content, name, copy=copy)
    assert caught.value.path.endswith(name)


def test_a_cut_off_file_of_many_bands_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="cut off"):
        one(tmp_path, bands(7)[:-1000], "a.tif")
