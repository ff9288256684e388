"""The folder of attention figures: complete or untouched, and what its numbers say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ibot_cli.errors import DataError, UsageError, WeightsError
from ibot_cli.visualize.attention import files
from ibot_cli.visualize.attention.files import check_attention_folder, default_folder, draw_attention
from ibot_cli.visualize.attention.result import AttentionOptions, points
from tests.visualize.attention.known import looking_at, spotted
from tests.visualize.attention.test_maps import of_timm, small_swin
from tests.visualize.networks import loaded_network


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    spotted([(1, 2)]).save("one.png")
    spotted([(0, 0), (3, 4)], columns=5).save("two.png")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_what_is_written(place: Path) -> None:
    done: list[tuple[str, int, int]] = []
    found = draw_attention(
        Path("new/out"),
        looking_at(["bright", "nothing"]),
        ["two.png", "one.png"],
        AttentionOptions(pca=True),
        progress=lambda *now: done.append(now),
    )
    folder = place / "new" / "out"
    assert sorted(content(folder)) == ["attention.json", "one.png", "pca.png", "two.png"]
    assert found.files == ["two.png", "one.png", "pca.png"]
    assert all(Image.open(folder / name).mode == "RGB" for name in found.files)
    assert done == [("images", 1, 2), ("images", 2, 2)]
    assert found.notes == () and found.mass == 0.6 and found.folder == "new/out"
    two, one = found.images
    assert (two.path, two.grid, two.size, two.seen, two.source_size) == (
        "two.png",
        (4, 5),
        (20, 16),
        (0, 0, 20, 16),
        (20, 16),
    )
    (query,) = one.queries
    bright, even = query.heads
    assert (query.at, query.patch) == (None, None)
    assert (bright.patches_for_mass, round(bright.on_patches, 2), round(bright.entropy, 2)) == (1, 1.0, 0.0)
    assert (even.patches_for_mass, even.share_for_mass) == (10, 10 / 16)
    assert even.on_patches == pytest.approx(16 / 17) and even.entropy == pytest.approx(1)
    assert two.queries[0].heads[0].patches_for_mass == 2  # of two equal ones each holds half
    stored = json.loads((folder / "attention.json").read_text())
    assert stored["made_by"] == "ibot visualize-attention" and stored["images"][1]["file"] == "one.png"
    assert stored["images"][1]["queries"][0]["heads"][0]["patches_for_mass"] == 1
    assert stored["pca"]["file"] == "pca.png" and 0.1 < sum(stored["pca"]["explained"]) <= 1


def test_an_image_may_be_called_as_the_sheet_of_features(place: Path) -> None:
    spotted([]).save("pca.png")
    found = draw_attention(Path("out"), loaded_network(), ["pca.png"], AttentionOptions(pca=True))
    assert found.files == ["pca-2.png", "pca.png"] and len(content(place / "out")) == 3


def test_the_same_call_gives_the_same_bytes(place: Path) -> None:
    for out in ("a", "b"):
        options = AttentionOptions(pca=True, num=2, threshold=0.5)
        draw_attention(Path(out), loaded_network(), ["one.png", "builtin:digits"], options)
    first, second = content(place / "a"), content(place / "b")
    assert len(first) == 5 and first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first if name.endswith(".png"))


def test_points_of_the_image(place: Path) -> None:
    options = AttentionOptions(at=((2.0, 2.0), (19.5, 15.0)))
    found = draw_attention(Path("out"), looking_at(["bright"]), ["two.png"], options)
    (image,) = found.images
    assert [(query.at, query.patch) for query in image.queries] == [((2.0, 2.0), (0, 0)), ((19.5, 15.0), (3, 4))]
    single = AttentionOptions(at=((2.0, 2.0),))
    draw_attention(Path("single"), looking_at(["bright"]), ["two.png"], single)
    both, one = (Image.open(place / out / "two.png") for out in ("out", "single"))
    assert both.width == one.width and both.height == 2 * one.height
    assert np.array_equal(np.asarray(both)[: one.height], np.asarray(one))


def test_earlier_figures_are_replaced_as_a_whole(place: Path) -> None:
    loaded = loaded_network()
    draw_attention(Path("out"), loaded, ["one.png"], AttentionOptions(pca=True))
    check_attention_folder(Path("out"))
    draw_attention(Path("out"), loaded, ["two.png"], AttentionOptions())
    assert sorted(content(place / "out")) == ["attention.json", "two.png"]


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_all_files_or_none(
    place: Path, monkeypatch: pytest.MonkeyPatch, before: bool, failure: BaseException | type[BaseException]
) -> None:
    loaded = loaded_network()
    if before:
        draw_attention(Path("out"), loaded, ["one.png"], AttentionOptions())
    old = content(place / "out") if before else None
    entries = sorted(entry.name for entry in place.iterdir())

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(files, "_draw_pca", fail)
    with pytest.raises((KeyboardInterrupt, DataError)) as caught:
        draw_attention(Path("out"), loaded, ["two.png", "one.png"], AttentionOptions(pca=True))
    if caught.type is DataError:
        assert str(caught.value) == "The figures cannot be written to out: No space left on device."
    assert sorted(entry.name for entry in place.iterdir()) == entries
    assert not before or content(place / "out") == old


def test_folders_of_others_are_left_alone(place: Path) -> None:
    (place / "mine").mkdir()
    (place / "mine" / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match=r"mine is not empty: it holds thesis\.tex"):
        check_attention_folder(Path("mine"))
    (place / "pictures").mkdir()
    spotted([]).save("pictures/holiday.png")
    with pytest.raises(UsageError, match="pictures is not empty"):
        check_attention_folder(Path("pictures"))
    with pytest.raises(UsageError, match=r"one\.png is a file"):
        check_attention_folder(Path("one.png"))


def test_where_figures_go_by_default(place: Path) -> None:
    (place / "run").mkdir()
    (place / "run" / "config.yaml").write_text("")
    assert default_folder("run") == Path("run/figures/attention")
    assert default_folder("weights.pth") == default_folder("timm:vit_small_patch16_224") == Path("attention")


@pytest.mark.parametrize(("x", "y"), [(20, 3), (3, 16), (-1, 3), (3, -0.5)])
def test_points_outside_the_image(place: Path, x: float, y: float) -> None:
    with pytest.raises(UsageError, match=rf"--at {x:g},{y:g} lies outside two\.png, which is 20 x 16 pixels") as caught:
        draw_attention(Path("out"), loaded_network(), ["two.png"], AttentionOptions(at=((x, y),)))
    assert caught.value.hint is not None and not (place / "out").exists()


def test_points_that_were_cut_away(place: Path) -> None:
    Image.new("L", (22, 16)).save("ragged.png")
    with pytest.raises(UsageError, match=r"--at 0,3 lies on an edge of ragged\.png that is cut away") as caught:
        draw_attention(Path("out"), loaded_network(), ["ragged.png"], AttentionOptions(at=((0, 3),)))
    assert caught.value.hint == ("The network sees 1 to 21 across and 0 to 16 down; another --size cuts elsewhere.")


def test_swin_needs_points_or_features_alone(place: Path) -> None:
    swin = small_swin()
    with pytest.raises(UsageError, match="has no class token") as caught:
        draw_attention(Path("out"), swin, ["one.png"], AttentionOptions())
    assert caught.value.hint is not None and "--at" in caught.value.hint and not (place / "out").exists()
    found = draw_attention(Path("out"), swin, ["one.png"], AttentionOptions(pca=True))
    assert found.files == ["pca.png"] and found.images[0].file is None and found.images[0].queries == ()
    assert found.notes == (
        "This network has no class token, so there is no attention of it: tiny. Only the patch features are drawn.",
    )
    both = draw_attention(Path("out"), swin, ["one.png"], AttentionOptions(pca=True, at=((9.0, 5.0),)))
    assert both.files == ["one.png", "pca.png"] and both.notes == ()
    assert both.images[0].queries[0].patch == (1, 2) and both.images[0].grid == (4, 4)


def test_features_of_networks_whose_attention_cannot_be_read(place: Path) -> None:
    eva = of_timm("eva02_tiny_patch14_224", patch_size=16)
    with pytest.raises(WeightsError, match="is of a kind that cannot be read"):
        draw_attention(Path("out"), eva, ["one.png"], AttentionOptions())
    assert draw_attention(Path("out"), eva, ["one.png"], AttentionOptions(pca=True)).files == ["pca.png"]


def test_unreadable_images_of_data_are_told_of(place: Path) -> None:
    (place / "data").mkdir()
    spotted([(1, 1)]).save("data/good.png")
    (place / "data" / "bad.png").write_bytes(b"no image")
    found = draw_attention(Path("out"), loaded_network(), ["data"], AttentionOptions())
    assert found.files == ["good.png"] and len(found.unreadable) == 1
    assert len(found.notes) == 1 and "bad.png could not be read and was left out: not an image" in found.notes[0]


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.01, float("nan")])
def test_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(UsageError, match=f"--threshold {threshold:g} is not a share") as caught:
        AttentionOptions(threshold=threshold)
    assert caught.value.hint == "It is above 0 and at most 1, for example 0.6."


def test_points_in_words() -> None:
    assert points(["120,80", " 3.5 , 4"]) == ((120.0, 80.0), (3.5, 4.0))
    for text in ("120", "1,2,3", "a,b", "nan,3", ""):
        with pytest.raises(UsageError, match=f"--at {text} is not a point") as caught:
            points([text])
        assert caught.value.hint is not None and "--at 120,80" in caught.value.hint
