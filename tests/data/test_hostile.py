"""What arrives broken: every reader gives sequences, or an error that names the file, the row if any, and a mend.

Files are written by the readers themselves and then damaged. How many were made is appended to the file that
SEQLOOM_COUNT_FILES names.
"""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seqloom.cli import main
from seqloom.core.errors import DataError, SeqloomError
from seqloom.data import readers
from seqloom.data.columns import Columns
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import damaged
from seqloom.tokenizers.symbols import Symbols

NOISE = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8).tobytes()
SUFFIXES = {"fasta": ".fa", "midi": ".mid", "npy": ".npz", "recbole": ".inter", "table": ".csv", "text": ".txt"}


def refusal(path, words, reader=None, /, **columns):
    """The error of a file: it names the file and a mend."""
    with pytest.raises(DataError, match=words) as caught:
        read(path, columns=Columns(**columns), reader=reader)
    assert str(path) in str(caught.value)
    assert caught.value.mend
    return caught.value


@pytest.mark.parametrize("reader", [None, *readers.names()])
def test_nothing_where_a_file_should_be(tmp_path, reader):
    (tmp_path / "empty").write_bytes(b"")
    refusal(tmp_path / "empty", "is empty", reader)
    refusal(tmp_path / "absent", "no such file", reader)
    refusal(tmp_path, "is a directory", reader)


@pytest.mark.parametrize("reader", [None, *readers.names()])
@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x1f\x8b" + NOISE, "gzip file is damaged"),
        (b"\x28\xb5\x2f\xfd" + NOISE, "zstd file is damaged"),
        (gzip.compress(b"case,event\n" + NOISE, mtime=0)[:-600], "gzip file is cut short"),
        (gzip.compress(b"", mtime=0), "."),
        (NOISE, "."),
        (b"\0" * 999, "."),
        ("case,event\na,x\n".encode("utf-16"), "."),
        ("case,event\na,x\n".encode("utf-32"), "."),
        ("case,event\na,x\n".encode("utf-16-be"), "."),
    ],
    ids=["gzip", "zstd", "cut", "nothing", "noise", "zeros", "utf-16", "utf-32", "utf-16-be"],
)
def test_bytes_that_are_no_data(tmp_path, reader, data, words):
    (tmp_path / "noise").write_bytes(data)
    refusal(tmp_path / "noise", words, reader)


@pytest.mark.parametrize("reader", ["fasta", "table", "text"])
def test_a_gzip_bomb_does_not_fill_the_memory(tmp_path, reader):
    path = tmp_path / "bomb"
    start, line = (
        (b">x\n", b"A" * 999_999 + b"\n") if reader == "fasta" else (b"case,event\n", b"a," + b"A" * 999_999 + b"\n")
    )
    path.write_bytes(gzip.compress(start) + gzip.compress(line) * 110)
    refusal(path, "unpacks to", reader)


@pytest.mark.parametrize(
    ("data", "row", "words"),
    [
        (b"case,event\n", 1, "has a header but no rows"),
        (b"case,event\na,x\n,y\n", 3, "'case' is empty.*--case"),
        (b"case,event\na,x\na,\n", 3, "'event' is empty.*--event"),
        (b"case,event\na,x\na,caf\xe9\n", 3, "is not UTF-8.*iconv"),
        (b"case,event\na,x\na,y,z\n", 3, "a row has 3 columns, the header has 2"),
        (b"case,event,time\na,x,2024-01-31\na,y,2024-02-30\n", 3, r"is no time \(found '2024-02-30'\).*--time"),
        (b"case,event,time\na,x,2024-01-31\na,y,\n", 3, "there is no time"),
        (b"case,event,time\na,x,1e999\n", 2, r"no finite time \(found inf\)"),
        (b"case,event,time\na,x,03/04/2024\n", 2, "read in two ways"),
        (b"user,session,item\n1,2,x\n", 1, "2 columns could be the case: user, session.*--case user"),
        (b"foo,bar\n1,2\n", 1, "not clear which column is what.*--case and --event"),
        (b"unique_id,ds,y\na,1,1\na,2,\n", 3, "'y' has a gap"),
        (b"unique_id,ds,y\na,1,1\na,2,NaN\n", 3, r"'y' holds no finite number \(found 'NaN'\)"),
        (b'{"case": 1, "event": "x"}\n\n{"case": 1, "event":\n', 3, "is no JSON"),
        (b'{"case": 1, "event": "x"}\n{"case": 1, "event": null}\n', 2, "'event' is empty"),
        (b">a\nACGT\n>b\nAC1T\n", 3, "begins here has something else than letters"),
        (b"@a\nACGT\n+\n!!!\n", 4, "qualities differ"),
    ],
)
def test_one_bad_row_is_named(tmp_path, data, row, words):
    path = tmp_path / "bad"
    path.write_bytes(data)
    error = refusal(path, words)
    assert error.row == row


