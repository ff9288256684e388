import base64
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ibot_cli.visualize.patterns import page
from ibot_cli.visualize.patterns.page import patterns_page
from ibot_cli.visualize.patterns.result import Patterns
from ibot_cli.visualize.patterns.tiles import Pictures
from tests.visualize.pages.document import Document, check_page
from tests.visualize.patterns.coloured import Painting, Paintings, random_paintings
from tests.visualize.patterns.paintings import COMPARISON, RAGGED, RGB, UNLABELLED, colour, find, near, other


def made(found: Patterns, source: Any = RAGGED, beside: Patterns | None = None) -> Document:
    text = patterns_page(Pictures(source), found, beside=beside)
    document = check_page(text)
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []  # the name of SVG is no address
    return document


def data(document: Document) -> Any:
    texts = [text for tag, text in document.texts if tag == "script" and text.startswith("{")]
    return json.loads(texts[0])


def opened(uri: str | None) -> Image.Image:
    assert uri is not None
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",", 1)[1])))


def test_every_patch_leads_to_its_image() -> None:
    found = find()
    document = made(found)
    content = data(document)
    links = {str(link["id"]) for link in document.all("a") if "id" in link}
    keys = {
        f"patch-{rank}-{place}"
        for rank, pattern in enumerate(found.patterns, start=1)
        for place in range(1, len(pattern.members) + 1)
    }
    assert links == keys == set(content["members"])
    assert [link["href"] for link in document.all("a") if "id" in link] == [
        f"#{link['id']}" for link in document.all("a") if "id" in link
    ]
    for rank, pattern in enumerate(found.patterns, start=1):
        for place, member in enumerate(pattern.members, start=1):
            facts = content["members"][f"patch-{rank}-{place}"]
            assert (facts["image"], facts["path"], facts["row"]) == (member.index, member.path, member.row)
            assert facts["class"] == RAGGED.classes[member.label or 0]  # type: ignore[index]
            assert facts["box"] == pytest.approx(member.box, abs=0.01)
            assert facts["window"] == pytest.approx(member.window, abs=0.01)
    assert content["grid"] == [4, 4]


def test_each_image_is_there_once_in_its_own_colours() -> None:
    content = data(made(find()))
    assert set(content["images"]) == {"0", "1", "2"}
    for index, image in content["images"].items():
        source = RAGGED.read(int(index))
        assert (image["width"], image["height"]) == source.size
        assert opened(image["uri"]).size == source.size
        assert image["sharp"] == (max(source.size) <= 128)
    member = content["members"]["patch-1-1"]
    left, top, right, bottom = member["box"]
    assert near(colour(opened(content["images"]["1"]["uri"]), (left + right) / 2, (top + bottom) / 2), RGB[3])


def test_the_windows_show_their_colour_and_clear_what_was_not_seen() -> None:
    found = find()
    document = made(found)
    tiles = [opened(image["src"]) for image in document.all("img")]
    colours = [pattern.prototype for pattern in found.patterns for _ in pattern.members]
    for tile, number in zip(tiles, colours, strict=True):
        assert near(colour(tile, tile.width / 2, tile.height / 2), RGB[number], by=12)
    red = tiles[colours.index(0)]  # at the upper left corner
    assert red.mode == "RGBA" and red.getpixel((20, 20))[3] == 0  # type: ignore[index]
    assert all("Patch in row" in str(image["alt"]) for image in document.all("img"))


def test_random_weights_and_purities_stand_beside() -> None:
    found = replace(find(), purity=COMPARISON, notes=("Something to know.",), warnings=("One is missing.",))
    document = made(found, beside=other(found))
    text = document.text()
    assert "Random weights (seed 0)" in text and "mean purity:" in text and "Notes (2)" in text
    assert "Something to know." in text and "One is missing." in text
    assert "60.0% (50.0% to 70.0%)" in text and "Trained / random weights: 1.50 of the members shown, 2.00" in text
    links = [str(link["id"]) for link in document.all("a") if "id" in link]
    assert "random-3-1" in links and "random-4-1" not in links and "patch-4-1" in links
    assert data(document)["members"]["random-1-1"]["prototype"] == found.patterns[-1].prototype


def test_members_of_another_class_are_named() -> None:
    found = find()
    changed = replace(found.patterns[0], members_label=0, members_purity=0.5)
    text = made(replace(found, patterns=(changed,))).text()
    assert "members: 50% of class warm; all patches: 78% of class sunny" in text


def test_without_labels_and_baselines() -> None:
    found = find(UNLABELLED)
    document = made(found, UNLABELLED)
    assert "Random weights" not in document.text() and "class" not in document.text()
    assert data(document)["members"]["patch-1-1"]["class"] is None


def test_whole_images_have_no_place_in_a_grid() -> None:
    found = find(kind="cls")
    document = made(found)
    assert data(document)["members"]["patch-1-1"]["row"] is None
    assert "outlines" not in document.ids() and "outlines" in made(find()).ids()
    assert "patch" not in document.text() and "3 images, of which 0 are dark." in document.text()
    assert "3 images, 48 patches, of which 0 are dark." in made(find()).text()


def test_names_cannot_break_the_page() -> None:
    nasty = "</script><script>alert(1)</script>\"'&"

    class Nasty(Paintings):
        def path(self, index: int) -> str:
            return f"{nasty}{index}\udcff"

    source = Nasty([Painting("rrrg rrrg rrrg bbbb")] * 2, labels=[0, 1], classes=[nasty, "b"])
    document = made(find(source), source)
    assert data(document)["members"]["patch-1-1"]["path"].startswith(nasty)
    assert data(document)["members"]["patch-1-1"]["class"] == nasty
    assert len(document.all("script")) == 3


def test_images_that_went_away_leave_their_places_empty() -> None:
    found = find()
    gone = Paintings([Painting("r")] * 3, bad=[0, 1, 2])
    document = made(found, gone)
    assert data(document)["images"] == {} and document.all("img") == []
    assert document.text().count("cannot be read") == sum(len(pattern.members) for pattern in found.patterns)


def test_many_large_images_are_made_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (150, 200, 3), dtype=np.uint8)

    class Noisy(Paintings):
        def read(self, index: int) -> Image.Image:
            return Image.fromarray(noise)

    source = Noisy(["rg yb"] * 2)
    found = find(source, num_patterns=1)
    whole = data(made(found, source))["images"]["0"]
    assert opened(whole["uri"]).size == (200, 150)
    monkeypatch.setattr(page, "_SOURCE_BYTES", 2 * 24_000)
    small = data(made(found, source))["images"]["0"]
    assert (small["width"], small["height"]) == (200, 150)
    assert len(small["uri"]) <= 24_000 < len(whole["uri"]) and opened(small["uri"]).width in (160, 192)
    monkeypatch.setattr(page, "_TILE_BYTES", 1)
    sides = {max(opened(image["src"]).size) for image in made(found, source).all("img")}
    assert sides == {136}


def test_pages_of_many_patterns_show_fewer_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random_paintings(30, letters="rgbyc", seed=3)
    found = find(source, top_k=25)
    monkeypatch.setattr(page, "MOST_TILES", 60)
    document = made(found, source)
    assert len(document.all("img")) == 60 and "; the 12 best" in document.text()
    assert sum(len(pattern.members) for pattern in found.patterns) == 125
