"""The page of a diagnosis in a real browser: Chromium, where there is one; nothing is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from matplotlib import image

from jobs.io import Lake
from jobs.pages import docs
from tests.pages import told

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no chromium; install it (apt-get install chromium)"
)
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars",
)  # fmt: skip
PHONE = (390, 844)
NARROWEST = 500  # a window of Chromium; a phone's page is looked at in a frame within it
SCHEMES = {"dark": 0, "light": 1}  # as Blink numbers them
# Runs in a copy of the page, whose own policy lets no script run.
LOOK = """<script>
const box = document.documentElement, seen = (e) => e.getBoundingClientRect().height > 0;
const heading = [...document.querySelectorAll("h1, h2, h3")].find(seen);
const wide = [...document.querySelectorAll("body *")].filter(
  (e) => !e.closest(".wide, svg") && seen(e) && e.getBoundingClientRect().right > innerWidth + 1);
parent.postMessage(JSON.stringify({
  heading: heading.textContent, top: heading.getBoundingClientRect().top, inner: innerWidth,
  scroll: box.scrollWidth, wide: wide.map((e) => e.tagName + "." + e.className),
  back: getComputedStyle(document.body).backgroundColor,
  plots: document.querySelectorAll("svg").length,
  text: Math.min(...[...document.querySelectorAll("svg text")].map((e) =>
    e.getBoundingClientRect().height)),
}), "*");
</script>"""
FRAME = """<!doctype html><body style="margin:0"><iframe src="{page}"
style="border:0;width:{width}px;height:{height}px"></iframe><pre id="told"></pre><script>
addEventListener("message", (e) => {{ document.getElementById("told").textContent = e.data; }});
</script></body>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = Lake(tmp_path_factory.mktemp("browser") / "lake").open()
    told.lay(lake, told.told())
    return docs.build_one(lake, told.LABEL, lake.root / "docs")


def chromium(folder: Path, scheme: str, *arguments: str) -> str:
    done = subprocess.run(
        [str(CHROMIUM), *QUIET, f"--user-data-dir={folder / scheme}", "--virtual-time-budget=4000",
         f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2_000:]
    return done.stdout


def framed(page: Path, folder: Path, width: int, height: int) -> Path:
    frame = folder / f"frame-{width}.html"
    frame.write_text(FRAME.format(page=page.as_uri(), width=width, height=height))
    return frame


def looked_at(page: Path, folder: Path, scheme: str, width: int) -> dict:
    """What a script sees in the page, as wide as a phone or a desk."""
    copy = folder / "copy.html"
    text = re.sub(r"<meta http-equiv=[^>]*>", "", page.read_text(encoding="utf-8"))
    copy.write_text(text.replace("</body>", f"{LOOK}</body>"), encoding="utf-8")
    frame = framed(copy, folder, width, PHONE[1])
    dom = chromium(folder, scheme, f"--window-size={max(width, NARROWEST)},{PHONE[1]}",
                   "--dump-dom", frame.as_uri())  # fmt: skip
    found = re.search(r'<pre id="told">(\{.*?\})</pre>', dom, re.DOTALL)
    assert found is not None, dom[-2_000:]
    return json.loads(found[1].replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [PHONE[0], 1_200])
def test_the_verdict_is_seen_first_and_nothing_runs_over_the_edge(
    page: Path, tmp_path: Path, scheme: str, width: int
) -> None:
    seen = looked_at(page, tmp_path, scheme, width)
    assert seen["inner"] == width
    assert seen["heading"] == "No-go: fix the system"
    assert seen["top"] < PHONE[1] / 3, "without scrolling"
    assert seen["scroll"] <= width
    assert seen["wide"] == []
    assert seen["plots"] > 20
    assert seen["text"] >= 8, "words of a plot can be read, in pixels"
    light = sum(int(part) for part in re.findall(r"\d+", seen["back"])[:3]) / 3
    assert (light > 200) == (scheme == "light")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_screen_is_not_blank(page: Path, tmp_path: Path, scheme: str) -> None:
    shot = tmp_path / "shot.png"
    frame = framed(page, tmp_path, *PHONE)
    chromium(tmp_path, scheme, f"--window-size={NARROWEST},{PHONE[1]}", f"--screenshot={shot}",
             frame.as_uri())  # fmt: skip
    pixels = image.imread(shot)[: PHONE[1], : PHONE[0], :3]
    middle = pixels.mean(axis=2)
    back = float(middle[5, 5])
    assert (back > 0.8) == (scheme == "light")
    written = abs(middle - back) > 0.3
    assert 0.02 < written.mean() < 0.5, "words on a ground"
    assert written.any(axis=1).mean() > 0.4, "all the way down"
    red = pixels[:, :, 0] - pixels[:, :, 2]
    assert (red > 0.25).sum() > 500, "the verdict has its colour"


def test_it_prints_with_its_tables_open(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "page.pdf"
    chromium(tmp_path, "dark", "--no-pdf-header-footer", f"--print-to-pdf={paper}", page.as_uri())
    pages = paper.read_bytes().count(b"/Type /Page\n")
    assert pages > 20, "closed tables would leave two thirds of it"
