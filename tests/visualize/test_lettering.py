import pytest
from PIL import ImageFont

from ibot_cli.visualize.lettering import cut, drawable, line_height, short_name, wrapped

FONT = ImageFont.load_default(12)


def width(text: str) -> float:
    return float(FONT.getlength(text))


def test_what_fits_is_whole_and_the_rest_is_cut() -> None:
    text = "prototype of roofs"
    assert cut(text, FONT, round(width(text)) + 1) == text
    for room in range(20, int(width(text))):
        found = cut(text, FONT, room)
        assert found.endswith("…") and text.startswith(found[:-1]) and width(found) <= room
    assert cut(text, FONT, 0) == "…"


def test_a_line_is_one_line() -> None:
    assert cut("two\nlines\tand\r\nmore", FONT, 1000) == "two lines and more"


def test_lines_break_between_words() -> None:
    room = round(width("one two ")) + 1
    assert wrapped("one two three", FONT, room) == ("one two", "three")
    assert wrapped("", FONT, room) == ()
    (cut_word,) = wrapped("x" * 100, FONT, room)
    assert cut_word.endswith("…") and width(cut_word) <= room


@pytest.mark.parametrize(
    ("text", "expected"), [("plain", "plain"), ("Größe 日本", "Größe ??"), ("\u1d2c", "A"), ("\udcff", "?")]
)
def test_only_what_the_font_has(text: str, expected: str) -> None:
    found = drawable(text)
    plain = expected.translate(str.maketrans({"ö": "o", "ß": "ss"}))  # where the font has no accents
    assert found in (expected, plain) and width(found) > 0


def test_lines_do_not_touch() -> None:
    _, top, _, bottom = FONT.getbbox("Agj|")
    assert line_height(FONT) > bottom - top


def test_short_names() -> None:
    assert short_name("/a/b/cat.jpg") == "cat.jpg"
    assert short_name("builtin:photos/china/roof/142,70") == "china/roof/142,70"
    assert short_name("builtin:digits") == "builtin:digits"
