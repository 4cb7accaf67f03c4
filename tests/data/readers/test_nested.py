import json

import numpy as np
import polars as pl
import pytest

from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.reading import read, sniff


def lines(tmp_path, *rows, name="log.jsonl", **columns):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read(path, columns=Columns(**columns))


def as_lists(sequences):
    return {sequences.ids[i]: sequences.sequence(i) for i in range(len(sequences))}


FIRST = {
    "case": 1,
    "label": "x",
    "events": [
        {"activity": "b", "time": "2024-01-02", "cost": 3, "who": {"name": "ann"}},
        {"activity": "a", "time": "2024-01-01"},
    ],
}


def test_events_inside_rows_become_rows(tmp_path):
    second = {"case": 2, "label": "y", "events": [{"activity": "a", "time": "2024-01-03", "who": {"name": "bob"}}]}
    sequences = lines(tmp_path, FIRST, second, {"case": 3, "label": "z", "events": []})
    assert as_lists(sequences) == {"1": ["a", "b"], "2": ["a"]}
    assert sequences.labels == ["x", "y"]
    assert sequences.rows.tolist() == [1, 2], "rows are lines of the file"
    assert sequences.channels == ("cost", "who.name")
    np.testing.assert_array_equal(sequences.channel("cost").flat, [np.nan, 3, np.nan])
    assert any("rows that hold no event are left out: 1" in note for note in sequences.notes)
    assert any("its events in 'events'" in note for note in sniff(tmp_path / "log.jsonl").notes)


def test_rows_are_named_by_an_id_or_by_their_number(tmp_path):
    events = [{"activity": "a", "id": 4}, {"activity": "b", "id": 5}]
    named = lines(tmp_path, {"id": "x", "events": events}, {"id": "y", "events": events[:1]})
    assert as_lists(named) == {"x": ["a", "b"], "y": ["a"]}
    assert named.channel("events.id").flat.tolist() == [4, 5, 4], "a name that the outer object has, too"
    assert as_lists(lines(tmp_path, {"events": events}, {"events": events[:1]})) == {"1": ["a", "b"], "2": ["a"]}
    twice = lines(tmp_path, {"id": "x", "events": events}, {"id": "x", "events": events[:1]})
    assert twice.ids == ["1", "2"], "an id that repeats names no row"
    assert lines(tmp_path, {"id": "x", "events": events}, case="id").ids == ["x"]
    own = lines(tmp_path, {"row": 7, "events": events})
    assert (own.ids, own.channel("row").flat.tolist()) == (["1"], [7, 7]), "a column called row is kept"
    twice = {"case": 1, "events": [{"activity": "a", "case": 2, "events": {"case": 3}}]}
    assert lines(tmp_path, twice).channels == ("events.case", "events.events.case")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([FIRST, FIRST, {"case": 2, "label": "y", "events": [{"activity": None}]}], "row 3: the column 'activity' is"),
        ([FIRST, FIRST, {"case": 2, "label": "y", "events": [{"activity": "a", "time": "soon"}]}], "row 3: is no time"),
        ([{"id": 1, "a": [{"x": 1}], "b": [{"x": 1}]}], "2 columns hold lists of objects: a, b"),
        ([{"id": 1, "events": [{"activity": "a"}]}, {"id": 2, "events": 3}], "no readable JSON lines|event"),
        (
            [{"case": 1, "events.case": 1, "events": [{"event": "x", "case": 2}]}],
            "two columns are called 'events.case'",
        ),
        ([{"case": 1, "event": "x", "a.b": 1, "a": {"b": 2}}], "two columns are called 'a.b'"),
    ],
)
def test_errors_name_the_line(tmp_path, rows, words):
    with pytest.raises(DataError, match=words) as caught:
        lines(tmp_path, *rows)
    assert "log.jsonl" in str(caught.value)


def test_deeply_nested_objects_are_refused(tmp_path):
    deep = 1
    for _ in range(50):
        deep = {"a": deep}
    with pytest.raises(DataError, match="more than 32 deep"):
        lines(tmp_path, {"case": 1, "event": "x", "deep": deep})


def test_a_file_that_is_one_array_is_read_likewise(tmp_path):
    path = tmp_path / "log.json"
    rows = [{"case": 1, "event": "x"}, {"case": 1, "event": "y"}, {"case": 2, "event": "x"}]
    path.write_text(json.dumps(rows, indent=2))
    sequences = read(path)
    assert as_lists(sequences) == {"1": ["x", "y"], "2": ["x"]}
    assert sequences.rows.tolist() == [1, 3], "rows are numbers of objects"
    path.write_text(json.dumps([FIRST]))
    assert as_lists(read(path)) == {"1": ["a", "b"]}
    path.rename(tmp_path / "data")
    assert as_lists(read(tmp_path / "data")) == {"1": ["a", "b"]}, "known without its ending"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"case": 1, "event": "x"}, 3]', "row 2: is no JSON object.*one object a line"),
        ('[{"case": 1,\n "event": ]', "row 2: is no JSON: .*one object a line"),
        ('[{"case": 1, "event": "x"}', "row 1: is no JSON"),
        ('{"case": [1],\n "event": ["x"]}', "row 1: is no JSON array"),
        ("[" * 100_000, "nested too deeply|is no JSON"),
        ('[{"case": 1, "event": [1]}, {"case": 2, "event": {"a": 1}}]', "is no readable JSON|event"),
        ("[]", "has no rows"),
    ],
)
def test_broken_arrays_are_named(tmp_path, text, words):
    path = tmp_path / "log.json"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert "log.json" in str(caught.value)


def test_frames_and_rows_in_memory_may_hold_events_too():
    assert as_lists(read([FIRST])) == {"1": ["a", "b"]}
    assert as_lists(read(pl.DataFrame([FIRST]))) == {"1": ["a", "b"]}
