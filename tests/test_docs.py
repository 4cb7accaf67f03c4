"""Every example runs: the Python blocks of the pages, and the `>>>` lines of the docstrings."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
BLOCK = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
PAGES = [page for page in sorted(ROOT.glob("docs/**/*.md")) if BLOCK.search(page.read_text("utf-8"))]
SHOWING = [path for path in sorted(SRC.rglob("*.py")) if ">>> " in path.read_text("utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    """In the order of the page and in one namespace, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    text = page.read_text("utf-8")
    space: dict[str, object] = {"__name__": "page"}
    for found in BLOCK.finditer(text):
        lines_above = text.count("\n", 0, found.start(1))
        exec(compile("\n" * lines_above + found[1], str(page), "exec"), space)


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: path.relative_to(SRC).as_posix())
def test_examples_of_docstrings_hold(path):
    module = importlib.import_module(".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"))
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_words_of_a_claim_are_those_of_its_class(tmp_path, monkeypatch):
    pytest.importorskip("mkdocs")
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = importlib.import_module("gen_pages")
    file = tmp_path / "part.py"
    file.write_text(
        "statement = 'of nobody'\n"
        "class Part:\n"
        "    source: object = Source(authors='Ada', year=1843, arxiv='1.2')\n"
        "    statement = 'it ' 'holds'\n"
        "    def arms(self):\n"
        "        source = self.read('x')\n"
    )
    assert pages._class_words(file) == {"statement": "it holds", "source": "Ada 1843, arXiv:1.2"}
