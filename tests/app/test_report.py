import csv
import html.parser
import json
import re

import numpy as np
import polars as pl
import pytest

from seqloom.app.compare import Comparison, Entry, compare
from seqloom.app.report import render, write, write_table
from seqloom.app.report._details import details, places_of, spread
from seqloom.app.report._pictures import drawn, grown, pictures
from seqloom.app.report._sure import inside, sure
from seqloom.core.errors import ConfigError
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences
from seqloom.evaluation.by_prefix_length import ByPrefixLength
from seqloom.models.classical._automaton import Edge
from seqloom.training.prepare import encoded

READABLE = [("alergia", "The automaton of"), ("inductive_miner", "The process tree of")]
EVIL = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def found():
    data = Sequences.of(
        [[*[EVIL, "a", "b"][k % 3 :], "a", "b"] for k in range(40)], ids=[f"{EVIL}{k}" for k in range(40)]
    )
    return compare(data, ["ngram", "gru"], budget="8steps")


@pytest.fixture(scope="module")
def of_values():
    rng = np.random.default_rng(0)
    rows = [np.stack([np.sin(np.arange(20) / 3 + k), rng.standard_normal(20)], 1) for k in range(40)]
    return compare(Sequences.of(rows), ["random_walk", "gru"], budget="8steps")


@pytest.fixture(scope="module")
def of_forecasts():
    rows = [np.sin(np.arange(40) / 3 + k) for k in range(40)]
    return compare(Sequences.of(rows), ["random_walk", "gru"], budget="8steps", horizon=3)


@pytest.fixture(scope="module")
def of_classes():
    words = [("abab" if k % 3 else "bbaa") if k % 5 else "abba" for k in range(120)]
    labels = ["most" if k % 3 else "few" for k in range(120)]
    return compare(Sequences.of(words, labels=labels), ["ngram", "gru"], budget="8steps")


class _Outline(html.parser.HTMLParser):
    """What a screen reader goes by."""

    def __init__(self, page: str):
        super().__init__()
        self.headings: list[int] = []
        self.count: dict[str, int] = {}
        self.unnamed: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        own = dict(attributes)
        self.count[tag] = self.count.get(tag, 0) + 1
        self.ids += [own["id"]] if "id" in own else []
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if own.get("role") in ("img", "region") and not {"aria-label", "aria-labelledby"} & set(own):
            self.unnamed.append(tag)
        if tag == "th" and "scope" not in own:
            self.unnamed.append(tag)


def test_the_page_needs_nothing_from_outside(found, tmp_path):
    page = write(found, tmp_path / "report.html").read_text()
    body = page.split("<script>")[0] + page.rsplit("</script>", 1)[1]
    assert not re.findall(r"(?:src|href)\s*=", body)
    assert "default-src 'none'" in body
    assert page.count("<script>") == page.count("</script>") == 2
    assert "viewport" in body
    assert "prefers-color-scheme: dark" in body
    assert len(page) < 5_500_000


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
    titles = ("Learning curves", "Quality and time", "Quality and size", "Calibration", "Surprise by position")
    assert all(title in page for title in (*titles, "The most costly symbols", "What follows what"))


@pytest.mark.parametrize("kind", ["found", "of_values", "of_forecasts", "of_classes"])
def test_whoever_hears_the_page_gets_all_of_it(kind, request):
    seen = _Outline(render(request.getfixturevalue(kind)).split("<script>")[0])
    assert seen.headings[0] == 1
    assert seen.headings.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(seen.headings, seen.headings[1:], strict=False))
    assert seen.count["table"] == seen.count["caption"]
    assert seen.count["details"] >= seen.count["figure"] >= 4
    assert seen.unnamed == []
    assert len(seen.ids) == len(set(seen.ids))


def test_sequences_can_be_kept_out(found, of_classes):
    assert "surprising" in render(found)
    hidden = render(found, hide_sequences=True)
    assert "surprising" not in hidden.split("</style>")[1].split("<script>")[0]
    assert "alert" not in hidden.split("<script>")[0]
    assert "alert" not in hidden.rsplit("<script>", 1)[1]
    assert "abba" in render(of_classes)
    assert "abba" not in render(of_classes, hide_sequences=True).split("<script>")[0]


