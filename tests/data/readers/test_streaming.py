import gc
import gzip
import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqloom.core.errors import DataError
from seqloom.data import _mapped
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers import _blocks, _growing, _spill
from seqloom.data.readers.table import Table
from seqloom.data.sequences import Sequences

WHOLE = 1 << 40
COLUMNS = Columns(case="case", event="event")


def outcome(path, columns, block):
    """The table, or the error in words: what in-memory and streamed reading must share."""
    try:
        return Sequences.join(list(Table().batches(Source(path), columns, block=block)))
    except DataError as error:
        return str(error)


def assert_same(want, got):
    if isinstance(want, str) or isinstance(got, str):
        assert got == want
        return
    assert (got.kind, got.alphabet, got.notes) == (want.kind, want.alphabet, want.notes)
    assert got.table.column_names == want.table.column_names
    assert [str(field.type) for field in got.table.schema] == [str(field.type) for field in want.table.schema]
    for name in want.table.column_names:
        one, other = (table[name].combine_chunks() for table in (want.table, got.table))
        assert str(one.to_pylist()) == str(other.to_pylist()), name  # as text: nan is nan
    if want.kind == "symbols":
        assert got.symbols()[1] == want.symbols()[1]
    for name in want.channels:
        assert got.channel_symbols(name) == want.channel_symbols(name)


def check(path, columns=COLUMNS, blocks=(1, 40, 300)):
    want = outcome(path, columns, WHOLE)
    for block in blocks:
        assert_same(want, outcome(path, columns, block))
    return want


CELL = st.sampled_from(["a", "b", "a b", 'say "x"', "x,y", "two\nlines", "ä", "7", "07", "1e3", "nan"])
GAP = st.sampled_from([""] + ["x"] * 30)
CLOCKS = {
    "none": st.just(""),
    "whole": st.integers(0, 5).map(str),
    "iso": st.integers(0, 9).map(lambda n: f"2024-01-0{n + 1} 10:00:0{9 - n}"),
    "zoned": st.integers(0, 9).map(lambda n: f"2024-01-01T10:0{n}:00+0{n % 3}:00"),
    "z": st.integers(0, 9).map(lambda n: f"2024-01-01T10:0{n}:00Z"),
    "german": st.integers(1, 9).map(lambda n: f"2{n}.0{n}.2024 10:00"),
    "either": st.integers(1, 14).map(lambda n: f"{n:02}/03/2024"),
    "mixed": st.sampled_from(["2024-01-01", "2024-01-02 10:00:00", "2024-01-01T10:00:00Z", "5", "soon", "inf", ""]),
}


@st.composite
def logs(draw):
    rows = draw(st.integers(1, 12))
    clock = draw(st.sampled_from(list(CLOCKS)))
    odd = draw(st.sampled_from([0, 0, 1]))
    cells = {
        "case": draw(st.lists(st.sampled_from("uvwxyz"), min_size=rows, max_size=rows)),
        "event": draw(st.lists(CELL, min_size=rows, max_size=rows)),
        "time": draw(st.lists(CLOCKS[clock], min_size=rows, max_size=rows)),
        "label": draw(st.lists(st.sampled_from("pppppppq") if odd else st.just("p"), min_size=rows, max_size=rows)),
        "cost": draw(
            st.lists(st.sampled_from(["1", "2.5", "", "x"] if odd else ["1", "2.5", ""]), min_size=rows, max_size=rows)
        ),
        "note": draw(st.lists(CELL, min_size=rows, max_size=rows)),
    }
    if clock == "none":
        del cells["time"]
    if odd:
        for name in ("case", "event", "label"):
            cells[name] = [draw(GAP) and value for value in cells[name]]
    return cells


def as_csv(cells, ending="\n"):
    def shown(value):
        quoted = any(sign in value for sign in ',"\n')
        return '"' + value.replace('"', '""') + '"' if quoted else value

    lines = [list(cells), *zip(*cells.values(), strict=True)]
    return ending.join(",".join(map(shown, line)) for line in lines) + ending


@settings(deadline=None, max_examples=50)
@given(logs(), st.integers(1, 400), st.sampled_from(["\n", "\r\n"]), st.integers(0, 2))
def test_blocks_of_any_size_give_what_the_whole_table_gives(tmp_path_factory, cells, block, ending, blanks):
    path = tmp_path_factory.mktemp("logs") / "log.csv"
    path.write_bytes((as_csv(cells, ending) + blanks * ending).encode())
    check(path, Columns(case="case", event="event", label="label"), (1, block))


