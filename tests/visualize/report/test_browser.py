"""The report in a real browser: nothing on the console, no request, and the keyboard works."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ibot_cli.visualize.report.report import write_report
from ibot_cli.visualize.report.samples.options import SampleOptions
from tests.train import runs
from tests.visualize.pages.document import check_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")]

NO_PAGE = "not an origin"
# Told through the title, which --dump-dom shows: the policy of the page allows no other way out.
DRIVE = """
<script>
addEventListener("load", () => {
  const told = {};
  const box = document.getElementById("lightbox");
  const [first, second] = [...document.querySelectorAll("button.zoom")].filter((b) => b.offsetParent);
  first.focus(); first.click();
  told.opened = box.open && document.activeElement !== first;
  told.caption = box.querySelector(".lightbox-caption").textContent;
  box.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
  told.moved = box.querySelector(".lightbox-caption").textContent !== told.caption;
  box.close();
  const toggle = document.getElementById("theme");
  told.theme = [toggle.textContent];
  for (let i = 0; i < 3; i++) {
    toggle.click(); told.theme.push(toggle.textContent + " " + getComputedStyle(document.body).backgroundColor);
  }
  told.copies = document.querySelectorAll("button.copy:not([hidden])").length;
  told.focusable = document.querySelectorAll("a[href], button:not([hidden]), summary, [tabindex='0']").length;
  setTimeout(() => {
    told.closed = !box.open && document.activeElement === second;
    document.title = JSON.stringify(told);
  }, 50);
});
</script>
"""


def browse(page: Path, folder: Path, *options: str) -> tuple[str, str, list[str]]:
    """The document after its scripts ran, the console's lines, and what was asked for over a network."""
    log = folder / "network.json"
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", *options, "--disable-gpu", "--enable-logging=stderr", "--v=0",
            "--disable-background-networking", "--disable-component-update", "--no-first-run", f"--log-net-log={log}",
            f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=2000", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    told = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    text = log.read_text()
    events = json.loads(text if text.rstrip().endswith("}") else text.rstrip().rstrip(",") + "]}")["events"]
    # what the browser asks for by itself has no page that began it
    asked = [event["params"] for event in events if event.get("params", {}).get("initiator", NO_PAGE) != NO_PAGE]
    urls = {str(params.get("url", "")) for params in asked}
    return done.stdout, "\n".join(told), sorted(url for url in urls if url.startswith(("http", "ws", "ftp")))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    images = runs.make_images(folder / "images")
    run = folder / "run"
    runs.pretrain(images, run)
    return write_report(run, samples=SampleOptions(cache=False, queries=4)).path


def test_the_whole_report(report: Path, tmp_path: Path) -> None:
    document = check_page(report.read_text(encoding="utf-8"))
    assert {"patterns", "neighbours"} <= set(document.ids()) and document.all("img")
    _, console, asked = browse(report, tmp_path)
    assert console == "" and asked == []


def test_a_request_would_be_seen_and_is_forbidden(report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8").replace("</main>", '<img src="http://localhost:9/x.png"></main>')
    page = tmp_path / "page.html"
    page.write_text(text, encoding="utf-8")
    _, console, asked = browse(page, tmp_path)
    assert "Content Security Policy" in console and asked == []
    page.write_text(re.sub("<meta http-equiv=[^>]*>", "", text), encoding="utf-8")
    _, console, asked = browse(page, tmp_path)
    assert asked == ["http://localhost:9/x.png"]


def test_keyboard_lightbox_and_themes(report: Path, tmp_path: Path) -> None:
    driven = tmp_path / "driven.html"
    driven.write_text(report.read_text(encoding="utf-8").replace("</body>", DRIVE + "</body>"), encoding="utf-8")
    dom, console, _ = browse(driven, tmp_path)
    assert console == ""
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title is not None
    told = json.loads(html.unescape(title.group(1)))
    assert told["opened"] and told["moved"] and told["closed"] and told["caption"]
    assert [text.split(" rgb")[0] for text in told["theme"]] == [
        f"Theme: {t}" for t in ("automatic", "light", "dark", "automatic")
    ]
    assert told["theme"][1].split("rgb")[1] != told["theme"][2].split("rgb")[1]
    assert told["copies"] >= 3 and told["focusable"] > 40


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_makes_the_page_wider_than_its_window(report: Path, tmp_path: Path, width: int) -> None:
    # in a frame, because a window has a least width
    framed = tmp_path / "framed.html"
    text = html.escape(report.read_text(encoding="utf-8"))
    script = "onload = () => { const d = frames[0].document; d.querySelectorAll('details').forEach(e => e.open = true);"
    script += " document.title = [d.documentElement.clientWidth, d.documentElement.scrollWidth]; }"
    framed.write_text(f'<iframe width="{width}" height="900" srcdoc="{text}"></iframe><script>{script}</script>')
    dom, _, _ = browse(framed, tmp_path)
    title = re.search(r"<title>(\d+),(\d+)</title>", dom)
    assert title is not None
    inner, content = map(int, title.groups())
    assert width - 20 <= inner <= width and content <= inner
