import re

import numpy as np
import pytest

from ibot_cli.visualize.report.charts import HEIGHT, WIDTH, Curve, LineChart, draw
from ibot_cli.visualize.report.metrics import Series
from tests.visualize.pages.document import Document

HOSTILE = '<script>alert(1)</script> & "quotes"'


def chart(*curves: Curve, **options: object) -> LineChart:
    return LineChart(title="A title", about="About it.", curves=curves, show=lambda v: f"{v:.2f}", **options)  # type: ignore[arg-type]


def curve(values: object, name: str = "line", rough: bool = False) -> Curve:
    array = np.asarray(values, dtype=np.float64)
    return Curve(name, Series(np.arange(1.0, len(array) + 1), array), rough)


def polylines(text: str) -> list[list[tuple[float, float]]]:
    found = re.findall(r'points="([^"]*)"', text)
    return [[(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())] for points in found]


def test_nothing_to_draw() -> None:
    assert draw(chart(), 0) is None
    assert draw(chart(curve([])), 0) is None


def test_a_chart_says_in_words_what_it_shows() -> None:
    drawn = draw(chart(curve([1, 3, 2], "first"), curve([0.5, 0.5, 0.5], "second")), 7)
    assert drawn is not None
    document = Document(str(drawn.svg))
    (picture,) = document.all("svg")
    assert picture["role"] == "img" and picture["aria-labelledby"] == "chart-7-title chart-7-text"
    assert ("title", "A title") in document.texts
    assert ("desc", "first from 1.00 to 2.00; second from 0.50 to 0.50.") in document.texts
    assert [(line.name, line.last) for line in drawn.legend] == [("first", "2.00"), ("second", "0.50")]
    assert len({line.dashes for line in drawn.legend}) == 2, "lines differ without colour"
    assert drawn.heads == ("Epochs", "first", "second")
    assert drawn.rows == (("1", "1.00", "0.50"), ("2", "3.00", "0.50"), ("3", "2.00", "0.50"))


def test_higher_values_are_higher_up_and_all_inside() -> None:
    drawn = draw(chart(curve([0, 10, 5])), 0)
    assert drawn is not None
    ((low, high, middle),) = polylines(str(drawn.svg))
    assert low[1] > middle[1] > high[1]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in (low, high, middle))
    assert str(drawn.svg).count("<circle") == 3


def test_rough_lines_are_averaged_over_their_values_and_stay_small() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(5, 1, 300_000)
    values[1000] = 1000
    drawn = draw(chart(curve(values, rough=True)), 0)
    assert drawn is not None
    text = str(drawn.svg)
    raw, average = polylines(text)
    assert 'class="raw c0"' in text and len(text) < 12_000
    spread = [max(y for _, y in line) - min(y for _, y in line) for line in (raw, average)]
    assert spread[0] > 3 * spread[1]
    assert all(0 <= y <= HEIGHT for _, y in raw), "a spike is cut off at the edge, and does not flatten the rest"
    assert len(drawn.rows) <= 12


def test_axes() -> None:
    wide = draw(chart(curve([0.5, 0.5]), bounds=(0.0, 1.0), limits=[(0.98, "limit"), (7.0, "beyond")]), 0)
    assert wide is not None
    texts = [text for tag, text in Document(str(wide.svg)).texts if tag == "text"]
    assert "0.00" in texts and "1.00" in texts and "limit" in texts and "beyond" not in texts
    spread = draw(chart(curve([0.01, 10, 1000]), logarithmic=True), 0)
    assert spread is not None
    ((_, first), (_, second), (_, third)) = polylines(str(spread.svg))[0]
    assert first - second == pytest.approx(1.5 * (second - third), abs=0.2)
    flat = draw(chart(curve([0.9]), span=0.2), 0)
    assert flat is not None
    heights = [
        float(text) for tag, text in Document(str(flat.svg)).texts if tag == "text" and re.fullmatch(r"\d\.\d\d", text)
    ]
    assert min(heights) <= 0.8 and max(heights) >= 1.0
    for values in ([1, 1], [1 + 1e-9, 1 + 1e-9]):
        full = draw(chart(curve(values), span=0.2, most=1.0), 0)
        assert full is not None
        heights = [
            float(text)
            for tag, text in Document(str(full.svg)).texts
            if tag == "text" and re.fullmatch(r"\d\.\d\d", text)
        ]
        assert min(heights) <= 0.8 and max(heights) == 1.0


def test_texts_are_escaped() -> None:
    drawn = draw(LineChart(title=HOSTILE, about="", curves=[curve([1, 2], HOSTILE)], show=lambda v: HOSTILE), 0)
    assert drawn is not None
    document = Document(str(drawn.svg))
    assert "script" not in [tag for tag, _ in document.elements]
    assert ("title", HOSTILE) in document.texts
