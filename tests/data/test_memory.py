import collections
import io

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from seqloom.core.errors import SeqloomError
from seqloom.data.columns import Columns
from seqloom.data.reading import read
from seqloom.data.sequences import Sequences

ROWS = [{"case": "a", "event": "x"}, {"case": "b", "event": "y"}, {"case": "a", "event": "z"}]
COLUMNS = {"case": ["a", "b", "a"], "event": ["x", "y", "z"]}
ARROW = pa.Table.from_pylist(ROWS)


def content(sequences):
    items = [sequences.sequence(i) for i in range(len(sequences))]
    return [item.tolist() for item in items] if sequences.kind == "values" else items


@pytest.mark.parametrize(
    "source",
    [
        iter(ROWS),
        (dict(row) for row in ROWS),
        tuple(ROWS),
        [collections.OrderedDict(row) for row in ROWS],
        ARROW.to_batches()[0],
        ARROW.to_reader(),
        {name: np.array(column) for name, column in COLUMNS.items()},
        {name: pl.Series(column) for name, column in COLUMNS.items()},
        {name: pa.array(column) for name, column in COLUMNS.items()},
        np.array([("a", "x"), ("b", "y"), ("a", "z")], dtype=[("case", "U1"), ("event", "U1")]),
        pl.LazyFrame(ROWS),
    ],
    ids=lambda source: type(source).__name__,
)
def test_tables_in_every_form_are_one_event_log(source):
    sequences = read(source)
    assert dict(zip(sequences.ids, content(sequences), strict=True)) == {"a": ["x", "z"], "b": ["y"]}


FLOATS, WHOLE = np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3)


@pytest.mark.parametrize(
    ("source", "kind", "want"),
    [
        (FLOATS, "values", FLOATS.tolist()),
        (FLOATS.astype(np.float16), "values", FLOATS.tolist()),
        (FLOATS[:, :, None] + [0, 0.5], "values", (FLOATS[:, :, None] + [0, 0.5]).tolist()),
        (WHOLE, "symbols", [["0", "1", "2"], ["3", "4", "5"]]),
        (torch.tensor(FLOATS), "values", FLOATS.tolist()),
        (torch.tensor(FLOATS, dtype=torch.bfloat16, requires_grad=True), "values", FLOATS.tolist()),
        (torch.tensor(WHOLE), "symbols", [["0", "1", "2"], ["3", "4", "5"]]),
        ([torch.ones(1), torch.ones(2)], "values", [[1], [1, 1]]),
        ((torch.tensor(row) for row in WHOLE), "symbols", [["0", "1", "2"], ["3", "4", "5"]]),
        ((np.ones(length) for length in (1, 2)), "values", [[1], [1, 1]]),
        ([[0.5], [1, 2]], "values", [[0.5], [1, 2]]),
        ([[1, 2], [0.5]], "values", [[1, 2], [0.5]]),
        ([[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6]]], "values", [[[0.1, 0.2], [0.3, 0.4]], [[0.5, 0.6]]]),
        ([np.ones((2, 2)), []], "values", [[[1, 1], [1, 1]], []]),
        (np.array(["ab", "c"]), "text", ["ab", "c"]),
        ([b"ab", "ä".encode()], "text", ["ab", "ä"]),
        (np.array([["ab", "c"]]), "symbols", [["ab", "c"]]),
        (np.array([[b"ab", b"c"]]), "symbols", [["ab", "c"]]),
        (pa.array([["a"], ["b", "c"]]), "symbols", [["a"], ["b", "c"]]),
        (pa.chunked_array([["ab"], ["c"]]), "text", ["ab", "c"]),
        (pl.Series([["a", "b"], ["c", "d"]]), "symbols", [["a", "b"], ["c", "d"]]),
        (pl.Series([[0.5], [1.0, 2.0]]), "values", [[0.5], [1, 2]]),
        ([collections.deque("ab"), ("c",)], "symbols", [["a", "b"], ["c"]]),
        ([range(2)], "symbols", [["0", "1"]]),
        ([["a", 1, 2.5]], "symbols", [["a", "1", "2.5"]]),
        ([["word " * 9, "b"]], "symbols", [["word " * 9, "b"]]),
    ],
)
def test_sequences_in_every_form_are_known_by_what_they_hold(source, kind, want):
    sequences = read(source)
    assert (sequences.kind, content(sequences)) == (kind, want)


@pytest.mark.parametrize(
    ("source", "ids", "want"),
    [
        ({"s": [0.5, 1.0], "t": [2.0]}, ["s", "t"], [[0.5, 1], [2]]),
        ({"s": "ACGT", "t": "TGCA"}, ["s", "t"], ["ACGT", "TGCA"]),
        ({1: ["a"], 2: ["b"]}, ["1", "2"], [["a"], ["b"]]),
        ({"s": FLOATS, "t": FLOATS}, ["s", "t"], [FLOATS.tolist()] * 2),
        ({"s": torch.ones(1), "t": torch.ones(2)}, ["s", "t"], [[1], [1, 1]]),
    ],
)
def test_a_dict_of_sequences_keeps_its_keys_as_ids(source, ids, want):
    sequences = read(source)
    assert (sequences.ids, content(sequences)) == (ids, want)


