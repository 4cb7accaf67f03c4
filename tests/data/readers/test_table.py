import csv
import datetime as dt
import gzip
import io
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers import _order
from seqloom.data.readers.table import Table
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import check_reader

WORD = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=5).filter(str.strip)
WHEN = dt.datetime(2024, 1, 1)


def log(content, tmp_path, name="log.csv", /, **columns):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    return read(path, columns=Columns(**columns))


def as_lists(sequences):
    return {sequences.ids[i]: sequences.sequence(i) for i in range(len(sequences))}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_contract(tmp_path, suffix):
    events = [["a", "b c", 'say "x", y'], ["ä"], ["a", "a"]]
    when = [[WHEN + dt.timedelta(hours=i, microseconds=i) for i in range(len(items))] for items in events]
    logs = [
        Sequences.of(events, ids=["007", "x,y", "z"], times=when, labels=["u", "v", "u"], groups=["g", "h", "g"]),
        Sequences.of(events, times=[[float(i) + 0.5 for i in range(len(items))] for items in events]),
        Sequences.of(["plain text", 'with, "quotes"\nand lines'], labels=["x", "y"]),
    ]
    check_reader(Table(), tmp_path, logs[:1], suffix=suffix, columns=Columns(group="group"))
    check_reader(Table(), tmp_path, logs[1:2], suffix=suffix)
    check_reader(Table(), tmp_path, logs[2:], suffix=suffix, columns=Columns(text="text"))


ROWS = st.lists(st.tuples(st.sampled_from("xyz"), WORD, st.integers(0, 5)), min_size=1, max_size=25)


@given(ROWS, st.sampled_from(["none", "number", "second", "microsecond"]))
def test_events_are_grouped_and_sorted_stably_as_a_plain_loop_does(rows, clock):
    frame = pl.DataFrame(rows, schema=["case", "event", "time"], orient="row")
    frame = frame.with_columns(note="#" + pl.col("event"))  # never a number
    unit = {"second": 1_000_000, "microsecond": 700_001}.get(clock)
    if unit:
        frame = frame.with_columns(pl.from_epoch(pl.col("time") * unit, time_unit="us"))
    sequences = read(frame.drop("time") if clock == "none" else frame)
    want = {}
    for number, (case, event, time) in enumerate(rows, 1):
        want.setdefault(case, []).append((0 if clock == "none" else time, number, event))
    firsts = [min(number for _, number, _ in events) for events in want.values()]
    want = {case: [event for _, _, event in sorted(events)] for case, events in want.items()}
    assert as_lists(sequences) == want
    assert sequences.ids == list(want), "cases come in the order of their first row"
    assert sequences.rows.tolist() == firsts
    names = sequences.channel_symbols("note")
    assert [[names[code][1:] for code in codes] for codes in sequences.channel("note")] == list(want.values())


@given(st.lists(st.integers(0, 1 << 40) | st.integers(0, 3), max_size=30), st.booleans())
def test_radix_order_is_numpy_s_stable_order(keys, chained):
    keys = np.array(keys, dtype=np.int64)
    before = np.random.default_rng(0).permutation(len(keys)) if chained else None
    want = np.argsort(keys, kind="stable") if before is None else before[np.argsort(keys[before], kind="stable")]
    assert _order._radix(keys, before).tolist() == want.tolist()


def test_an_event_log_keeps_its_channels_labels_and_rows(tmp_path):
    sequences = log(
        "case,activity,timestamp,cost,who,label\n"
        "b,x,2024-01-02 10:00,1.5,ann,good\n"
        "a,y,2024-01-01 09:00,,bob,bad\n"
        "b,z,2024-01-01 08:00,3,,good\n",
        tmp_path,
        label="label",
    )
    assert as_lists(sequences) == {"b": ["z", "x"], "a": ["y"]}
    assert (sequences.kind, sequences.alphabet) == ("symbols", "events")
    assert sequences.rows.tolist() == [2, 3]
    assert sequences.labels == ["good", "bad"]
    assert sequences.start_times.tolist() == [dt.datetime(2024, 1, 1, 8), dt.datetime(2024, 1, 1, 9)]
    assert sequences.channels == ("cost", "who")
    np.testing.assert_array_equal(sequences.channel("cost").flat, [3, 1.5, np.nan])
    assert [sequences.channel_symbols("who")[code] for code in sequences.channel("who").flat] == ["", "ann", "bob"]


