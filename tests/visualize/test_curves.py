from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from ibot_cli.errors import UsageError
from ibot_cli.visualize.curves import HEIGHT, WIDTH, Chart, Curve, draw, ticks, write_picture
from ibot_cli.visualize.drawing import Drawing, Label, Line, Shape, pixels, svg

RISING = Curve("runs/demo", [(0, 0.1), (50, 0.4), (100, 0.9)])
SPACE = "{http://www.w3.org/2000/svg}"


def colour_of(text: str) -> tuple[int, int, int]:
    return tuple(bytes.fromhex(text.removeprefix("#")))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        (0, 120, (0, 50, 100, 150)),
        (0.93, 0.97, (0.93, 0.94, 0.95, 0.96, 0.97)),
        (0.5, 0.5, (0.5, 0.5001)),
        (0, 0, (0, 2e-7)),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, expected: tuple[float, ...]) -> None:
    found = ticks(low, high)
    assert found == pytest.approx(expected) and found[0] <= low and found[-1] >= high


def test_a_line_lies_where_its_values_say() -> None:
    (line,) = [mark for mark in draw([Chart("accuracy", [RISING])]).marks if isinstance(mark, Line) and mark.width == 2]
    (x0, y0), (x1, y1), (x2, y2) = line.points
    assert x1 == pytest.approx((x0 + x2) / 2)
    assert (y0 - y1) / (y0 - y2) == pytest.approx(0.3 / 0.8)
    assert 0 < x0 < x2 < WIDTH and 0 < y2 < y0 < HEIGHT


def test_labels_say_titles_axes_and_last_values() -> None:
    chart = Chart("accuracy <on> test & images", [RISING, Curve("x" * 60, [(0, 0.5), (100, 0.901)])])
    root = ElementTree.fromstring(svg(draw([chart, chart])))
    texts = [element.text or "" for element in root.iter(f"{SPACE}text")]
    assert texts.count("accuracy <on> test & images") == 2
    assert {"0%", "100%", "0", "100", "epochs", "runs/demo 90.0%"} <= set(texts)
    (long,) = {text for text in texts if text.startswith("...x")}
    assert long.endswith("x 90.1%") and len(long) < 40


def test_a_unit_takes_the_place_of_percent() -> None:
    chart = Chart("time", [Curve("fp32", [(1, 0.75), (8, 3.96)])], "images", unit="s")
    texts = {mark.text for mark in draw([chart]).marks if isinstance(mark, Label)}
    assert {"0", "1", "4", "images", "fp32 3.96 s"} <= texts and not any("%" in text for text in texts)


def test_labels_never_cover_each_other() -> None:
    curves = [Curve(str(number), [(0, 0.1), (9, 0.001 * number)]) for number in range(8)]
    ends = [mark for mark in draw([Chart("t", curves)]).marks if isinstance(mark, Label) and mark.colour != "#444444"]
    places = sorted(mark.y for mark in ends[1:])  # the first is the title
    assert len(places) == 8 and np.diff(places).min() >= 16.9
    assert places[-1] < HEIGHT


def test_lines_differ_without_colour() -> None:
    curves = [Curve(str(number), [(1, 0.5)]) for number in range(4)]
    shapes = [mark for mark in draw([Chart("t", curves)]).marks if isinstance(mark, Shape)]
    outlines = {
        tuple((round(x - s.points[0][0], 2), round(y - s.points[0][1], 2)) for x, y in s.points) for s in shapes
    }
    assert len(outlines) == 4


def test_pixels_agree_with_the_marks() -> None:
    marks = [Line([(10, 5), (90, 5)], "#ff0000", 4), Shape([(20, 20), (40, 20), (40, 40), (20, 40)], "#0000ff")]
    image = pixels(Drawing(100, 60, [*marks, Label(50, 55, "MMMM", "middle", "#000000", 12)]), scale=1)
    levels = np.asarray(image).astype(int)
    assert image.size == (100, 60)
    assert levels[5, 50] == pytest.approx(colour_of("#ff0000"), abs=20)  # the filter overshoots at edges
    assert tuple(levels[30, 30]) == colour_of("#0000ff")
    assert tuple(levels[30, 60]) == (255, 255, 255)
    dark = np.argwhere(levels[42:].sum(axis=2) < 300)
    assert len(dark) > 20 and abs(dark[:, 1].mean() - 50) < 3


def test_files_by_their_ending(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.svg", [Chart("t", [RISING])])
    write_picture(tmp_path / "a.PNG", [Chart("t", [RISING]), Chart("u", [RISING])])
    assert ElementTree.parse(tmp_path / "a.svg").getroot().attrib["viewBox"] == f"0 0 {WIDTH} {HEIGHT}"
    with Image.open(tmp_path / "a.PNG") as image:
        assert (image.format, image.size) == ("PNG", (2 * WIDTH, 4 * HEIGHT))


def test_a_flat_curve_has_a_readable_axis() -> None:
    marks = draw([Chart("t", [Curve("flat", [(1, 0.0), (2, 0.0)])])]).marks
    assert {"0%", "5%"} <= {mark.text for mark in marks if isinstance(mark, Label)}


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.pdf", r"a\.pdf is neither \.svg nor \.png"), ("a", "neither"), ("none/a.svg", "none does not exist")],
)
def test_pictures_that_cannot_be_written(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        write_picture(tmp_path / name, [Chart("t", [RISING])])
    (tmp_path / "folder.svg").mkdir()
    with pytest.raises(UsageError, match="is a directory"):
        write_picture(tmp_path / "folder.svg", [Chart("t", [RISING])])
    assert [path.name for path in tmp_path.iterdir()] == ["folder.svg"]
