import datetime as dt
import io
import pickle
import re
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError, SeqloomError
from seqloom.data._source import BOMB_BYTES, Source
from seqloom.data.columns import Columns
from seqloom.data.readers.npy import Npy
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import check_reader

WHEN = dt.datetime(2024, 1, 1)


def saved(tmp_path, array=None, /, **arrays):
    path = tmp_path / ("a.npz" if arrays else "a.npy")
    if arrays:
        np.savez(path, **arrays)
    else:
        np.save(path, array)
    return path


def items(sequences):
    found = [sequences.sequence(i) for i in range(len(sequences))]
    return [item.tolist() if sequences.kind == "values" else item for item in found]


def test_contract(tmp_path):
    ragged = [np.array([0.5, 1.0]), np.array([2.0]), np.array([])]
    wide = [np.arange(6.0).reshape(3, 2), np.arange(2.0).reshape(1, 2)]
    times = [[WHEN + dt.timedelta(hours=i) for i in range(n)] for n in (2, 3)]
    examples = [
        Sequences.of(ragged[:2], ids=["x", "y"], labels=["a", "b"], groups=["g", "h"]),
        Sequences.of(ragged),
        Sequences.of(wide),
        Sequences.of(wide[:1] * 2, times=[[0.0, 1.0, 2.0], [0.5, 0.5, 0.5]]),
        Sequences.of([["a", "b c"], ["ä", "1", "x"]], times=times, labels=["a", "b"]),
        Sequences.of(["text", "more\ntext", ""]),
        Sequences.of(["A", "C"]),
    ]
    check_reader(Npy(), tmp_path, examples, suffix=".npz")
    check_reader(Npy(), tmp_path, [Sequences.of(wide[:1] * 2), Sequences.of([[0.5, 1], [2.0, 3]])], suffix=".npy")


@pytest.mark.parametrize(
    ("array", "columns", "kind", "want"),
    [
        (np.array([0.5, 2]), {}, "values", [[0.5, 2]]),
        (np.array([[0.5, 2], [3, 4]]), {}, "values", [[0.5, 2], [3, 4]]),
        (np.array([[0.5, 2], [3, 4]]), {"stream": True}, "values", [[[0.5, 2], [3, 4]]]),
        (np.asfortranarray([[0.5, 2], [3, 4]]), {}, "values", [[0.5, 2], [3, 4]]),
        (np.array([[[1, 2], [3, 4]]], ">f4"), {}, "values", [[[1, 2], [3, 4]]]),
        (np.array([3, 1, 3], ">i2"), {}, "symbols", [["3", "1", "3"]]),
        (np.array([[3, 1], [2, 2]], "u1"), {}, "symbols", [["3", "1"], ["2", "2"]]),
        (np.array([3, 1]), {"value": "values"}, "values", [[3, 1]]),
        (np.array([True, False]), {}, "symbols", [["True", "False"]]),
        (np.array(["ab", "c"]), {}, "text", ["ab", "c"]),
        (np.array(["ab", "c"]), {"event": "values"}, "symbols", [["ab", "c"]]),
        (np.array(["ab", "c"]), {"stream": True}, "symbols", [["ab", "c"]]),
        (np.array(list("ACG")), {}, "symbols", [["A", "C", "G"]]),
        (np.array(list("ACG")), {"text": "values"}, "text", ["A", "C", "G"]),
        (np.array([["a", "ä"]]), {}, "symbols", [["a", "ä"]]),
        (np.array(["ä".encode(), b"b"]), {}, "text", ["ä", "b"]),
    ],
)
def test_an_array_is_read_by_its_type_and_shape(tmp_path, array, columns, kind, want):
    sequences = read(saved(tmp_path, array), columns=Columns(**columns))
    assert (sequences.kind, items(sequences)) == (kind, want)


def test_an_ambiguous_shape_is_told_with_its_flag(tmp_path):
    found = sniff(saved(tmp_path, np.zeros((5, 3))))
    assert "holds 5 sequences, one a row" in found.notes[0]
    assert "--stream reads it as one long sequence with 3 channels" in found.notes[0]
    assert "--value values reads them as values" in sniff(saved(tmp_path, np.zeros(3, int))).notes[0]