def test_a_dict_with_names_that_mean_something_or_that_are_asked_for_is_a_table():
    assert read({"text": ["ab", "c"]}).kind == "text"
    assert read({"k": ["a", "a"], "what": ["x", "y"]}, columns=Columns(case="k", event="what")).ids == ["a"]
    assert read({"ds": [1, 2], "temperature": [0.5, 1.5]}).value_names == ("temperature",)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"s": [0.5, 1.0], "t": [2.0, 3.0]}, "'s', 't' may be columns or ids.*Columns.*list"),
        ({"case": ["a", "b"], "event": ["x"]}, "columns differ in their lengths: case 2, event 1"),
        ({"case": 1, "event": 2}, "the entry 'case' is int"),
        ([{"case": 1, "event": "x"}, 3], "row 2: is no dict like the others"),
        ([["a"], {"a": 1}], "row 1: is no dict like the others"),
        ([{"case": 1, "event": [2]}, {"case": 1, "event": "x"}], "these rows are no table.*one type"),
        ([{}], "not clear which column"),
        (pl.LazyFrame(ROWS).select("nope"), "table of polars cannot be taken.*nope"),
        (np.ones(3), "row 1: is float.*into a list"),
        (np.array(3.0), "holds no sequences"),
        (torch.tensor(1.0), "holds no sequences"),
        (torch.eye(2).to_sparse(), "Tensor cannot become an array"),
        (np.ones((1, 2, 3, 4)), "row 1: .*number of channels"),
        (np.ones((1, 2, 3), int), "row 1: its symbols are lists.*with a point"),
        (np.ones((1, 2), complex), "complex128 is neither"),
        (np.array([["2020-01-01"]], "M8[D]"), "datetime64.* is neither"),
        ([[0.5], [1j]], "row 2: is no sequence of numbers"),
        ([[0.5], ["a"]], "row 2: is no sequence of numbers"),
        ([[0.5], ["1"]], "row 2: is no sequence of numbers"),
        ([np.ones((2, 2)), np.ones((2, 3))], r"row 2: .*one number of channels.*\(2, 3\).*\(length, 2\)"),
        ([np.ones((2, 2)), np.ones(2)], "row 2: .*one number of channels"),
        ([[[0.1, 0.2], [0.3]]], "row 1: its steps differ"),
        ([[0.1], [0.2, float("nan")]], r"row 2: step 2 is no finite number \(found nan\). Fill"),
        ([np.array([np.inf])], "row 1: step 1 is no finite number"),
        ([np.array([[0.5, 1], [0.5, -np.inf]])], "row 1: step 2 is no finite number"),
        ([[0.5, None]], "row 1: symbol 2 is missing"),
        ([[0.5], [None]], "row 2: step 1 is no finite number"),
        ([["a", float("nan")]], "row 1: symbol 2 is missing"),
        ([np.ma.array([1.0, 2.0], mask=[0, 1])], "row 1: is MaskedArray.*masked"),
        ([[("a", "b")]], "row 1: its symbols are lists.*Join"),
        ([["a", ["b"]]], "row 1: one of its symbols is a collection"),
        ([b"\xff"], "row 1: is bytes.*Decode"),
        (b"ACGT", "bytes holds no sequences.*path of the file"),
        (io.StringIO("a"), "StringIO holds no sequences.*path of the file"),
        ({"a", "b"}, "set has no order"),
        ([{"a"}], "row 1: is set"),
        (["a", "\ud800"], "row 2: holds half a character"),
        ([["a", "\ud800"]], "half a character"),
        ([(letter for letter in "ab")], "row 1: is generator"),
        (object(), "object holds no sequences"),
        (Sequences, "holds no sequences"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_taken_is_refused_in_words(source, words):
    with pytest.raises(SeqloomError, match=words):
        read(source)


def test_pandas_frames_series_and_their_times():
    pd = pytest.importorskip("pandas")
    assert content(read(pd.DataFrame(ROWS))) == [["x", "z"], ["y"]]
    assert content(read(pd.DataFrame(ROWS)[1:])) == [["y"], ["z"]], "an index without a name is none"
    assert content(read(pd.DataFrame(ROWS).set_index("case"))) == [["x", "z"], ["y"]]
    assert content(read(pd.Series(["ab", "c"]))) == ["ab", "c"]
    assert content(read(pd.Series([["a"], ["b", "c"]]))) == [["a"], ["b", "c"]]
    dated = pd.DataFrame({"y": [2.0, 1.0]}, index=pd.to_datetime(["2024-01-02", "2024-01-01"]))
    series = read(dated)
    assert content(series) == [[1, 2]]
    assert series.start_times.astype(str).tolist() == ["2024-01-01T00:00:00.000000"]
    for bad, words in (
        (pd.Series(["ab", None]), "row 2: is "),
        (pd.DataFrame([[1, 2]], columns=["case", "case"]), "table of pandas cannot be taken"),
        (pd.DataFrame({"case": [1, "a"], "event": ["x", 2]}), "table of pandas cannot be taken.*one type"),
    ):
        with pytest.raises(SeqloomError, match=words):
            read(bad)
