"""What the tests need of an HTML page."""

import itertools
from html.parser import HTMLParser

VOID = {"area", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "circle", "path"}


class Document(HTMLParser):
    """Reads a page strictly enough for tests: every element that is opened is closed, in order.

    Attributes:
        elements: (name, attributes) in the order of the page.
        texts: Text by the name of the element right around it.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == [], f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"<{tag}> repeats an attribute"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1] if self._open else "", data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of this name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.elements if "id" in attributes]

    def text(self) -> str:
        """What a reader sees."""
        return " ".join(text for tag, text in self.texts if tag not in ("script", "style"))


def check_page(page: str) -> Document:
    """What must hold for every page: it is whole, accessible, and asks nobody for anything."""
    document = Document(page)
    assert page.startswith("<!doctype html>")
    assert document.all("html") == [{"lang": "en"}]
    assert len(document.ids()) == len(set(document.ids()))
    for _, attributes in document.elements:
        for name in ("src", "href", "data-full", "poster", "action", "xlink:href"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), target
        if (target := attributes.get("href") or "").startswith("#"):
            assert target[1:] in document.ids(), f"{target} leads nowhere"
        for name in ("aria-labelledby", "aria-describedby"):
            for each in (attributes.get(name) or "").split():
                assert each in document.ids(), f"{each} describes nothing"
    styles = " ".join(text for tag, text in document.texts if tag == "style")
    assert "url(" not in styles and "@import" not in styles
    assert all(image.get("alt") is not None for image in document.all("img"))
    levels = [int(tag[1]) for tag, _ in document.elements if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels
    policy = [meta["content"] for meta in document.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1 and str(policy[0]).startswith("default-src 'none'; img-src data:;")
    return document