def test_the_first_time_with_two_meanings_is_shown_whatever_the_block(tmp_path):
    path = tmp_path / "log.csv"
    days = ["05/05/2024", "01/01/2024", "03/02/2024", "04/02/2024"]
    path.write_text("case,event,time\n" + "".join(f"a,x,{day}\n" for day in days))
    told = check(path, Columns(case="case", event="event", time="time"), blocks=(1, 20, 40))
    assert all(word in told for word in ("row 4", "2024-02-03", "2024-03-02"))
    path.write_text("case,event,time\na,x,05/05/2024\na,y,01/01/2024\n")
    assert not isinstance(check(path, Columns(case="case", event="event", time="time")), str)


@settings(deadline=None, max_examples=15)
@given(logs(), st.sampled_from(["json", "parquet"]), st.integers(1, 400))
def test_other_forms_of_tables_too(tmp_path_factory, cells, form, block):
    path = tmp_path_factory.mktemp("logs") / f"log.{form.replace('json', 'jsonl')}"
    frame = pl.DataFrame(cells).with_columns(pl.col("cost").cast(pl.Float64, strict=False))
    if form == "parquet":
        frame.with_columns(number=pl.int_range(pl.len()), yes=pl.lit(value=True)).write_parquet(path)
    else:
        rows = [{name: value for name, value in row.items() if value} for row in frame.rows(named=True)]
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    check(path, Columns(case="case", event="event"), (1, block))


def test_types_of_json_lines_come_from_all_of_them(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [{"case": at % 3, "event": "a", "x": at if at < 20 else f"s{at}", "y": {"z": at}} for at in range(40)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert check(path).channels == ("x", "y.z")


def long_log(rows=400):
    lines = [f"c{at % 7},e{at % 3},2024-01-01 10:{at // 60:02}:{at % 60:02},{at}\n" for at in range(rows)]
    return ["case,event,time,cost\n", *lines]


@pytest.mark.parametrize(
    ("row", "line", "problem"),
    [
        (380, "c1,e1,soon,1\n", "row 380: is no time (found 'soon')"),
        (380, "c1,e1,01.02.2024 10:00:00,1\n", "row 380: is no time (found '01.02.2024 10:00:00')"),
        (381, "c1,e1,,1\n", "row 381: there is no time"),
        (379, ",e1,2024-01-01 10:00:00,1\n", "row 379: the column 'case' is empty"),
        (300, "c1,e1,2024-01-01 10:00:00,1,2\n", "row 300: a row has 5 columns, the header has 4"),
        (300, "c1,e\udcff,2024-01-01 10:00:00,1\n", "row 300: is not UTF-8 text"),
    ],
)
def test_an_error_in_a_late_block_names_the_row_of_the_file(tmp_path, row, line, problem):
    path, lines = tmp_path / "log.csv", long_log()
    lines[row - 1] = line
    path.write_bytes("".join(lines).encode("utf-8", "surrogateescape"))
    assert problem in check(path, blocks=(64, 2000))


def test_a_late_string_makes_a_channel_of_strings_and_packed_files_stream(tmp_path):
    lines = long_log()
    lines[-1] = "c1,e1,2024-01-01 10:00:00,much\n"
    path = tmp_path / "log.csv.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    found = check(path, blocks=(500,))
    assert found.channel_symbols("cost")[:2] == ["0", "7"] or "much" in found.channel_symbols("cost")


def test_two_names_with_one_hash_are_told_apart(tmp_path, monkeypatch):
    path, seen = tmp_path / "log.csv", []
    path.write_text("".join(long_log(50)), encoding="utf-8")
    want, sound = outcome(path, COLUMNS, WHOLE), _growing.hashes

    def weak(series, seed):
        seen.append(seed)
        return sound(series, seed) if seed != 0 else np.zeros(len(series), np.uint64)

    monkeypatch.setattr(_growing, "hashes", weak)
    assert_same(want, outcome(path, COLUMNS, 200))
    assert {0, 2} <= set(seen)


ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(-3, 3)), min_size=1, max_size=60)


