import io
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from seqloom.core.errors import ConfigError, DataError, SeqloomError
from seqloom.data import samples
from seqloom.data.columns import Columns
from seqloom.data.readers.text import Text
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences

ROWS = [{"case": "a", "event": "x"}, {"case": "b", "event": "y"}, {"case": "a", "event": "z"}]


@pytest.mark.parametrize(
    "source",
    [
        ROWS,
        pl.DataFrame(ROWS),
        pl.LazyFrame(ROWS),
        pa.Table.from_pylist(ROWS),
        {k: [r[k] for r in ROWS] for k in ROWS[0]},
    ],
    ids=["dicts", "polars", "lazy", "arrow", "columns"],
)
def test_tables_in_memory_are_event_logs(source):
    sequences = read(source)
    assert [sequences.sequence(i) for i in range(2)] == [["x", "z"], ["y"]]
    assert sequences.rows.tolist() == [1, 2]


def test_lists_arrays_and_generators_are_sequences():
    assert read(["ab", "c"]).kind == "text"
    assert read([["a"], ["b"]]).kind == "symbols"
    assert read(list(word) for word in ("ab", "c")).sequence(0) == ["a", "b"]
    assert read(np.array([[1, 2], [3, 4]])).sequence(1) == ["3", "4"]
    assert read([np.array([0.5])]).kind == "values"
    sequences = Sequences.of(["a"])
    assert read(sequences) is sequences


@pytest.mark.parametrize(
    ("name", "reader", "kind", "task"),
    [
        ("flights", "table", "symbols", "next"),
        ("novels", "table", "text", "classify"),
        ("austen", "text", "text", "next"),
        ("lambda", "fasta", "text", "next"),
        ("seattle", "table", "values", "next"),
    ],
)
def test_samples_are_recognised_and_read(name, reader, kind, task):
    found, sequences = sniff(samples.path(name)), read(samples.path(name))
    assert (found.reader, found.kind, found.task) == (reader, kind, task)
    assert sequences.kind == kind
    assert sequences.notes == found.notes
    assert len(sequences) >= 1


def test_standard_input_is_read_once(monkeypatch):
    class Stdin:
        buffer = io.BytesIO(b"case,event\na,x\na,y\n")

    monkeypatch.setattr(sys, "stdin", Stdin)
    sequences = read("-")
    assert sequences.sequence(0) == ["x", "y"]
    assert sequences.source == "standard input"


def test_the_reader_can_be_named_or_given(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("case,event\na,x\n")
    assert read(path, reader="text").sequence(0) == "case,event"
    assert read(path, reader=Text()).sequence(1) == "a,x"
    assert sniff(path, reader="text").reader == "text"
    with pytest.raises(ConfigError, match="no part called 'csw'"):
        read(path, reader="csw")


def test_what_is_given_is_kept_in_the_guess(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("user,session,item\nu,s,x\n")
    found = sniff(path, columns=Columns(case="session"))
    assert found.columns == Columns(case="session", event="item")
    assert Columns.from_json(found.columns.to_json()) == found.columns


def test_paths_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="is a directory"):
        read(tmp_path)
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"empty.csv: is empty"):
        read(tmp_path / "empty.csv")


def test_ids_that_repeat_are_kept_and_told(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">x\nACGT\n>x\nAC\n")
    sequences = read(path)
    assert (sequences.ids, sequences.rows.tolist()) == (["x", "x"], [1, 3])
    assert "ids repeat: 2 sequences have 1 of them" in sequences.notes[-1]
    path.write_text(">x\nACGT\n>y\nAC\n")
    assert not any("repeat" in note for note in read(path).notes)


def test_names_are_found_without_loading_anything():
    probe = (
        "import sys; from seqloom.data import readers; print(readers.names(), "
        "{'pyarrow', 'polars', 'dnaio', 'torch'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert out.startswith("('fasta', ")
    assert out.endswith(") set()\n")


def test_a_series_is_a_list_of_sequences():
    assert read(pl.Series(["ab", "c"])).kind == "text"
    assert read(pl.Series([["a", "b"], ["c"]])).symbols()[1] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "NoneType holds no sequences"),
        (3, "int holds no sequences"),
        ([1, 2, 3], "row 1: is int, no sequence"),
        (["ab", None], "row 2: is NoneType, no sequence"),
        ([["a"], ["b", None]], "row 2: symbol 2 is missing"),
    ],
)
def test_what_holds_no_sequences_is_refused_by_row(source, words):
    with pytest.raises(SeqloomError, match=words):
        read(source)


def test_sequences_that_are_all_empty_are_of_symbols():
    assert read([[], []]).kind == "symbols"
    assert read([["None"]]).symbols()[1] == ["None"]
