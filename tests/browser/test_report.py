"""The report in a real browser, without a package for it: chromium draws the page and writes down what it sees."""

import html
import re
import shutil
import subprocess

import numpy as np
import pytest

from seqloom.app.compare import compare
from seqloom.app.report import render
from seqloom.data.sequences import Sequences

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine"),
]
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    # it has no business in any network
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
]
DARK = "--blink-settings=preferredColorScheme=0"
LONG = "a-very-long-word-without-a-single-place-to-break-it-" * 4


def _symbols():
    words = [*"abcd", LONG]
    rows = [[words[(k + t) % (4 + (k % 7 == 0))] for t in range(5 + k % 4)] for k in range(60)]
    return compare(
        Sequences.of(rows, ids=[f"{LONG}{k}" for k in range(60)]), ["ngram", "alergia", "gru"], budget="8steps"
    )


def _values():
    rng = np.random.default_rng(0)
    rows = [np.sin(np.arange(40) / 3 + k) + 0.1 * rng.standard_normal(40) for k in range(40)]
    return compare(Sequences.of(rows), ["random_walk", "gru"], budget="8steps")


def _classes():
    words = ["abab" if k % 3 else "bbaa" for k in range(60)]
    return compare(Sequences.of(words, labels=["most" if k % 3 else "few" for k in range(60)]), ["ngram"])


@pytest.fixture(scope="module")
def pages():
    return {make.__name__[1:]: render(make()) for make in (_symbols, _values, _classes)}


def _seen(page: str, folder, *flags: str) -> tuple[str, list[str]]:
    """The page as it stands when its scripts are done, and what the browser complained about."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    done = _run(file, folder, "--dump-dom", *flags)
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr)


def _run(file, folder, *flags: str) -> subprocess.CompletedProcess:
    words = [BROWSER, *QUIET, f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=10000", *flags]
    return subprocess.run([*words, file.as_uri()], capture_output=True, encoding="utf-8", timeout=120, check=True)


def _measured(page: str, folder, width: int, measure: str, *flags: str) -> list[str]:
    """What an expression says of the page in a frame of some width: words with spaces between them."""
    frame = f'<iframe style="width: {width}px; height: 740px; border: 0" srcdoc="{html.escape(page)}"></iframe>'
    script = f"""<p id="measured"></p><script>
      addEventListener("load", () => setTimeout(() => {{
        const page = document.querySelector("iframe").contentDocument;
        document.getElementById("measured").textContent = ({measure}).join(" ");
      }}, 3000));</script>"""
    dom, complaints = _seen(f"<!doctype html><meta charset=utf-8>{frame}{script}", folder, *flags)
    assert complaints == []
    return re.search(r'<p id="measured">(.*?)</p>', dom)[1].split(" ")


@pytest.mark.parametrize("kind", ["symbols", "values", "classes"])
@pytest.mark.parametrize("flags", [(), (DARK,)], ids=["light", "dark"])
def test_every_chart_is_drawn_and_nothing_complains(pages, tmp_path, kind, flags):
    dom, complaints = _seen(pages[kind], tmp_path, *flags)
    plots = re.findall(r'<div class="plot[^>]*>(.*?)<details>', dom, re.S)
    assert len(plots) == pages[kind].count('class="plot"') >= 3
    assert all('class="main-svg"' in plot for plot in plots)
    assert complaints == []


def test_a_complaint_would_be_seen(pages, tmp_path):
    broken = pages["classes"].replace("const draw", "missing(); const draw")
    dom, complaints = _seen(broken, tmp_path)
    assert 'class="main-svg"' not in dom
    assert "missing" in complaints[0]


@pytest.mark.parametrize("kind", ["symbols", "values", "classes"])
def test_a_phone_shows_the_page_without_scrolling_sideways(pages, tmp_path, kind):
    measure = "[page.documentElement.clientWidth, page.documentElement.scrollWidth]"
    shown, wide = map(int, _measured(pages[kind], tmp_path, 360, measure))
    assert 340 <= shown == wide <= 360


def test_paper_is_white_and_as_wide_as_it_is(pages, tmp_path):
    """The rules for paper, put on a screen that is dark; charts drawn for a wide one."""
    page = pages["symbols"].replace("@media print", "@media all").replace("place.clientWidth", "900")
    measure = """[getComputedStyle(page.body).backgroundColor.replaceAll(" ", ""),
      ...[...page.querySelectorAll(".plot .main-svg")].flatMap((svg) => {
        const box = svg.getBoundingClientRect();
        return [Math.round(box.width), Math.round(box.height)];
      })]"""
    ground, *boxes = _measured(page, tmp_path, 700, measure, DARK)
    assert ground == "rgb(255,255,255)"
    widths, heights = [int(w) for w in boxes[::2]], [int(h) for h in boxes[1::2]]
    assert len(widths) >= 12
    assert all(200 < w < 350 for w in widths)
    assert all(80 < h < 200 for h in heights)


def test_it_prints(pages, tmp_path):
    file, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    file.write_text(pages["symbols"], encoding="utf-8")
    _run(file, tmp_path, DARK, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", paper.read_bytes())) <= 12