def test_an_archive_is_put_together_by_names(tmp_path):
    values, offsets = np.arange(5.0), np.array([0, 2, 5])
    path = saved(
        tmp_path, values=values, offsets=offsets, y=np.array([1, 0]), ids=np.array(["p", "q"]), note=np.zeros(())
    )
    sequences = read(path)
    assert items(sequences) == [[0, 1], [2, 3, 4]]
    assert (sequences.ids, sequences.labels) == (["p", "q"], ["1", "0"])
    assert sniff(path).task == "classify"
    assert any("not used: note" in note for note in sniff(path).notes)
    padded = saved(
        tmp_path,
        X=np.array([[1.0, 2, np.nan], [3, np.nan, np.nan]]),
        lengths=[2, 1],
        times=np.arange(6.0).reshape(2, 3),
    )
    assert items(read(padded)) == [[1, 2], [3]]
    assert read(padded).start_times.tolist() == [0, 3]
    flat = saved(
        tmp_path, sequences=np.arange(3), lengths=[1, 2], times=np.array(["2024-01-01", "2024-01-02"], "M8[D]")
    )
    assert items(read(flat)) == [["0"], ["1", "2"]]
    assert read(flat).end_times.tolist() == [WHEN, WHEN + dt.timedelta(days=1)]


def test_what_is_named_like_a_label_but_does_not_fit_is_left_alone(tmp_path):
    path = saved(tmp_path, x=np.zeros((3, 4)), y=np.zeros(3))
    assert read(path).labels is None
    with pytest.raises(DataError, match=r"'y' of float64 \(3,\) is no label of 3 sequences"):
        read(path, columns=Columns(label="y"))


def test_arrays_without_known_names_are_one_sequence_each(tmp_path):
    sequences = read(saved(tmp_path, left=np.array([1.0, 2]), right=np.array([3.0])))
    assert (sequences.ids, items(sequences)) == (["left", "right"], [[1, 2], [3]])
    sequences = read(saved(tmp_path, left=np.array(["ab", "c"]), right=np.array(["d"])))
    assert items(sequences) == [["ab", "c"], ["d"]]
    path = saved(tmp_path, left=np.array([1.0, 2]), right=np.array([3, 4]))
    with pytest.raises(DataError, match=r"not clear which array.*--value.*left \(float64 \(2,\)\), right"):
        read(path)
    assert items(read(path, columns=Columns(event="right"))) == [["3", "4"]]


