import csv
import hashlib
import re
import subprocess
import sys
from collections import Counter
from datetime import datetime
from itertools import groupby, pairwise

import pytest

from seqloom.core.errors import ConfigError
from seqloom.data import samples

ALL = ("austen", "flights", "lambda", "novels", "seattle")
FACTS = {"name", "file", "description", "kind", "source", "url", "licence", "evidence", "made", "bytes", "sha256"}
FOLDER = samples.path("flights").parent


def rows(name):
    with samples.path(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def genome():
    header, *lines = samples.path("lambda").read_text("ascii").splitlines()
    assert header == ">NC_001416.1 Enterobacteria phage lambda, complete genome"
    return "".join(lines)


def test_the_names_are_those_of_the_files():
    assert samples.names() == ALL
    data = {p.name for p in FOLDER.iterdir() if p.suffix not in {".json", ".LICENSE", ".md", ".py"} and p.is_file()}
    assert data == {samples.about(name)["file"] for name in ALL}


def test_an_unknown_name_is_answered_with_the_known_ones():
    for ask in (samples.path, samples.about):
        with pytest.raises(ConfigError, match=r"'fligths'.*austen, flights, lambda, novels, seattle"):
            ask("fligths")


@pytest.mark.parametrize("name", ["../samples/flights", "flights.csv", "", "*"])
def test_a_name_is_no_path(name):
    with pytest.raises(ConfigError):
        samples.about(name)


@pytest.mark.parametrize("name", ALL)
def test_the_facts_fit_the_file(name):
    facts, data = samples.about(name), samples.path(name).read_bytes()
    assert set(facts) == FACTS
    assert all(facts.values())
    assert facts["name"] == name == samples.path(name).stem
    assert len(data) == facts["bytes"]
    assert hashlib.sha256(data).hexdigest() == facts["sha256"]


@pytest.mark.parametrize("name", ALL)
def test_licence_and_source_lie_beside_the_file(name):
    first = (FOLDER / f"{name}.LICENSE").read_text("utf-8").splitlines()[0]
    assert first.startswith(f"{samples.about(name)['file']}: ")
    assert re.search(r"CC0|public domain|public record", first)
    assert samples.about(name)["url"].startswith("https://")
    assert samples.about(name)["file"] in (FOLDER / "SOURCES.md").read_text("utf-8")


def test_all_together_stay_below_two_megabytes():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) <= 2_000_000


def test_the_import_is_light():
    code = "import sys; from seqloom.data import samples; samples.names(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_flights_is_an_event_log_in_the_order_of_time():
    log = rows("flights")
    assert list(log[0]) == ["case", "activity", "timestamp", "carrier", "delay"]
    cases = [(case, list(events)) for case, events in groupby(log, key=lambda row: row["case"])]
    assert len({case for case, _ in cases}) == len(cases) == 1042
    assert len(log) == 22_177
    starts = []
    for case, events in cases:
        times = [datetime.strptime(row["timestamp"], "%Y-%m-%d %H:%M") for row in events]
        assert len(events) >= 12
        assert all(a <= b for a, b in pairwise(times)), case
        assert len({row["carrier"] for row in events}) <= 2, case
        starts.append(times[0])
    assert starts == sorted(starts)


def test_flights_are_departures_from_new_york():
    log = rows("flights")
    assert {row["activity"][:3] for row in log} == {"EWR", "JFK", "LGA"}
    assert all(re.fullmatch(r"[A-Z]{3}-[A-Z]{3}", row["activity"]) for row in log)
    assert len({row["activity"] for row in log}) == 196
    assert all(-60 <= int(row["delay"]) <= 1440 for row in log)


def test_flights_are_learnable_from_the_history_of_the_aircraft():
    by_case = [[row["activity"] for row in events] for _, events in groupby(rows("flights"), key=lambda r: r["case"])]
    routes = Counter(route for case in by_case for route in case)
    # an aircraft comes back to the first route of its month far more often than chance
    again = sum(case.count(case[0]) - 1 for case in by_case) / sum(len(case) - 1 for case in by_case)
    chance = sum(n * n for n in routes.values()) / sum(routes.values()) ** 2
    assert again > 5 * chance


def test_austen_is_plain_text_one_sentence_a_line():
    text = samples.path("austen").read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) == 3580
    assert lines[0] == "Chapter 1"
    assert lines[1].startswith("Sir Walter Elliot, of Kellynch Hall, in Somersetshire")
    assert lines[-1].endswith("its national importance.")
    assert [line for line in lines if line.startswith("Chapter ")] == [f"Chapter {i}" for i in range(1, 25)]
    assert all(line == line.strip() and line for line in lines)
    assert "gutenberg" not in text.lower()
    assert text.isascii()
    assert set(text) - {"\n"} <= {chr(code) for code in range(32, 127)}


def test_novels_are_balanced_and_take_turns():
    table = rows("novels")
    assert list(table[0]) == ["id", "text", "label"]
    assert [row["label"] for row in table] == ["emma", "pride", "sense"] * 290
    assert len({row["id"] for row in table}) == len({row["text"] for row in table}) == len(table)
    assert all(80 <= len(row["text"]) <= 480 for row in table)
    assert table[1]["text"].startswith("It is a truth universally acknowledged")
    assert not any("_" in row["text"] for row in table)


def test_seattle_is_every_day_of_four_years_with_its_summers_and_wet_winters():
    table = rows("seattle")
    assert list(table[0]) == ["date", "precipitation", "temp_max", "temp_min", "wind"]
    days = [datetime.strptime(row["date"], "%Y-%m-%d") for row in table]
    assert [(later - day).days for day, later in pairwise(days)] == [1] * 1460
    assert (days[0], days[-1]) == (datetime(2012, 1, 1), datetime(2015, 12, 31))
    assert all(float(row["temp_min"]) <= float(row["temp_max"]) for row in table)
    august, december = ([row for row in table if row["date"][5:7] == month] for month in ("08", "12"))
    warm, cold = (sum(float(row["temp_max"]) for row in month) / len(month) for month in (august, december))
    assert warm - cold > 15
    wet, dry = (sum(float(row["precipitation"]) for row in month) for month in (december, august))
    assert wet > 3 * dry


def test_lambda_is_the_record_of_its_length():
    dna = genome()
    assert len(dna) == 48_502
    assert Counter(dna).keys() == set("ACGT")
    assert dna.startswith("GGGCGGCGACCT")  # the cohesive end


@pytest.mark.parametrize(
    ("site", "places"),
    [
        ("GAATTC", [21226, 26104, 31747, 39168, 44972]),  # EcoRI
        ("GGATCC", [5505, 22346, 27972, 34499, 41732]),  # BamHI
        ("AAGCTT", [23130, 25157, 27479, 36895, 37459, 44141]),  # HindIII
        ("GTCGAC", [32745, 33244]),  # SalI
        ("CTCGAG", [33498]),  # XhoI
        ("GGGCCC", [10086]),  # ApaI
        ("GCGGCCGC", []),  # NotI
    ],
)
def test_lambda_is_cut_where_the_restriction_maps_say(site, places):
    assert [match.start() + 1 for match in re.finditer(site, genome())] == places
