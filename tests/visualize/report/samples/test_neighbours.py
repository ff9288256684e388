"""What the browser of neighbours shows, read from the page itself."""

import re
from collections.abc import Sequence

from ibot_cli.visualize.pages import render_page
from ibot_cli.visualize.report.samples.neighbours import browser_values, neighbour_values
from ibot_cli.visualize.report.samples.subject import Subject
from ibot_cli.visualize.report.section import Section
from tests.visualize.pages.document import Document, check_page
from tests.visualize.report.samples.gallery import gallery, subject

TRAIN = ("rrrr", "rrrg", "gggg", "gggr")
LABELS = (0, 0, 1, 1)
HOSTILE = '"><script>alert(1)</script>{{ 7 * 7 }}'


def page_of(asked: Subject) -> str:
    values = {"problem": None, **neighbour_values(asked)}
    section = Section(id="neighbours", title="Neighbours", template="report_neighbours.html", values=values)
    return render_page(
        "report.html", title="A run", lead="", sections=[section], styles=["report_samples.css"],
        scripts=["report_neighbours.js"],
    )  # fmt: skip


def lookups(page: str) -> list[tuple[Document, str]]:
    """Each looked-up image's part of the page."""
    parts = re.split(r'(?=<div class="lookup")', page)[1:]
    parts[-1] = parts[-1].partition('<p class="browser-none"')[0]
    parts[-1] = parts[-1].rsplit("</div>", 0)[0]
    return [(Document(part), part) for part in parts]


def marks(part: str) -> list[bool]:
    """For each neighbour whether it is marked as wrong; outline, sign and words must agree."""
    found = []
    for item in re.findall(r"<li.*?</li>", part, flags=re.DOTALL):
        signs = {'<li class="wrong">' in item, 'class="cross">✗' in item, "of another class" in item}
        assert len(signs) == 1, item
        found.append(signs.pop())
    return found


def test_marks_and_filters_say_what_is_wrong() -> None:
    page = page_of(subject(gallery(TRAIN, LABELS, ("rrrr", "rrrg", "gggg"), (0, 1, 1)), neighbours=3))
    check_page(page)
    found = lookups(page)
    attributes = [document.all("div")[0] for document, _ in found]
    assert [(each["data-wrong"], each["data-class"]) for each in attributes] == [
        ("yes", "1"),  # a painting that looks red with the label green
        ("no", "0"),
        ("no", "1"),
    ]
    # by cosine: rrrg finds rrrr or rrrg first and gggr last; rrrr likewise; gggg finds gggg, gggr, rrrg
    assert [marks(part) for _, part in found] == [[True, True, False], [False, False, True], [False, False, True]]
    assert "✗ voted red" in found[0][1] and "✓ vote right" in found[1][1]
    assert [option["value"] for option in Document(page).all("option")] == ["", "0", "1"]
    buttons = [button for button in Document(page).all("button") if "data-show" in button]
    assert [(button["data-show"], button["aria-pressed"]) for button in buttons] == [
        ("all", "true"),
        ("wrong", "false"),
    ]
    text = " ".join(Document(page).text().split())
    assert "Of 3 test images, 1 gets a wrong class." in text
    assert "on purpose" not in text  # all of them are shown
    assert "All (3)" in text and "✗ Wrong only (1)" in text


def test_wrong_ones_that_were_chosen_are_said_to_be() -> None:
    images = gallery(TRAIN, LABELS, ("rrrr", "rrrg", "gggg"), (0, 1, 1))
    text = " ".join(check_page(page_of(subject(images, neighbours=3, queries=2))).text().split())
    assert "Of 3 test images, 1 gets a wrong class. 1 of the 2 below was chosen among the wrong ones on purpose" in text


def test_every_picture_is_stored_once() -> None:
    page = page_of(subject(gallery(TRAIN, LABELS, (*TRAIN, "rrgg"), (*LABELS, 0))))
    document = check_page(page)
    assert len(document.all("symbol")) == len(document.all("image")) == 5
    uris = [image["href"] for image in document.all("image")]
    assert len(set(uris)) == 5 and all(page.count(str(uri)) == 1 for uri in uris)
    assert len(document.all("use")) == 5 * (1 + 4)
    assert {str(use["href"]) for use in document.all("use")} == {f"#{each['id']}" for each in document.all("symbol")}


def test_without_labels_there_is_neither_mark_nor_filter() -> None:
    page = page_of(subject(gallery(TRAIN, None)))
    document = check_page(page)
    assert not document.all("select") and not any("data-wrong" in each for each in document.all("div"))
    assert "✗" not in document.text() and "nothing is marked as right or wrong" in " ".join(document.text().split())
    assert len(lookups(page)) == 4 and "other images whose features" in " ".join(document.text().split())


def test_one_class_only_is_no_label() -> None:
    page = page_of(subject(gallery(TRAIN, (0, 0, 0, 0), classes=("all",))))
    assert not check_page(page).all("select")


def test_nearly_the_same_is_said() -> None:
    text = " ".join(check_page(page_of(subject(gallery(TRAIN, LABELS, ("rrrr",), (0,))))).text().split())
    assert "almost the same image (1 here)" in text


def test_names_of_classes_are_text_and_nothing_else() -> None:
    classes: Sequence[str] = (HOSTILE, "green")
    page = page_of(subject(gallery(TRAIN, LABELS, ("rrrr", "rrrg"), (0, 1), classes=classes)))
    document = check_page(page)
    assert "alert(1)" not in " ".join(text for tag, text in document.texts if tag == "script")
    assert HOSTILE in document.text()


def test_an_image_that_went_away_leaves_its_place() -> None:
    images = gallery(TRAIN, LABELS, ("rrrr", "gggg"), (0, 1))
    asked = subject(images)
    known = neighbour_values(asked)["found"]
    images.source._bad = (0,)  # type: ignore[attr-defined]
    values = browser_values(asked, known)  # type: ignore[arg-type]
    assert values["notes"] == ["painting 0 can no longer be read: damaged."]
    section = Section(id="x", title="x", template="report_neighbours.html", values={"problem": None, **values})
    page = render_page("report.html", title="A run", lead="", sections=[section], styles=[], scripts=[])
    assert "painting 0 cannot be read" in [str(each.get("aria-label")) for each in check_page(page).all("span")]


def test_caps_are_told_and_unreadable_images_are_no_cap() -> None:
    images = gallery(TRAIN, LABELS, (*TRAIN, "rrgg"), (*LABELS, 0), bad=(3,), bad_tests=(4,))
    text = " ".join(check_page(page_of(subject(images))).text().split())
    assert "fixed choice" not in text and "Of 4 test images" in text
    capped = subject(gallery(TRAIN, LABELS, (*TRAIN, "rrgg"), (*LABELS, 0)), most_gallery=3, most_queries=2)
    text = " ".join(check_page(page_of(capped)).text().split())
    assert "A fixed choice of 3 of 4 images is searched." in text
    assert "Of 2 test images (a fixed choice among 5)," in text