@given(ROWS, st.integers(1, 20), st.booleans(), st.sampled_from([np.int64, np.float64]))
def test_rows_are_grouped_on_disk_as_by_one_stable_sort(rows, bucket, clocked, kind):
    names, case_R = np.unique([case for case, _ in rows], return_inverse=True)
    rank = np.argsort(np.argsort([list(case_R).index(n) for n in range(len(names))]))
    case_R, time_R = rank[case_R].astype(np.int32), np.array([time for _, time in rows], kind)
    piles = [_spill.Pile(np.int32), _spill.Pile(np.int64), _spill.Pile(kind)]
    for pile, values in zip(piles, (case_R, np.arange(len(rows)), time_R), strict=True):
        for part in np.array_split(values, 3):
            pile.append(part)
    moved, ends = _spill.group(piles[0], np.bincount(case_R), piles[2] if clocked else None, [piles[1]], rows=bucket)
    want = np.lexsort((time_R, case_R)) if clocked else np.argsort(case_R, kind="stable")
    assert moved[0].array().tolist() == want.tolist()
    if clocked:
        groups = [time_R[case_R == case] for case in range(len(names))]
        assert [list(ends[0]), list(ends[1])] == [[group.min() for group in groups], [group.max() for group in groups]]


@given(st.text(st.sampled_from('ab,"\n\r'), max_size=60), st.integers(1, 20))
def test_blocks_end_with_rows_and_lose_nothing(text, size):
    data = text.encode()
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    parts = [b"".join(part) for part in _blocks.records(iter(blocks))]
    assert b"".join(parts) == data
    for at in range(1, len(parts)):
        before = b"".join(parts[:at])
        assert before.endswith(b"\n")
        assert before.count(b'"') % 2 == 0


def test_what_waits_on_disk_has_no_name_and_is_mapped(tmp_path, monkeypatch):
    monkeypatch.setattr(_spill, "SMALL", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spill"))
    (tmp_path / "spill").mkdir()
    path = tmp_path / "log.csv"
    path.write_text("".join(long_log()), encoding="utf-8")
    found = outcome(path, COLUMNS, 300)
    assert list((tmp_path / "spill").iterdir()) == []
    assert_same(outcome(path, COLUMNS, WHOLE), found)
    before = found.symbols()[0].flat.tolist()
    _mapped.give_back()  # pages that were dropped are read again
    assert found.symbols()[0].flat.tolist() == before


def test_more_columns_than_files_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_spill, "SMALL", 0)
    monkeypatch.setattr(_spill, "FILES", 3)
    path = tmp_path / "log.csv"
    path.write_text("".join(long_log(60)), encoding="utf-8")
    check(path, blocks=(200,))
    gc.collect()
    assert _spill.Pile._open == 0


def test_no_room_on_disk_is_an_error_with_a_mend(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    path.write_text("".join(long_log()), encoding="utf-8")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_spill.Pile, "append", full)
    assert "TMPDIR" in outcome(path, COLUMNS, 300)


def test_one_row_one_sequence_comes_block_by_block(tmp_path):
    path = tmp_path / "texts.csv"
    rows = [f"n{at},text {at},{'xy'[at % 2]}\n" for at in range(50)]
    path.write_text("id,text,label\n" + "".join(rows), encoding="utf-8")
    check(path, Columns(text="text", label="label"))
    assert len(list(Table().batches(Source(path), Columns(text="text"), block=100))) > 5


def test_large_selections_are_written_to_disk_and_equal(tmp_path, monkeypatch):
    path = tmp_path / "log.csv"
    path.write_text("".join(long_log()), encoding="utf-8")
    sequences, at = outcome(path, COLUMNS, 300), np.array([5, 0, 3, 3])
    want = sequences.select(at)
    monkeypatch.setattr(_mapped, "LARGE", 0)
    monkeypatch.setattr(_mapped, "_BYTES", 2000)
    found = sequences.select(at)
    assert found.table["sequence"].num_chunks > 1
    assert found.table.to_pylist() == want.table.to_pylist()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "log.csv"
    with path.open("w") as file:
        file.write("case,event,time,cost\n")
        for start in range(0, 4_000_000, 100_000):
            clock = (f"2024-01-01 {at % 86400 // 3600:02}:00:00" for at in range(start, start + 100_000))
            file.writelines(f"c{at // 20},e{at % 30},{time},{at}\n" for at, time in enumerate(clock, start))
    probe = (
        "import resource, sys, polars, pyarrow.parquet; from seqloom.data._source import Source;"
        "from seqloom.data.columns import Columns; from seqloom.data.readers.table import Table;"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; before = peak();"
        "parts = list(Table().batches(Source(sys.argv[1]), Columns(), block=int(sys.argv[2]))); print(peak() - before)"
    )
    grown = []
    for block in (1 << 22, WHOLE):
        command = [sys.executable, "-c", probe, str(path), str(block)]
        grown.append(int(subprocess.run(command, capture_output=True, check=True, text=True).stdout))
    assert grown[0] < 0.5 * grown[1], grown