def test_a_comparison_without_results_has_a_page(found):
    failed = Comparison(**{**vars(found), "entries": [Entry("gru", error="out of memory")]})
    page = render(failed)
    assert "failed: out of memory" in page
    assert "Plotly" not in page


def test_a_model_without_its_package_is_skipped(found):
    other = Entry("mamba", error="mamba_ssm is not installed", skipped=True)
    page = render(Comparison(**{**vars(found), "entries": [*found.entries, other]}))
    assert "skipped: mamba_ssm is not installed" in page


def test_a_folder_that_is_gone_costs_the_closer_look_alone(cycles, tmp_path):
    import shutil

    compare(cycles, ["ngram"], out=tmp_path)
    again = compare(cycles, ["ngram"], out=tmp_path)
    shutil.rmtree(tmp_path / "arms")
    page = render(again)
    assert "Quality and time" in page
    assert "Calibration" not in page


@pytest.mark.parametrize("name", ["ngram", "gru"])
def test_how_sure_a_model_is_is_what_it_predicts(cycles, name):
    """Against the answers for every prefix, one after the other."""
    fitted = compare(cycles, [name], budget="40steps").entries[0].chosen.model()
    asked = cycles.select([0, 1, 2])
    confidence, hits = sure(fitted.engine, encoded(asked, fitted.tokenizer, None))
    want = []
    for number in range(len(asked)):
        letters = asked.sequence(number)
        for length in range(len(letters) + 1):
            first = fitted.predict([letters[:length]], top=1).row(0, named=True)
            came = letters[length] if length < len(letters) else "<eos>"
            want.append((first["probability"], first["symbol"] == came))
    assert np.sort(confidence) == pytest.approx(np.sort([p for p, _ in want]), rel=1e-4)
    assert np.sort(confidence[hits]) == pytest.approx(np.sort([p for p, hit in want if hit]), rel=1e-4)
    assert 0 < hits.sum() < len(hits)


def test_how_often_values_lie_inside_is_what_the_score_counts(of_values):
    fitted = of_values.entries[0].chosen.model()
    part = of_values.loaded.prepared.parts["test"]
    examples = encoded(part, fitted.tokenizer, fitted.engine.blueprint.features)
    curve = inside(fitted.engine, examples)
    assert curve.frequency_B[7] == pytest.approx(fitted.engine.score(examples)[1].flat.mean(), abs=1e-9)
    assert (np.diff(curve.frequency_B) >= 0).all()


def test_the_closer_look_adds_up(found, of_classes):
    seen = details(found)
    best = found.entries[0].arms[0].judgement
    assert sum(place.count for place in seen.places) == best.counted
    assert sum(place.error * place.count for place in seen.places) == pytest.approx(best.bits_N.sum())
    assert [place.first for place in seen.places][:3] == [1, 2, 3]
    assert sum(cost.share for cost in seen.costs) == pytest.approx(1)
    assert sum(cost.bits * cost.count for cost in seen.costs) == pytest.approx(best.bits_N.sum())
    assert seen.reliability.count_B.sum() == best.counted
    hardest = max(best.bits_N / best.count_N)
    assert seen.strips[0].bits == pytest.approx(hardest)
    assert [step.text for step in seen.strips[0].steps][-1] == "<eos>"
    told = details(of_classes)
    one = of_classes.entries[0].arms[0].judgement
    assert sum(cost.bits * cost.count for cost in told.costs) == pytest.approx(one.bits_N.sum())
    assert told.reliability.count_B @ told.reliability.frequency_B == pytest.approx(one.hits_N.sum())


def test_a_large_part_is_looked_at_here_and_there():
    part = Sequences.of(["ab" * 20] * 100)
    few = spread(part, 500)
    assert int(few.lengths.sum()) == 500
    assert set(few.ids) < set(part.ids)
    assert spread(Sequences.of(["ab" * 1000]), 500).lengths.tolist() == [500]
    assert spread(part, 5000) is part


def test_blanks_can_be_seen():
    seen = compare(Sequences.of(["a b\tc"] * 40), ["ngram"])
    assert {"␣", "⇥"} < {cost.name for cost in details(seen).costs}
    (picture,) = pictures(seen)
    assert {"␣", "⇥"} < {row[0] for row in picture.rows}


