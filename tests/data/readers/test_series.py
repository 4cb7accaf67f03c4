import datetime as dt
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.readers.table import Table
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import check_reader

WHEN = dt.datetime(2024, 1, 1)


def table(content, tmp_path, name="series.csv", /, **columns):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return read(path, columns=Columns(**columns))


def as_lists(sequences):
    return {sequences.ids[i]: sequences.sequence(i).tolist() for i in range(len(sequences))}


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("unique_id,ds,y", {}),
        ("series,date,value", {}),
        ("sensor,timestamp,temperature", {}),
        ("item_id,timestamp,target", {}),
        ("id,time,y", {}),
        ("customer,day,what", {"value": "what"}),
        ("foo,bar,baz", {"case": "foo", "time": "bar", "value": "baz"}),
    ],
)
def test_long_tables_are_series_sorted_by_time(tmp_path, header, columns):
    rows = "a,2024-01-02,1.5\nb,2024-01-01,3\na,2024-01-01,2\n"
    sequences = table(f"{header}\n{rows}", tmp_path, **columns)
    assert as_lists(sequences) == {"a": [2.0, 1.5], "b": [3.0]}
    assert (sequences.kind, sequences.alphabet) == ("values", "values")
    assert sequences.value_names == (header.split(",")[2],)
    assert sequences.rows.tolist() == [2, 3]
    assert sequences.start_times.tolist() == [WHEN, WHEN]
    found = sniff(tmp_path / "series.csv", columns=Columns(**columns))
    assert (found.kind, found.task, found.notes) == ("values", "next", sequences.notes)
    assert any("--value" in note and "--event" in note for note in found.notes)


def test_other_columns_of_a_series_stay_channels_and_a_steady_class_is_its_label(tmp_path):
    rows = "a,1,1.5,7,up,x\na,2,2,8,up,y\nb,1,3,9,down,x\n"
    sequences = table("unique_id,ds,y,price,class,note\n" + rows, tmp_path)
    assert as_lists(sequences) == {"a": [1.5, 2.0], "b": [3.0]}
    assert sequences.channels == ("price", "note")
    assert sequences.channel("price").flat.tolist() == [7, 8, 9]
    assert sequences.labels == ["up", "down"]
    assert "class" in table("unique_id,ds,y,class\na,1,1,up\na,2,2,down\n", tmp_path).channels


def test_a_wide_table_is_one_sequence_of_several_channels(tmp_path):
    text = "date,HUFL,OT\n2024-01-02,1.5,3\n2024-01-01,2,4\n"
    sequences = table(text, tmp_path)
    assert as_lists(sequences) == {"series": [[2, 4], [1.5, 3]]}
    assert sequences.value_names == ("HUFL", "OT")
    assert any("(HUFL, OT); --value a,b picks others" in note for note in sequences.notes)
    one = table(text, tmp_path, value="OT")
    assert (as_lists(one), one.channels) == ({"series": [4, 3]}, ("HUFL",))
    indexed = table(",date,a\n0,2024-01-01,2\n1,2024-01-02,4\n", tmp_path)
    assert indexed.value_names == ("a",), "a saved index is no channel"


def test_numbers_without_a_time_are_a_series_only_where_that_is_asked_for(tmp_path):
    text = "a,b\n2,1\n1,3\n"
    with pytest.raises(DataError, match=r"not clear which column is what.*--value"):
        table(text, tmp_path)
    sequences = table(text, tmp_path, value="b,a")
    assert as_lists(sequences) == {"series": [[1, 2], [3, 1]]}
    assert any("no time column" in note for note in sequences.notes)


