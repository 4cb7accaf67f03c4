import re

import pytest

from seqloom.app.compare import Comparison, Entry, compare
from seqloom.app.report import render, write
from seqloom.data.sequences import Sequences

EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def found():
    data = Sequences.of(
        [[*[EVIL, "a", "b"][k % 3 :], "a", "b"] for k in range(40)], ids=[f"{EVIL}{k}" for k in range(40)]
    )
    return compare(data, ["ngram", "gru"], budget="8steps")


def test_the_page_needs_nothing_from_outside(found, tmp_path):
    page = write(found, tmp_path / "report.html").read_text()
    body = page.split("<script>")[0] + page.rsplit("</script>", 1)[1]
    assert not re.findall(r"(?:src|href)\s*=", body)
    assert "default-src 'none'" in body
    assert page.count("<script>") == page.count("</script>") == 2
    assert "viewport" in body
    assert "prefers-color-scheme: dark" in body


def test_what_a_user_wrote_is_text(found):
    page = render(found)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_names_of_models_cannot_leave_their_place(found):
    evil = Comparison(**{**vars(found), "entries": [Entry(EVIL, error=EVIL), *found.entries]})
    named = Comparison(**{**vars(found), "entries": [Entry(EVIL, arms=e.arms, row=e.row) for e in found.entries]})
    for one in (evil, named):
        assert "<script>alert" not in render(one)


def test_the_table_and_the_sentence_are_there(found):
    page = render(found)
    assert "is best with" in page
    for entry in found.entries:
        assert f"{entry.row.mean:.3f}" in page
    assert page.count("Plotly.react") >= 1
    assert all(title in page for title in ("Learning curves", "Quality and time", "Quality and size"))


def test_sequences_can_be_kept_out(found):
    assert "surprising" in render(found)
    hidden = render(found, hide_sequences=True)
    assert "surprising" not in hidden
    assert "alert" not in hidden.split("<script>")[0]


def test_a_comparison_without_results_has_a_page(found):
    failed = Comparison(**{**vars(found), "entries": [Entry("gru", error="out of memory")], "odd": []})
    page = render(failed)
    assert "out of memory" in page
    assert "Plotly" not in page