def test_far_positions_share_a_row():
    position_L = np.tile(np.arange(1, 1001), 30)
    kept = ByPrefixLength.of(Ragged(position_L.astype(float), np.arange(0, 30_001, 1000)))
    rows = places_of({"error": kept}, "next")
    assert len(rows) <= 32
    assert (rows[0].first, rows[-1].last) == (1, 1000)
    assert [row.first for row in rows[1:]] == [row.last + 1 for row in rows[:-1]]
    assert sum(row.error * row.count for row in rows) == pytest.approx(position_L.sum())
    assert places_of({}, "next") == []


@pytest.mark.parametrize(
    ("kind", "title"),
    [
        ("found", "Surprise by position"),
        ("of_values", "Surprise by position"),
        ("of_forecasts", "Error by steps ahead"),
        ("of_classes", "Bits by length"),
    ],
)
def test_where_it_is_surprised_is_what_the_comparison_keeps(kind, title, request):
    one = request.getfixturevalue(kind)
    seen = details(one)
    kept = one.by_prefix_length().filter(pl.col("model") == seen.name)
    shift = kind in ("found", "of_values")
    assert [place.first for place in seen.places] == (kept["from"] + shift).to_list()
    assert [place.error for place in seen.places] == kept[:, 5].to_list()
    assert (title in render(one)) == (len(seen.places) > 1)


def test_one_long_sequence_has_its_dearest_stretches():
    rng = np.random.default_rng(0)
    text = "ab" * 2000 + "".join(rng.choice(list("ab"), 400))
    seen = details(compare(Sequences.of([text]), ["ngram"]))
    assert len(seen.strips) == 5
    assert all(strip.about.startswith("positions") for strip in seen.strips)
    assert seen.strips[0].bits > 0.5


@pytest.mark.parametrize(
    ("name", "word"), [("alergia", "The automaton of"), ("inductive_miner", "The process tree of")]
)
def test_models_that_can_be_read_are_shown(cycles, name, word):
    found = compare(cycles, [name, "ngram"])
    (picture,) = pictures(found)
    assert picture.title == f"{word} {name}"
    assert picture.rows or "a" in picture.text
    assert word in render(found)


def test_an_automaton_is_drawn_from_its_beginning():
    edges = [Edge(5, 9, 6, 100), Edge(0, 7, 1, 50), Edge(1, 8, 5, 3), Edge(0, 8, 0, 2)]
    assert grown(edges, 3) == [edges[1], edges[2], edges[0]]
    drawing = drawn([(0, 1, "a", 3), (0, 1, "b", 3), (1, 0, "c", 1), (1, 1, "d", 1)])
    assert {name for name, _, _ in drawing.nodes} == {"0", "1"}
    assert sorted(way.words for way in drawing.ways) == ["a, b", "c", "d"]
    assert drawn([]) is None


def test_the_table_goes_to_files(found, tmp_path):
    evil = Comparison(**{**vars(found), "entries": [*found.entries, Entry(f"x|{EVIL}", error="no | luck")]})
    files = {
        ending: write_table(evil, tmp_path / f"t.{ending}").read_text() for ending in ("csv", "md", "json", "html")
    }
    rows = list(csv.DictReader(files["csv"].splitlines()))
    assert [float(row["bits_per_symbol"]) for row in rows[:-1]] == [entry.row.mean for entry in found.entries]
    assert rows[-1]["name"] == f"x|{EVIL}"
    assert rows[-1]["error"] == "no | luck"
    assert json.loads(files["json"])["models"][0]["name"] == found.entries[0].name
    lines = files["md"].splitlines()
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert len(lines) == 2 + len(evil.entries)
    for ending in ("md", "html"):
        assert "<script" not in files[ending]
        assert f"{found.entries[0].row.mean:.3f}" in files[ending]
    assert files["html"].count("<tr>") == 1 + len(evil.entries)


def test_the_table_of_a_forecast_has_its_further_measures(of_forecasts, tmp_path):
    rows = list(csv.DictReader(write_table(of_forecasts, tmp_path / "t.csv").read_text().splitlines()))
    assert float(rows[0]["mase"]) == of_forecasts.entries[0].row.mean
    assert of_forecasts.entries[0].further
    assert all(float(rows[0][name]) >= 0 for name in of_forecasts.entries[0].further)


def test_a_table_of_another_kind_is_refused(found, tmp_path):
    with pytest.raises(ConfigError, match=r"\.csv, \.md, \.json, \.html"):
        write_table(found, tmp_path / "t.docx")
