import datetime as dt
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import ConfigError, DataError
from seqloom.data.sequences import Sequences

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=6)
EVENTS = st.lists(st.lists(st.sampled_from(["a", "b", "ä c"]), max_size=5), min_size=1, max_size=6)


@given(TEXTS)
def test_text_keeps_its_characters(texts):
    sequences = Sequences.of(texts)
    assert (sequences.kind, len(sequences)) == ("text", len(texts))
    assert [sequences.sequence(i) for i in range(len(texts))] == texts
    assert sequences.lengths.tolist() == [len(text) for text in texts]
    data, offsets = sequences.bytes()
    assert [data[a:b].tobytes().decode() for a, b in itertools.pairwise(offsets)] == texts


@given(EVENTS)
def test_symbols_keep_their_names(events):
    events = [["a"], *events]
    codes, names = Sequences.of(events).symbols()
    assert [[names[code] for code in item] for item in codes] == events


@given(TEXTS, st.data())
def test_select_and_cut_agree_with_python(texts, data):
    sequences = Sequences.of(texts)
    picks = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=6))
    chosen = sequences.select(picks)
    assert [chosen.sequence(i) for i in range(len(picks))] == [texts[i] for i in picks]
    bounds = [sorted(data.draw(st.tuples(*[st.integers(0, len(text))] * 2))) for text in texts]
    parts = sequences.cut(*np.transpose(bounds))
    cut = [text[a:b] for text, (a, b) in zip(texts, bounds, strict=True)]
    assert [parts.sequence(i) for i in range(len(texts))] == cut
    assert parts.opens.tolist() == [a == 0 for a, _ in bounds]
    assert parts.closes.tolist() == [b == len(text) for text, (_, b) in zip(texts, bounds, strict=True)]


def test_times_are_cut_with_their_events():
    when = [[dt.datetime(2024, 1, 1), dt.datetime(2024, 1, 2)], [dt.datetime(2024, 2, 1)], []]
    sequences = Sequences.of([["a", "b"], ["b"], []], times=when, labels=["x", "y", "x"], groups=[1, 1, 2])
    assert sequences.start_times[:2].tolist() == [when[0][0], when[1][0]]
    assert np.isnat(sequences.start_times[2])
    assert sequences.end_times[0] == np.datetime64("2024-01-02")
    assert (sequences.labels, sequences.groups) == (["x", "y", "x"], ["1", "1", "2"])
    part = sequences.cut([1, 0, 0], [2, 1, 0])
    assert part.times().lengths.tolist() == [1, 1, 0]
    assert part.start_times[0] == np.datetime64("2024-01-02")
    assert Sequences.of([["a"]], times=[[2.5]]).start_times.tolist() == [2.5]


def test_values_may_have_channels():
    sequences = Sequences.of([np.arange(6.0).reshape(3, 2), np.ones((1, 2))])
    assert (sequences.kind, sequences.lengths.tolist()) == ("values", [3, 1])
    assert sequences.values()[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert sequences.select([1, 0]).values()[1].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert Sequences.of([[0.5, 1.5]]).values()[0].tolist() == [0.5, 1.5]


@pytest.mark.parametrize("items", [["ab", "é"], [["x", "y"], ["x"]], [[0.5], [1.0, 2.0]]])
def test_a_saved_file_is_mapped_and_equal(tmp_path, items):
    before = Sequences.of(items)
    joined = Sequences.join([before, before.select([1])])
    joined.save(tmp_path / "s.arrow")
    after = Sequences.open(tmp_path / "s.arrow")
    assert after.table.to_pydict() == joined.table.to_pydict()
    assert (after.kind, after.alphabet, after.source) == (before.kind, before.alphabet, before.source)
    assert [len(piece) for piece in after.pieces()] == [2, 1]


def test_a_mapped_file_can_be_written_over_and_a_failed_writing_leaves_it(tmp_path, monkeypatch):
    import pyarrow as pa

    path = tmp_path / "s.arrow"
    Sequences.of(["abc" * 100_000]).save(path)
    mapped = Sequences.open(path)
    mapped.select([0]).save(path)
    assert Sequences.open(path).sequence(0) == mapped.sequence(0) == "abc" * 100_000

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pa.ipc, "new_file", full)
    with pytest.raises(DataError):
        Sequences.of(["x"]).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["s.arrow"]
    assert Sequences.open(path).lengths.tolist() == [300_000]


def test_mapping_reads_nothing(tmp_path):
    import pyarrow as pa

    Sequences.of(["x" * 5_000_000]).save(tmp_path / "big.arrow")
    before = pa.total_allocated_bytes()
    mapped = Sequences.open(tmp_path / "big.arrow")
    assert mapped.bytes()[0].nbytes >= 5_000_000
    assert pa.total_allocated_bytes() - before < 100_000


def test_dictionaries_of_joined_parts_become_one():
    joined = Sequences.join([Sequences.of([["a", "b"]]), Sequences.of([["c", "a"]])])
    codes, names = joined.symbols()
    assert [[names[code] for code in item] for item in codes] == [["a", "b"], ["c", "a"]]


@pytest.mark.parametrize(
    ("items", "alphabet"),
    [
        (["ACGTACGTACGTNN"], "dna"),
        (["acgtacgtacgtnn"], "dna"),
        (["MKTAYIAKQRQISFVKSHFSRQ"], "protein"),
        (["A cat sat here."], "text"),
        (["ACGT"], "text"),
        ([["a"]], "events"),
    ],
)
def test_the_alphabet_is_judged_by_its_letters(items, alphabet):
    assert Sequences.of(items).alphabet == alphabet


def test_what_is_no_sequence_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="put it into a list"):
        Sequences.of("abc")
    with pytest.raises(DataError, match="row 2"):
        Sequences.of(["a", 3])
    with pytest.raises(DataError, match=r"row 2.*number of channels"):
        Sequences.of([np.ones((2, 2)), np.ones((2, 3))])
    with pytest.raises(ConfigError, match="each needs one"):
        Sequences.of(["a", "b"], labels=["x"])
    (tmp_path / "no.arrow").write_bytes(b"not arrow")
    with pytest.raises(DataError, match="no Arrow file"):
        Sequences.open(tmp_path / "no.arrow")
    with pytest.raises(DataError, match="no such file"):
        Sequences.open(tmp_path / "absent.arrow")


def test_importing_data_loads_nothing_heavy():
    probe = "import sys, seqloom.data; print({'pyarrow', 'polars', 'dnaio', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_joining_keeps_what_parts_share_and_marks_what_one_lacks():
    first = Sequences.of([["a"], ["b"]], labels=["x", "y"], times=[[1.0], [2.0]])
    joined = Sequences.join([first, Sequences.of([["c"]]).cut([0], [0])])
    assert joined.labels == ["x", "y", None]
    assert joined.opens.tolist() == [True, True, True]
    assert joined.closes.tolist() == [True, True, False]
    np.testing.assert_array_equal(joined.start_times, [1, 2, np.nan])
    with pytest.raises(DataError, match="symbols and text cannot be joined"):
        Sequences.join([first, Sequences.of(["text"])])


def test_all_items_say_what_the_sequences_are_made_of() -> None:
    assert Sequences.of([[1, 2], [1.5]]).kind == "values"
    assert Sequences.of([[1, 2], [3]]).kind == "symbols"
    with pytest.raises(DataError, match=r"row 2.*one string among lists"):
        Sequences.of([["ab"], "cd"])
