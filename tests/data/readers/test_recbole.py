import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError, SeqloomError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers.recbole import Recbole
from seqloom.data.reading import read, reader_of, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import check_reader

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ROWS = [("007", "i1", "3", "20"), ("u2", "i2", "4.5", "5"), ("007", "i3", "", "10.5")]


def file_of(tmp_path, text, name="log.inter"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def inter(rows):
    return INTER + "".join("\t".join(row) + "\n" for row in rows)


def as_lists(sequences):
    return {sequences.ids[i]: sequences.sequence(i) for i in range(len(sequences))}


@pytest.mark.parametrize("suffix", [".inter", ".data"])
def test_contract(tmp_path, suffix):
    events = [["a", "b c", 'say "x"', "tab\there"], ["ä"], ["a", "a"]]
    times = [[0.5, 1.0, 2.0, 1e9], [3.0], [4.0, 4.0]]
    log = Sequences.of(events, ids=["007", "x,y", "z"], times=times, labels=["u", "v", "u"])
    check_reader(Recbole(), tmp_path, [log], suffix=suffix, columns=Columns(label="label"))
    check_reader(Recbole(), tmp_path, [Sequences.of(events)], suffix=suffix)


def test_interactions_are_grouped_by_user_and_sorted_by_time(tmp_path):
    path = file_of(tmp_path, inter(ROWS))
    sequences = read(path)
    assert as_lists(sequences) == {"007": ["i3", "i1"], "u2": ["i2"]}
    assert (sequences.rows.tolist(), sequences.start_times.tolist()) == ([2, 3], [10.5, 5.0])
    assert sequences.channels == ("rating",)
    assert sequences.channel("rating").flat[1:].tolist() == [3, 4.5]
    notes = " ".join(sniff(path).notes)
    assert all(flag in notes for flag in ("--case", "--event", "--time", "rating"))


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=4)


@given(st.lists(st.tuples(st.sampled_from("xyz"), CELL, st.integers(0, 9)), min_size=1, max_size=20))
def test_interactions_are_those_of_python_s_csv(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("recbole") / "a.inter"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["session_id:token", "item_id:token", "time:float"])
        writer.writerows(rows)
    want = {}
    for number, (user, item, time) in enumerate(csv.reader(io.StringIO(path.read_text("utf-8")), delimiter="\t")):
        if number:
            want.setdefault(user, []).append((float(time), number, item))
    assert as_lists(read(path)) == {user: [item for _, _, item in sorted(items)] for user, items in want.items()}


def test_items_are_their_words(tmp_path):
    text = (
        "item_id:token\ttitle:token_seq\tyear:token\tclass:token_seq\n1\tToy Story\t1995\tAnimation  Comedy\n2\t\t\tX\n"
    )
    path = file_of(tmp_path, text, "a.item")
    assert as_lists(read(path)) == {"1": ["Toy", "Story", "Animation", "Comedy"], "2": ["X"]}
    assert "title,class" in " ".join(sniff(path).notes)
    one = read(path, columns=Columns(event="class"))
    assert as_lists(one) == {"1": ["Animation", "Comedy"], "2": ["X"]}
    labelled = read(file_of(tmp_path, text.replace("\t\t\tX", "\tY\t7\tX"), "b.item"), columns=Columns(label="year"))
    assert labelled.labels == ["1995", "7"]


def test_tokens_with_spaces_stay_whole(tmp_path):
    path = file_of(tmp_path, "user_id:token\tjob:token\n1\thead of\n", "a.user")
    assert as_lists(read(path)) == {"1": ["head of"]}
    path = file_of(tmp_path, "user_id:token\tage:token\tjob:token\n1\t24\thead of\n", "b.user")
    with pytest.raises(DataError, match=r"row 1: no column is clearly the event.*--event: user_id, age, job"):
        read(path)
    assert as_lists(read(path, columns=Columns(event="age,job"))) == {"1": ["24", "head of"]}


@pytest.mark.parametrize(
    ("text", "columns", "words"),
    [
        (INTER, {}, "row 1: has a header but no rows"),
        (inter([*ROWS, ("u", "i", "good", "1")]), {}, r"row 5: the column 'rating' holds floats.*found 'good'"),
        (inter([*ROWS, ("u", "i", "1", "")]), {}, "row 5: there is no time"),
        (inter([*ROWS, ("", "i", "1", "1")]), {}, "row 5: the column 'user_id' is empty"),
        (inter([*ROWS, ("u", "i", "1", "1", "2")]), {}, "row 5: a row has 5 columns"),
        (
            inter(ROWS),
            {"event": "page"},
            r"row 1: there is no column 'page' \(asked for by --event, or by the model.*\).*rating",
        ),
        (inter(ROWS), {"text": "page"}, "--text means nothing"),
        ("user_id:token\titem\n1\t2\n", {}, r"row 1: a column of the header has no type \(found 'item'\)"),
        ("a:token\ta:float\n1\t2\n", {}, r"row 1: two columns have one name"),
        ("who:token\titem_id:token\n1\t2\n", {}, "row 1: no column is clearly the case.*--case: who, item_id"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, columns, words):
    with pytest.raises(DataError, match=words):
        read(file_of(tmp_path, text), columns=Columns(**columns))


def test_a_typed_header_is_enough_under_any_name(tmp_path):
    for name in ("a.csv", "a.tsv", "a.txt", "a.jsonl", "a"):
        assert isinstance(reader_of(Source(file_of(tmp_path, inter(ROWS), name))), Recbole)
    assert sniff(file_of(tmp_path, "case:id\tactivity\na\tb\n", "b.tsv")).reader == "table"


def error_of(path):
    """The words of the error that a file is refused with; None where it is read."""
    try:
        read(path)
    except SeqloomError as error:
        return str(error)
    return None


@given(st.data())
def test_broken_bytes_are_sequences_or_an_error_with_a_mend(tmp_path_factory, data):
    whole = inter([*ROWS, ('"quoted"', "x", "1", "2")]).encode()
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 200)) :]
    path = tmp_path_factory.mktemp("broken") / "a.inter"
    path.write_bytes(broken)
    words = error_of(path)
    assert words is None or str(path) in words


def test_quotes_are_letters_where_no_field_begins_with_one(tmp_path):
    path = tmp_path / "a.inter"
    path.write_text('user_id:token\titem_id:token\nu\t5" pipe\nu\tx\n')
    assert read(path).sequence(0) == ['5" pipe', "x"]


def test_only_events_can_be_interactions(tmp_path):
    for sequences in (Sequences.of(["text"]), Sequences.of([["a"], []])):
        with pytest.raises(DataError, match="can be interactions"):
            Recbole().write(sequences, tmp_path / "a.inter")