def test_several_columns_make_one_key(tmp_path):
    text = "user,session,page,action\nu,1,home,click\nu,2,cart,buy\nu,1,cart,view\n"
    sequences = log(text, tmp_path, case="user,session", event="page,action")
    assert as_lists(sequences) == {"u/1": ["home+click", "cart+view"], "u/2": ["cart+buy"]}


@pytest.mark.parametrize(
    ("times", "want"),
    [
        (["2024-01-31", "2024-02-01"], dt.datetime(2024, 1, 31)),
        (["31.01.2024 17:05", "01.02.2024 03:00"], dt.datetime(2024, 1, 31, 17, 5)),
        (["31/01/2024", "01/02/2024"], dt.datetime(2024, 1, 31)),
        (["01/31/2024", "02/01/2024"], dt.datetime(2024, 1, 31)),
        (["2024-01-31T10:00:00Z", "2024-02-01T10:00:00.5Z"], dt.datetime(2024, 1, 31, 10)),
        (["2024-01-31T10:00:00+02:00", "2024-02-01T10:00:00-01:00"], dt.datetime(2024, 1, 31, 8)),
        (["2024-01-31 10:00:00.25", "2024-01-31 10:00:01"], dt.datetime(2024, 1, 31, 10, 0, 0, 250000)),
        (["1706695200", "1706695201.5"], 1706695200.0),
    ],
)
def test_times_are_read_in_many_ways(tmp_path, times, want):
    sequences = log("case,event,time\n" + "".join(f"a,x,{time}\n" for time in reversed(times)), tmp_path)
    assert sequences.start_times.tolist() == [want]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("a,x,2024-01-01\na,y,2024-13-01\n", r"row 3: is no time \(found '2024-13-01'\)"),
        ("a,x,2024-01-01\na,y,\n", "row 3: there is no time"),
        ("a,x,soon\n", r"row 2: is no time \(found 'soon'\)"),
        ("a,x,01/02/2024\n", "row 2: times can be read in two ways: .*2024-02-01.* and .*2024-01-02"),
        (
            "a,x,01/01/2024\n" * 3 + "a,y,03/02/2024\n",
            r"row 5: .*two ways: %d/%m/%Y \(2024-02-03 00.* and %m/%d/%Y \(2024-03-02 00.*found '03/02/2024'",
        ),
        ("a,x,1\n" * 600 + "a,x,late\n", r"row 602: is no number like the times before it \(found 'late'\)"),
        ("a,x,nan\n", "row 2: is no finite time"),
    ],
)
def test_bad_times_are_found_by_row_and_value(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        log("case,event,time\n" + rows, tmp_path)


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        ("case,event\n", {}, "row 1: has a header but no rows"),
        ("case,event\na,x\n,y\n", {}, "row 3: the column 'case' is empty.*--case"),
        ("case,event\na,x\nb,\n", {}, "row 3: the column 'event' is empty.*--event"),
        ("case,event\na,x\nb,y,z\n", {}, "row 3: a row has 3 columns, the header has 2"),
        ('case,event\na,x\nb,"y\n', {}, "row 3: quotes do not match|is no readable table"),
        (
            "case,event\na,x\n",
            {"time": "when"},
            r"no column 'when' \(asked for by --time, or by the model.*\).*case \(a\), event \(x\)",
        ),
        ("user,session,item\n1,2,x\n", {}, "2 columns could be the case.*--case user, or --case session"),
        ("case,event,activity\na,x,y\n", {}, "2 columns could be the event.*--event event, or --event activity"),
        ("foo,bar\n1,2\n", {}, r"not clear which column is what.*--case and --event.*--text.*foo \(1\), bar \(2\)"),
        ("case,event,date,day\na,x,1,2\n", {}, "2 columns could be the time"),
        ("case,event,k\na,x,u\na,y,v\n", {"label": "k"}, "row 3: the label changes within a case.*before it was 'u'"),
        ("id,text\na,one\nb,\n", {}, "row 3: the column 'text' is empty"),
    ],
)
def test_what_is_unclear_or_missing_is_an_error_with_choices(tmp_path, text, columns, words):
    with pytest.raises(DataError, match=words) as caught:
        log(text, tmp_path, **columns)
    assert "log.csv" in str(caught.value)


