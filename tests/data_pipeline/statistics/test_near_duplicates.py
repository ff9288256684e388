"""The search against all pairs, and the hashes on altered copies and on different images."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_image

from ibot_cli.data.groups import LinkedGroups
from ibot_cli.data.statistics import near_duplicates
from ibot_cli.data.statistics.near_duplicates import near_pairs
from ibot_cli.data.statistics.perceptual_hash import Hashes, hash_thumbnails, thumbnail

ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded": lambda image: jpeg(image, 60),
    "half": lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
    "double": lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
    "cropped": lambda image: image.crop((2, 2, image.width - 2, image.height - 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "grey": lambda image: image.convert("L").convert("RGB"),
}


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=quality)
    return Image.open(stored).convert("RGB")


def tiles() -> list[Image.Image]:
    """Different places of two photographs."""
    found = []
    for name in ("china", "flower"):
        photograph = Image.fromarray(load_sample_image(f"{name}.jpg"))
        corners = [(left, top) for top in range(0, 280, 140) for left in range(0, 640 - 140, 140)]
        found += [photograph.crop((left, top, left + 140, top + 140)) for left, top in corners]
    return found


def hashed(images: list[Image.Image]) -> Hashes:
    return hash_thumbnails(np.stack([thumbnail(np.asarray(image)) for image in images]))


def groups(hashes: Hashes) -> list[list[int]]:
    linked = LinkedGroups(len(hashes.bits))
    for first, second in near_pairs(hashes):
        linked.join(first, second)
    return [group.tolist() for group in linked.groups()]


@pytest.mark.parametrize("candidates", [1, 50, 1 << 20])
def test_the_search_finds_what_a_comparison_of_all_pairs_finds(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_CANDIDATES", candidates)
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 63, 60, dtype=np.uint64)
    for number in range(20, 60):  # copies of the first 20 in which 1 to 9 bits differ
        flipped = [1 << bit for bit in rng.permutation(63)[: 1 + number % 9].tolist()]
        bits[number] = bits[number % 20] ^ np.uint64(sum(flipped))
    outlines = np.tile(rng.integers(-127, 128, 64, dtype=np.int8), (60, 1))
    found = set()
    for first, second in near_pairs(Hashes(bits, outlines, np.zeros(60, np.bool_))):
        found |= {tuple(sorted(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    distance = np.array([[int(one ^ other).bit_count() for other in bits] for one in bits])
    expected = {(a, b) for a in range(60) for b in range(a + 1, 60) if distance[a, b] <= 7}
    assert expected
    assert found == expected


def test_images_of_one_hash_and_other_outlines_are_different() -> None:
    outlines = np.random.default_rng(0).integers(-127, 128, (4, 64), dtype=np.int8)
    outlines[3] = outlines[1]
    hashes = Hashes(np.full(4, 5, np.uint64), outlines, np.zeros(4, np.bool_))
    assert groups(hashes) == [[1, 3]]


@pytest.mark.parametrize("name", ALTERED)
def test_altered_copies_look_the_same(name: str) -> None:
    originals = tiles()
    copies = [ALTERED[name](image) for image in originals]
    found = groups(hashed([*originals, *copies]))
    count = len(originals)
    assert all(pair == [pair[0], pair[0] + count] for pair in found), "different places are no duplicates"
    assert len(found) >= 0.85 * count  # what is brighter than white is lost: skies change


def test_blank_images_look_like_nothing() -> None:
    rng = np.random.default_rng(0)
    blank = [np.clip(rng.normal(level, 1.0, (40, 40, 3)), 0, 255).astype(np.uint8) for level in (30, 128, 220)]
    found = hashed([Image.fromarray(levels) for levels in blank])
    assert found.flat.all()
    assert groups(found) == []


def test_depth_and_channels_hardly_change_the_hash() -> None:
    grey = np.asarray(tiles()[0].convert("L"))[..., None]
    deep = grey.astype(np.uint16) * 257
    wide = np.repeat(grey, 5, axis=2)
    found = hash_thumbnails(np.stack([thumbnail(levels) for levels in (grey, deep, wide)]))
    assert all(int(found.bits[0] ^ bits).bit_count() <= 2 for bits in found.bits)


def test_no_image_has_no_pair() -> None:
    assert groups(Hashes(np.zeros(0, np.uint64), np.zeros((0, 64), np.int8), np.zeros(0, np.bool_))) == []
