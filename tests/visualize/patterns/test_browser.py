"""The page of patterns in a real browser: a click or the address opens a patch, and the keyboard moves."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ibot_cli.visualize.patterns.page import patterns_page
from ibot_cli.visualize.patterns.tiles import Pictures
from tests.visualize.patterns.paintings import COMPARISON, RAGGED, find, other
from tests.visualize.report.test_browser import BROWSER, browse

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]

# Told through the title, as in the test of the report.
DRIVE = """
<script>
addEventListener("load", async () => {
  const steps = {};
  const dialog = document.getElementById("source");
  const wait = () => new Promise((done) => setTimeout(done, 60));
  const press = (key) =>
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  const tell = (name) => {
    const rect = dialog.querySelector("rect.patch.light");
    steps[name] = {
      open: dialog.open, hash: location.hash, focus: document.activeElement.id,
      caption: dialog.querySelector(".lightbox-caption").textContent,
      box: rect && [rect.getAttribute("x"), rect.getAttribute("y")],
      facts: dialog.querySelector("aside").textContent,
    };
  };
  await wait(); tell("address");
  dialog.querySelector("[data-close]").click(); await wait(); tell("closed");
  press("ArrowLeft"); tell("left");
  document.getElementById("patch-2-1").click(); await wait(); tell("clicked");
  press("ArrowRight"); await wait(); tell("stepped");
  dialog.dispatchEvent(new Event("cancel", {cancelable: true})); await wait(); tell("escaped");
  location.hash = "#random-1-1"; await wait(); tell("random");
  history.back(); await wait(); await wait(); tell("back");
  const width = () => document.querySelector(".grid a").offsetWidth;
  steps.sizes = [width()]; press("+"); steps.sizes.push(width()); press("-"); press("-"); steps.sizes.push(width());
  press("o"); steps.plain = document.querySelector(".pairs").classList.contains("plain");
  steps.stops = [...document.querySelectorAll(".grid a")].filter((link) => link.tabIndex === 0).length;
  document.title = JSON.stringify(steps);
});
</script>
"""


def title(dom: str) -> str:
    found = re.search(r"<title>(.*?)</title>", dom)
    assert found is not None
    return html.unescape(found.group(1))


def test_patches_open_their_images(tmp_path: Path) -> None:
    found = replace(find(), purity=COMPARISON)
    member = found.patterns[0].members[1]
    path = tmp_path / "page.html"
    start = '<script>history.replaceState(null, "", "#patch-1-2");</script></head>'  # before the page looks
    page = patterns_page(Pictures(RAGGED), found, beside=other(found))
    path.write_text(page.replace("</head>", start).replace("</body>", DRIVE + "</body>"), encoding="utf-8")
    dom, console, asked = browse(path, tmp_path)
    assert console == "" and asked == []
    told: dict[str, Any] = json.loads(title(dom))
    assert told["address"]["open"] and told["address"]["caption"] == "Pattern 1, prototype 3: 2 of 2"
    assert [float(edge) for edge in told["address"]["box"]] == pytest.approx(member.box[:2], abs=0.01)
    assert member.path in told["address"]["facts"] and "warm" in told["address"]["facts"]
    assert not told["closed"]["open"] and told["closed"]["focus"] == "patch-1-2"
    assert told["closed"]["hash"] == "#patch-1" and told["left"]["focus"] == "patch-1-1"
    assert told["clicked"]["open"] and told["clicked"]["hash"] == "#patch-2-1"
    assert told["stepped"]["hash"] == "#patch-2-2" and told["stepped"]["caption"].endswith("2 of 2")
    assert not told["escaped"]["open"] and told["escaped"]["focus"] == "patch-2-2"
    assert told["random"]["open"] and told["random"]["caption"].startswith("Random weights, pattern 1")
    assert not told["back"]["open"]
    whole, larger, smaller = told["sizes"]
    assert smaller < whole < larger and told["plain"]
    assert told["stops"] == len(found.patterns) + len(found.patterns) - 1


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_makes_the_page_wider_than_its_window(tmp_path: Path, width: int) -> None:
    found = replace(find(), purity=COMPARISON, classes=("a class with a rather long name", "b" * 60))
    page = html.escape(patterns_page(Pictures(RAGGED), found, beside=other(found)))
    script = "onload = () => { const d = frames[0].document; d.querySelectorAll('details').forEach(e => e.open = true);"
    script += " document.title = [d.documentElement.clientWidth, d.documentElement.scrollWidth]; }"
    framed = tmp_path / "framed.html"
    framed.write_text(f'<iframe width="{width}" height="900" srcdoc="{page}"></iframe><script>{script}</script>')
    dom, _, _ = browse(framed, tmp_path)
    inner, content = map(int, title(dom).split(","))
    assert width - 20 <= inner <= width and content <= inner