def test_quotes_are_letters_where_no_field_begins_with_one(tmp_path):
    text = 'case,ev"ent,n\na,5" pipe,1\nb,6" x 2 pipe,2\nb,7" pipe,3\n'
    _, (_, first, _), *rest = csv.reader(io.StringIO(text))
    path, columns = tmp_path / "log.csv", Columns(case="case", event='ev"ent')
    for data in (text.encode(), gzip.compress(text.encode())):
        path.write_bytes(data)
        for block in (1, 1 << 26):
            got = Sequences.join(list(Table().batches(Source(path), columns, block=block)))
            assert as_lists(got) == {"a": [first], "b": [row[1] for row in rest]}


@pytest.mark.parametrize(
    ("text", "row"),
    [
        ('case,event\n"a, b",x\n"c\nd",y\ne,5" pipe\nf,z\n', 5),
        ('case,event\n"a",x\nb,y\ne,5" pipe\nf,6" pipe\ng,z\n', 4),
        ('ca"se,event\n"a ""b""",x\n', 1),
        ('case,event\nd,5"\n"q",5"\n"a",z\n', 2),
    ],
)
def test_a_quote_inside_a_field_is_named_where_others_are_quoted(tmp_path, text, row):
    mend = 'Double the quote and quote the field: "' + ("ca" if row == 1 else "5") + '""'
    for block in (1, 1 << 26):
        (tmp_path / "log.csv").write_text(text)
        with pytest.raises(DataError, match=f"row {row}: a quote stands inside .*{mend}"):
            list(Table().batches(Source(tmp_path / "log.csv"), Columns(case="case", event="event"), block=block))


def test_columns_of_one_name_are_told_and_refused_where_they_have_a_role(tmp_path):
    assert "two columns are called 'n': the further one is read as 'n_duplicated_0'" in (
        log("case,event,n,n\na,x,1,2\n", tmp_path).notes
    )
    twins = "case,event,event\na,x,y\n"
    with pytest.raises(
        DataError, match=r"row 1: two columns are called 'event'. Rename one.*--event event_duplicated_0"
    ):
        log(twins, tmp_path)
    assert as_lists(log(twins, tmp_path, event="event_duplicated_0")) == {"a": ["y"]}


def test_bad_bytes_are_found_by_row(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(b"case,event\na,x\na,caf\xe9\n")
    with pytest.raises(DataError, match="row 3: is not UTF-8"):
        read(path)
    path.write_bytes("case,event\na,x\n".encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16"):
        read(path)


@pytest.mark.parametrize("data", [b"PAR1garbage", b'{"case": 1}\n[1]\n', b'{"case": "a", "event": "x"}\n{"case": \n'])
def test_broken_parquet_and_json_are_named(tmp_path, data):
    path = tmp_path / "log.data"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"Parquet|row 2"):
        read(path)


def test_parquet_that_lies_inside_is_an_error_not_an_abort(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"case": ["a", "b"], "event": ["x", "y"]}).write_parquet(path)
    whole = path.read_bytes()
    for cut in (9, 40, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:cut] + whole[cut + 5 :])
        with pytest.raises(DataError, match=r"Parquet|column"):
            read(path)


def test_one_row_one_text(tmp_path):
    sequences = log('id,text,label\n7,"a, b",x\n07,c,y\n', tmp_path)
    assert as_lists(sequences) == {"7": "a, b", "07": "c"}
    assert (sequences.kind, sequences.labels) == ("text", ["x", "y"])
    found = sniff(tmp_path / "log.csv")
    assert (found.task, found.columns.text, found.columns.id) == ("classify", "text", "id")