class Bomb:
    """Would write a file if it were ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_pickles_are_never_loaded(tmp_path, name):
    array = np.array([Bomb(tmp_path / "ran")], object)
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, array, allow_pickle=True)
    with pytest.raises(DataError, match=r"holds objects; they are pickles.*never loaded"):
        read(tmp_path / name)
    (tmp_path / name).write_bytes(pickle.dumps(array))
    with pytest.raises(DataError, match="does not begin as an array"):
        read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("array", "columns", "words"),
    [
        (np.array([1.0, np.nan, np.inf]), {}, r"row 1: values: step 2 is no finite number \(found nan\)"),
        (np.array([[[0.0, 1]], [[0, np.inf]]]), {}, "row 2: values: step 1, channel 2 is no finite number"),
        (np.array([1j]), {}, "holds complex128, neither"),
        (np.array(["2024-01-01"], "M8[D]"), {}, "holds datetime64"),
        (np.zeros(2, [("a", "f4")]), {}, "holds .*, neither|is no readable array"),
        (np.zeros(()), {}, r"has the shape \(\) instead of"),
        (np.zeros((2, 2, 2, 2)), {}, r"has the shape \(2, 2, 2, 2\) instead of \(T,\), \(N, T\) or \(N, T, C\)"),
        (np.zeros((2, 2, 2), int), {}, r"has the shape \(2, 2, 2\)"),
        (np.zeros((2, 2), int), {"stream": True}, r"has the shape \(2, 2\) instead of \(T,\) as a stream"),
        (np.zeros((0, 3)), {}, "holds no sequence"),
        (np.array([b"\xff\xfe", b"a"]), {}, "no Unicode"),
        (np.array([0x110000], "<u4").view("<U1"), {}, "no Unicode"),
        (np.zeros(3), {"event": "values"}, "floats, which are no symbols"),
        (
            np.zeros(3),
            {"value": "x"},
            r"no array 'x' \(asked for by --value, or by the model.*\). The arrays are values \(float64",
        ),
        (np.zeros(3), {"case": "x"}, "--case means nothing"),
    ],
)
def test_what_cannot_be_sequences_is_refused(tmp_path, array, columns, words):
    with pytest.raises(DataError, match=words):
        read(saved(tmp_path, array), columns=Columns(**columns))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            {"values": np.zeros(4), "offsets": np.array([0, 3, 2, 4])},
            r"row 3: offsets must rise from 0 to 4 \(found 2\)",
        ),
        ({"values": np.zeros(4), "offsets": np.array([0, 9])}, r"row 2: offsets must rise from 0 to 4 \(found 9\)"),
        ({"values": np.zeros(4), "lengths": np.array([1, -1])}, r"row 2: a length is negative"),
        ({"values": np.zeros(4), "lengths": np.array([1, 1])}, "2 lengths with a sum of 2 do not cut"),
        ({"values": np.zeros(4), "lengths": np.array([1 << 62] * 4)}, "do not cut"),
        ({"values": np.zeros((2, 2)), "times": np.zeros(3)}, "neither a time for each of 4 steps nor one a sequence"),
        ({"values": np.zeros(2), "times": np.array(["2024", "NaT"], "M8[Y]")}, "time 2 is missing"),
        ({"data": np.zeros(2), "indices": np.zeros(2), "indptr": np.zeros(2), "shape": 1, "format": "csr"}, "sparse"),
    ],
)
def test_parts_that_do_not_fit_are_named(tmp_path, arrays, words):
    with pytest.raises(DataError, match=words):
        read(saved(tmp_path, **arrays))


def header(shape, descr="<f8", version=b"\x01\x00"):
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header((10**14,)) + bytes(8), "promises 800000000000000 bytes .* and 8 follow"),
        (header((3,), "<U0"), "holds empty strings alone"),
        (header((10**30,)), "no array has the shape"),
        (header((-2, -1)) + bytes(16), "no array has the shape"),
        (header((2,)) + bytes(15), "promises 16 bytes .* and 15 follow"),
        (header((2,)) + bytes(17), "several arrays in one"),
        (header((10**9, 0)), "holds no sequence|sequences"),
        (header("(" * 300), "is no readable array"),
        (header("__import__('os').getpid()"), "is no readable array"),
        (b"\x93NUMPY\x02\x00" + (10**6).to_bytes(4, "little") + b"{" * 100, "is no readable array"),
        (b"\x93NUMPY\x07\x00\x00\x00", "is no readable array"),
        (b"\x93NUMPY", "is no readable array"),
        (b"PK\x03\x04broken", "is a damaged archive"),
    ],
)
def test_headers_that_lie_allocate_nothing(tmp_path, data, words):
    path = tmp_path / "a.npy"
    path.write_bytes(data)
    found = error_of(path)
    assert re.search(words, "sequences" if found is None else found)


def test_archives_that_blow_up_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        member.write(header((BOMB_BYTES // 4,), "<f4"))
        for _ in range(100):
            member.write(bytes(BOMB_BYTES // 100))
    with pytest.raises(DataError, match=r"x.npy: \d+ bytes would be unpacked to 1000\d+"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../evil.txt", "x")
    with pytest.raises(DataError, match=r"something else than arrays.*evil.txt"):
        read(path)


def error_of(path):
    """The words of the error that a file is refused with; None where it is read."""
    try:
        read(path)
    except SeqloomError as error:
        return str(error)
    return None


@given(st.data())
def test_broken_bytes_are_sequences_or_an_error_with_a_mend(tmp_path_factory, data):
    file = io.BytesIO()
    if data.draw(st.booleans()):
        np.savez(file, values=np.arange(4.0), offsets=np.array([0, 1, 4]), labels=np.array(["a", "bc"]))
    else:
        np.save(file, np.array([["ab", "c"]]))
    whole = file.getvalue()
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 300)) :]
    path = tmp_path_factory.mktemp("broken") / "a.npy"
    path.write_bytes(broken)
    words = error_of(path)
    assert words is None or str(path) in words


@given(st.lists(st.lists(st.floats(-9, 9), max_size=4), min_size=1, max_size=5).filter(any), st.booleans())
def test_values_come_back_as_numpy_reads_them(tmp_path_factory, rows, labelled):
    path = tmp_path_factory.mktemp("values") / "a.npz"
    Npy().write(
        Sequences.of([np.array(row, float) for row in rows], labels=[len(row) for row in rows] if labelled else None),
        path,
    )
    with np.load(path, allow_pickle=False) as peer:
        assert peer["values"].ravel().tolist() == [item for row in rows for item in row]
    assert items(read(path)) == rows


def test_what_an_array_cannot_hold_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"one array cannot hold values, labels.*\.npz"):
        Npy().write(Sequences.of([[0.5]], labels=["a"]), tmp_path / "a.npy")
    with pytest.raises(DataError, match="forgets zeros"):
        Npy().write(Sequences.of(["a\0"]), tmp_path / "a.npz")
    path = tmp_path / "log.csv"
    path.write_text("case,event,cost\na,x,1\n")
    with pytest.raises(DataError, match="channels beside"):
        Npy().write(read(path), tmp_path / "a.npz")


def test_the_name_alone_is_not_enough(tmp_path):
    path = tmp_path / "a.npy"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="does not begin as an array of NumPy"):
        read(path)
    assert Npy().sniff(Source(path)) == 0.9


def test_texts_of_one_length_or_many_are_one_array(tmp_path):
    texts = Sequences.of(["some text", "b"])
    Npy().write(texts, tmp_path / "texts.npy")
    assert items(read(tmp_path / "texts.npy")) == items(texts)
