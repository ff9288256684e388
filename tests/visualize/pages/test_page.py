import re
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import pytest

from ibot_cli.errors import RunError, UsageError
from ibot_cli.visualize.pages import check_page_path, page, render_page, write_page
from ibot_cli.visualize.pages.numbers import count, megabytes, moment, number, percent
from ibot_cli.visualize.pages.page import spans
from tests.visualize.pages.document import check_page

HOSTILE = "<script>alert('x')</script>\" onload=\"alert(1)"


def test_a_page_is_whole_accessible_and_asks_nobody_for_anything() -> None:
    document = check_page(render_page("base.html", title="A page"))
    tags = [tag for tag, _ in document.elements]
    assert {"header", "main", "footer", "dialog"} <= set(tags)
    assert document.all("a")[0] == {"class": "skip", "href": "#content"}
    assert "A page" in document.text()


def test_values_are_escaped() -> None:
    plain, hostile = (check_page(render_page("base.html", title=title)) for title in ("A page", HOSTILE))
    assert [tag for tag, _ in plain.elements] == [tag for tag, _ in hostile.elements]
    assert ("h1", HOSTILE) in hostile.texts and ("title", HOSTILE) in hostile.texts


def test_names_that_are_not_utf8_do_not_stop_a_page(tmp_path: Path) -> None:
    write_page(tmp_path / "page.html", render_page("base.html", title="caf\udce9"))
    assert "<h1>caf?</h1>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_forgotten_value_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError, match="title"):
        render_page("base.html")


def test_building_blocks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "try.html").write_text(
        """{% extends "base.html" %}{% import "parts.html" as parts %}{% block content %}
        {{ parts.picture("data:,x", hostile, sharp=true, caption=hostile) }}
        {{ parts.table("Figures", ["What", "How much"], [[hostile, "1"]], numbers=(1,)) }}
        {{ parts.badge("fine", "good") }} {{ parts.notice(hostile, "warn") }} {{ parts.command("ibot " ~ hostile) }}
        <dl class="cards">{{ parts.card("k-NN", 0.5|percent, "about it", "bad") }}</dl>{% endblock %}"""
    )
    both = jinja2.ChoiceLoader([page._environment().loader, jinja2.FileSystemLoader(tmp_path)])
    monkeypatch.setattr(page._environment(), "loader", both)
    document = check_page(render_page("try.html", title="Try", hostile=HOSTILE))
    zoom = next(button for button in document.all("button") if button.get("class") == "zoom")
    assert zoom["data-caption"] == HOSTILE
    assert document.all("img") == [{"src": "data:,x", "alt": HOSTILE, "class": "sharp", "decoding": "async"}]
    assert {"scope": "col", "class": "number"} in document.all("th") and {"class": "number"} in document.all("td")
    assert ("code", f"ibot {HOSTILE}") in document.texts
    assert "50.0%" in document.text() and HOSTILE in document.text()


def test_a_page_replaces_only_files_that_could_be_pages(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        check_page_path(tmp_path)
    with pytest.raises(UsageError, match=r"does not end in \.html") as error:
        check_page_path(tmp_path / "config.yaml")
    assert "config.html" in str(error.value.hint)
    with pytest.raises(UsageError, match=r"nowhere does not exist"):
        check_page_path(tmp_path / "nowhere" / "page.html")
    write_page(tmp_path / "page.HTML", "first")
    write_page(tmp_path / "page.HTML", "second")
    assert (tmp_path / "page.HTML").read_text() == "second"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page, "write_atomically", full)
    with pytest.raises(RunError, match=r"page\.html cannot be written: No space left on device"):
        write_page(tmp_path / "page.html", "text")


def test_numbers_as_people_read_them() -> None:
    assert (count(1234567), count(None), count(float("nan"))) == ("1,234,567", "–", "–")
    assert (number(0.12345), number(12.0, 1), number(2e-5), number(0), number(None)) == (
        "0.123", "12.0", "2.00e-05", "0.000", "–",
    )  # fmt: skip
    assert (percent(0.1234), percent(None), megabytes(1_250_000)) == ("12.3%", "–", "1.2 MB")


def test_backticks_mark_code() -> None:
    assert spans("run `ibot <x>` & look") == "run <code>ibot &lt;x&gt;</code> &amp; look"
    assert spans("one ` alone <b>") == "one ` alone &lt;b&gt;"


def test_colours_can_be_told_apart_in_light_and_dark() -> None:
    rules = re.findall(r"\{([^{}]*)\}", (page.TEMPLATES / "base.css").read_text())
    themes = [colours for rule in rules if "warn-back" in (colours := dict(re.findall(r"--([\w-]+): (#\w+)", rule)))]
    assert len(themes) == 3 and themes[1] == themes[2], "dark is dark, by the system's setting or by the button"
    for theme in themes:
        texts = [(ink, back) for ink in ("ink", "soft", "accent") for back in ("paper", "card", "mat")]
        texts += [(tone, back) for tone in ("good", "bad", "warn") for back in (f"{tone}-back", "card")]
        assert all(contrast(theme[ink], theme[back]) >= 4.5 for ink, back in texts)
        assert all(contrast(theme[f"c{number}"], theme["card"]) >= 3 for number in range(6))


def contrast(one: str, other: str) -> float:
    """Of two colours, as the guidelines for accessible pages define it."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    levels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_times_as_people_read_them() -> None:
    assert moment("2030-01-01T01:30:59+02:00") == "2029-12-31 23:30"
    assert moment(datetime(2030, 1, 1, tzinfo=UTC)) == "2030-01-01 00:00"
    assert (moment(None), moment("soon")) == ("–", "soon")