def test_a_column_called_event_makes_symbols(tmp_path):
    assert table("case,event,time,value\na,x,1,2.5\n", tmp_path).kind == "symbols"
    assert table("sensor,activity,time,value\na,x,1,2.5\n", tmp_path).kind == "symbols"
    assert table("case,event,time,value\na,x,1,2.5\n", tmp_path, value="value").kind == "values"


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        (
            "unique_id,ds,y\na,1,2\na,2,3\na,3,x\n",
            {},
            r"row 4: .*'y' holds what is no number \(found 'x'\).*1.5",
        ),
        ("unique_id,ds,y\na,1,2\na,2,\n", {}, "row 3: the column 'y' has a gap. Fill the gap"),
        ("unique_id,ds,y\na,1,2\na,2,nan\n", {}, r"row 3: .*no finite number \(found 'nan'\). Fill the gap"),
        ("unique_id,ds,y\na,1,-inf\n", {}, r"row 2: .*no finite number \(found '-inf'\)"),
        ("unique_id,ds,y\na,1,2\n,2,3\n", {}, "row 3: the column 'unique_id' is empty"),
        ("a,b\n1,2\n", {"value": "c"}, r"no column 'c' \(asked for by --value, or by the model's training data\)"),
        ("a,b\n1,2\n", {"value": "a", "event": "b"}, "--value and --event exclude each other"),
        (
            "patient,time,test,value\n1,2,hb,3.5\n",
            {},
            "event or a step.*--event test, or --value value",
        ),
        ("patient,time,temp\n1,2,3.5\n", {}, "numbers of temp are no events.*--value temp.*--event temp"),
        ("id,date,a,b\n7,1,1,2\n7,2,1,2\n", {}, "'id' names several time series.*--case id.*--value a,b"),
        ("series,sensor,time,y\n1,2,3,4\n", {}, "2 columns could be the case.*--case series, or --case sensor"),
    ],
)
def test_what_is_no_series_is_an_error_with_row_and_mend(tmp_path, text, columns, words):
    with pytest.raises(DataError, match=words) as caught:
        table(text, tmp_path, **columns)
    assert caught.value.mend
    assert "series.csv" in str(caught.value)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_contract_of_values_in_long_form(tmp_path, suffix):
    values = [np.array([0.5, -1.25, 3]), np.array([1e-300]), np.array([7, 1e20])]
    when = [[WHEN + dt.timedelta(hours=i) for i in range(len(items))] for items in values]
    wide = [np.stack([items, items + 1], 1) for items in values]
    examples = [
        Sequences.of(values, ids=["007", "x,y", "z"], times=when, labels=["u", "v", "u"], groups=["g", "h", "g"]),
        Sequences.of(values, times=[[float(i) + 0.5 for i in range(len(items))] for items in values]),
    ]
    check_reader(Table(), tmp_path, examples[:1], suffix=suffix, columns=Columns(group="group", value="value"))
    check_reader(Table(), tmp_path, examples[1:], suffix=suffix)
    check_reader(Table(), tmp_path, [Sequences.of(wide)], suffix=suffix, columns=Columns(value="value,value2"))


STEPS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 5), st.floats(allow_nan=False, allow_infinity=False)),
    min_size=1,
    max_size=20,
)


@given(STEPS)
def test_steps_are_grouped_and_sorted_stably_as_a_plain_loop_does(rows):
    sequences = read(pl.DataFrame(rows, schema=["series", "time", "y"], orient="row"))
    want = {}
    for series, time, value in rows:
        want.setdefault(series, []).append((time, value))
    want = {series: [value for _, value in sorted(steps, key=lambda step: step[0])] for series, steps in want.items()}
    assert as_lists(sequences) == want


def test_names_that_hold_a_comma_can_be_asked_for(tmp_path):
    sequences = table('time,"Temp, C",b\n1,2,3\n', tmp_path, value="b,Temp, C")
    assert sequences.value_names == ("b", "Temp, C")
    assert table('time,"Temp, C",b\n1,2,3\n', tmp_path).value_names == ("Temp, C", "b")


def test_nested_readings_are_a_series(tmp_path):
    row = {"sensor": 7, "readings": [{"time": 2, "value": 0.5}, {"time": 1, "value": 1}]}
    assert as_lists(table(json.dumps(row), tmp_path, "a.jsonl")) == {"7": [1, 0.5]}