@pytest.mark.parametrize(
    ("text", "name", "columns"),
    [
        ("id,events\n1,a b  c\n2,b\n", "a.csv", {}),
        ("id,sequence\n1,a b c\n2,b a\n3,c\n", "a.csv", {}),
        ("id,what\n1,a b c\n2,b\n", "a.csv", {"event": "what"}),
        ('{"id": 1, "items": ["a", "b", "c"]}\n{"id": 2, "items": ["b"]}\n', "a.jsonl", {}),
        ('{"id": 1, "items": [3, 4]}\n', "a.jsonl", {}),
    ],
)
def test_one_row_many_symbols(tmp_path, text, name, columns):
    sequences = log(text, tmp_path, name, **columns)
    assert sequences.kind == "symbols"
    assert sequences.sequence(0) in (["a", "b", "c"], ["3", "4"])


@pytest.mark.parametrize("end", ["\n", ""])
@pytest.mark.parametrize("rows", [1, 2])
def test_a_first_line_longer_than_the_head_is_read_whole(tmp_path, rows, end):
    items = [f"s{k % 7}" for k in range(30_000)]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(json.dumps({"id": k, "items": items}) for k in range(rows)) + end)
    assert path.stat().st_size > 1 << 16
    sequences = read(path)
    assert len(sequences) == rows
    assert sequences.sequence(rows - 1) == items


def test_a_sequence_column_with_letters_is_text_and_flags_override(tmp_path):
    assert log("id,sequence\n1,ACGTACGTACGT\n", tmp_path).alphabet == "dna"
    assert log("id,sequence\n1,a b c\n", tmp_path, text="sequence").kind == "text"
    note = sniff(tmp_path / "log.csv").notes[1]
    assert "--text sequence reads it the other way" in note


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_separators_marks_and_blank_ends(tmp_path, separator):
    path = tmp_path / "log"
    rows = [["case", "event"], ["a", "x"], ["a", "y"]]
    path.write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows) + "\r\n\r\n", encoding="utf-8")
    assert as_lists(read(path)) == {"a": ["x", "y"]}


def test_event_is_found_by_elimination_and_told(tmp_path):
    sequences = log("case,what,time,cost\na,x,1,5\na,y,2,6\n", tmp_path)
    assert as_lists(sequences) == {"a": ["x", "y"]}
    assert any("'what' is the event (--event" in note for note in sequences.notes)


def test_packed_tables_are_read(tmp_path):
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress(b"case,event\na,x\n"))
    assert as_lists(read(path)) == {"a": ["x"]}
    path.write_bytes(gzip.compress(b"case,event\n" + b"a,x\n" * 9999)[:-9])
    with pytest.raises(DataError, match="cut short"):
        read(path)


def test_json_lines_with_events_as_rows(tmp_path):
    rows = [{"case": 1, "event": "x", "n": 2}, {"case": 2, "event": "y"}, {"case": 1, "event": "z"}]
    sequences = log("".join(json.dumps(row) + "\n" for row in rows), tmp_path, "log.jsonl")
    assert as_lists(sequences) == {"1": ["x", "z"], "2": ["y"]}
    np.testing.assert_array_equal(sequences.channel("n").flat, [2, np.nan, np.nan])


def test_an_order_log_and_a_table_of_reviews_are_known_by_their_columns(tmp_path):
    orders = tmp_path / "orders.csv"
    orders.write_text("order_id;status;at;amount\n7;paid;2024-01-02;3\n7;new;2024-01-01;3\n")
    found = sniff(orders).columns
    assert (found.case, found.event, found.time) == ("order_id", "status", "at")
    reviews = tmp_path / "reviews.csv"
    reviews.write_text("review_id,body,stars\nr1,good,5\n")
    found = sniff(reviews, columns=Columns(label="stars")).columns
    assert (found.id, found.text, found.label) == ("review_id", "body", "stars")
    both = tmp_path / "both.csv"
    both.write_text("order_id,user,status\n7,u,paid\n")
    with pytest.raises(DataError, match=r"2 columns could be the case: order_id, user"):
        sniff(both)