@pytest.mark.parametrize("ends", [b"\n", b"\r\n", b"mixed"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_marks_make_no_difference(tmp_path, ends, mark):
    lines = [b"case,event", b"a,x", b"b,y", b"a,z"]
    if ends == b"mixed":
        data = lines[0] + b"\r\n" + lines[1] + b"\n" + lines[2] + b"\r\n" + lines[3]
    else:
        data = ends.join(lines) + ends
    (tmp_path / "log.csv").write_bytes(mark + data)
    sequences = read(tmp_path / "log.csv")
    assert [sequences.sequence(i) for i in range(2)] == [["x", "z"], ["y"]]
    (tmp_path / "log.txt").write_bytes(mark + data)
    sequences = read(tmp_path / "log.txt")
    assert [sequences.sequence(i).encode() for i in range(4)] == lines


@pytest.mark.parametrize(
    ("name", "data", "want"),
    [
        ("a.csv", b"case,event\na,x\n", ["x"]),
        ("a.txt", b"x", "x"),
        ("a.fa", b">a\nA\n", "A"),
        ("a.jsonl", b'{"case": 1, "event": "x"}', ["x"]),
        ("a.json", b'[{"case": 1, "event": "x"}]', ["x"]),
        ("a.csv", b"unique_id,ds,y\na,1,0.5\n", [0.5]),
    ],
)
def test_one_sequence_of_one_symbol_is_enough(tmp_path, name, data, want):
    (tmp_path / name).write_bytes(data)
    sequences = read(tmp_path / name)
    assert len(sequences) == 1
    assert list(sequences.sequence(0)) == list(want)


def test_ids_that_repeat_are_kept_with_a_note(tmp_path):
    (tmp_path / "a.csv").write_text("id,text\nx,one\nx,two\n")
    sequences = read(tmp_path / "a.csv")
    assert sequences.ids == ["x", "x"]
    assert "ids repeat: 2 sequences have 1 of them" in sequences.notes[-1]


def test_a_line_of_ten_million_symbols(tmp_path):
    path = tmp_path / "long.txt"
    path.write_bytes(b"ACGTTGCA" * 1_250_000)
    assert read(path).lengths.tolist() == [10_000_000]
    path.write_bytes(b"id,events\n1," + b"a b " * 2_500_000 + b"c\n")
    sequences = read(path, reader="table", columns=Columns(event="events"))
    assert sequences.lengths.tolist() == [5_000_001]


def test_a_vocabulary_of_a_million(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("case,event\n" + "".join(f"c{i % 1000},e{i}\n" for i in range(1_000_000)))
    sequences = read(path)
    tokenizer = Symbols()
    tokenizer.fit(sequences)
    assert len(sequences) == 1000
    assert tokenizer.encode(sequences).total >= 1_000_000


KINDS = {
    "dna": st.lists(st.text("ACGT", min_size=1, max_size=30), min_size=1, max_size=6).map(Sequences.of),
    "text": st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12),
        min_size=1,
        max_size=6,
    ).map(Sequences.of),
    "symbols": st.lists(
        st.lists(st.sampled_from(["60", "61", "a", "b c", 'say "x"', "ä"]), min_size=1, max_size=9),
        min_size=1,
        max_size=5,
    ).map(lambda items: Sequences.of(items, times=[[float(at) for at in range(len(item))] for item in items])),
    "notes": st.lists(
        st.lists(st.sampled_from(["60", "61", "72"]), min_size=1, max_size=9), min_size=1, max_size=3
    ).map(lambda items: Sequences.of(items, times=[[0.5 * at for at in range(len(item))] for item in items])),
    "values": st.lists(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=9), min_size=1, max_size=5).map(
        lambda items: Sequences.of([np.array(item) for item in items])
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reader", readers.names())
def test_damaged_files_give_sequences_or_an_error_that_is_meant(tmp_path, reader, kind):
    path, written = tmp_path / f"file{SUFFIXES.get(reader, f'.{reader}')}", []

    @given(KINDS[kind], st.integers(0, 1 << 32), st.integers(0, 3), st.booleans())
    def check(sequences, seed, accidents, packed):
        try:
            readers.get(reader)().write(sequences, path)
        except DataError:
            return  # a kind that this format does not hold
        data, rng = path.read_bytes(), np.random.default_rng(seed)
        for _ in range(accidents):
            data = damaged(data, rng)
        path.write_bytes(gzip.compress(data) if packed else data)
        written.append(len(data))
        for asked in (reader, None):
            try:
                assert isinstance(read(path, reader=asked), Sequences)
                sniff(path, reader=asked)
            except SeqloomError as error:
                assert str(error)  # noqa: PT017  (any other exception fails the test)

    check()
    if count := os.environ.get("SEQLOOM_COUNT_FILES"):
        with Path(count).open("a") as file:
            file.write(json.dumps({"reader": reader, "kind": kind, "files": len(written)}) + "\n")


@given(st.binary(max_size=300))
@example(b"PAR1" + NOISE + b"PAR1")
@example(b'{"a":' * 5000)
@example(b"[" * 100_000)
@settings(max_examples=2 * settings.default.max_examples)
def test_any_bytes_at_all(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(data)
    for reader in (None, *readers.names()):
        try:
            read(path, reader=reader)
        except SeqloomError as error:
            assert str(error)  # noqa: PT017  (any other exception fails the test)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "case", "events"]), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECT = st.dictionaries(st.sampled_from(["case", "id", "event", "events", "time", "label", "value"]), JSON, max_size=5)


@given(st.lists(OBJECT, min_size=1, max_size=5), st.booleans())
@settings(max_examples=4 * settings.default.max_examples)
def test_any_objects_at_all(tmp_path_factory, rows, lines):
    path = tmp_path_factory.getbasetemp() / ("any.jsonl" if lines else "any.json")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) if lines else json.dumps(rows))
    for source in (path, rows):
        try:
            read(source)
        except SeqloomError as error:
            assert str(error)  # noqa: PT017  (any other exception fails the test)


HEADER = st.lists(
    st.sampled_from(["case", "event", "time", "label", "id", "text", "y", "ds", "value", "x", "sensor", ""]),
    min_size=1,
    max_size=5,
)
CELL = st.sampled_from(["", "a", "1", "2.5", "nan", "inf", "2024-01-02", "01/02/2024", "1e400", '"', "x y", "é", "-"])


@given(HEADER, st.lists(st.lists(CELL, min_size=1, max_size=5), max_size=6), st.sampled_from([",", ";", "\t"]))
@settings(max_examples=4 * settings.default.max_examples)
def test_any_table_at_all(tmp_path_factory, header, rows, separator):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text("\n".join(separator.join(row) for row in [header, *rows]) + "\n", encoding="utf-8")
    for columns in (
        Columns(),
        Columns(value="y"),
        Columns(case="case"),
        Columns(event="event"),
        Columns(label="label"),
    ):
        try:
            read(path, columns=columns)
        except SeqloomError as error:
            assert str(error)  # noqa: PT017  (any other exception fails the test)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (NOISE, "binary data"),
        (b"case,event,time\na,x,soon\n", "row 2: is no time"),
        (b"user,session,item\n1,2,x\n", "--case user, or --case session"),
        ("case,event\na,x\n".encode("utf-16"), "iconv"),
        (gzip.compress(b"case,event\n" + b"a,x\n" * 999, mtime=0)[:-20], "cut short"),
    ],
)
def test_the_command_line_says_what_is_wrong_and_how_to_mend_it(tmp_path, capsys, data, words):
    path = Path(tmp_path / "bad.csv")
    path.write_bytes(data)
    for command in ("inspect", "fit"):
        assert main([command, str(path)]) == 2
        out, err = capsys.readouterr()
        assert words in err
        assert "bad.csv" in err
        assert "Traceback" not in out + err
