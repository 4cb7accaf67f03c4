import gzip

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers.text import Text
from seqloom.data.reading import read, sniff
from seqloom.testing.readers import check_reader

LINE = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1, max_size=9)


def test_contract(tmp_path):
    check_reader(Text(), tmp_path)


@given(st.lists(LINE, min_size=1, max_size=9), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 12))
def test_lines_are_those_of_python_in_blocks_of_any_size(tmp_path_factory, lines, end, closed, block):
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_bytes((end.join(lines) + end * closed).encode())
    parts = list(Text().batches(Source(path), Columns(), block=block))
    got = [part.sequence(i) for part in parts for i in range(len(part))]
    # a line that begins with the mark of UTF-8 loses it only where the file does
    assert got == [lines[0].removeprefix("\ufeff"), *lines[1:]] or (lines[0] == "\ufeff" and got == lines[1:])


def test_blank_lines_are_none_but_rows_count_on(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\none\n\ntwo\n", newline="")
    sequences = read(path)
    assert (sequences.rows.tolist(), sequences.ids) == ([3, 5], ["3", "5"])
    assert [sequences.sequence(i) for i in range(2)] == ["one", "two"]


def test_a_stream_is_one_sequence_with_its_line_ends(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\ntwo")
    sequences = read(path, columns=Columns(stream=True))
    assert len(sequences) == 1
    assert sequences.sequence(0) == "one\r\n\ntwo"


@pytest.mark.parametrize(
    ("pack", "ending"), [(gzip.compress, ".gz"), (zstandard.compress, ".zst"), (gzip.compress, "")]
)
def test_packed_files_are_known_by_their_bytes(tmp_path, pack, ending):
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(pack(b"one\n") + pack(b"two\n"))
    assert [read(path).sequence(i) for i in range(2)] == ["one", "two"]
    path.write_bytes(pack(b"one\ntwo\n" * 999)[:-9])
    with pytest.raises(DataError, match=r"is cut short.*again"):
        read(path)


@pytest.mark.parametrize("stream", [False, True])
def test_bad_bytes_are_found_by_row(tmp_path, stream):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\none\n\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"a.txt, row 4: is not UTF-8.*iconv") as caught:
        read(path, columns=Columns(stream=stream))
    assert caught.value.row == 4
    with pytest.raises(DataError, match="row 4"):
        list(Text().batches(Source(path), Columns(), block=3))


def test_other_encodings_and_binary_noise_are_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("text".encode("utf-16"))
    with pytest.raises(DataError, match="is UTF-16"):
        read(path)
    path.write_bytes(b"line\n\0\1\2")
    with pytest.raises(DataError, match="row 2: holds binary data"):
        read(path)
    path.write_bytes(b"\n\n")
    with pytest.raises(DataError, match="holds no sequence"):
        read(path)


def test_lines_that_cannot_be_written_are_refused(tmp_path):
    from seqloom.data.sequences import Sequences

    for items in (["a\nb"], [""], [["a"]]):
        with pytest.raises(DataError, match="can be lines"):
            Text().write(Sequences.of(items), tmp_path / "a.txt")


def test_the_guess_says_how_to_read_a_stream(tmp_path):
    path = tmp_path / "notes"
    path.write_text("one\ntwo\n")
    found = sniff(path)
    assert (found.reader, found.kind, found.task) == ("text", "text", "next")
    assert "--stream" in found.notes[0]


@pytest.mark.parametrize("name", ["lines.txt", "records.fa", "table.csv"])
def test_a_flag_that_means_nothing_for_a_format_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_text({"lines.txt": "ab\n", "records.fa": ">x\nACGT\n", "table.csv": "text,label\nab,c\n"}[name])
    columns = Columns(stream=True) if name == "table.csv" else Columns(case="user")
    with pytest.raises(DataError, match=r"--stream means nothing" if name == "table.csv" else "--case means nothing"):
        sniff(path, columns=columns)
    assert len(read(path)) == 1


def test_lone_carriage_returns_are_named(tmp_path):
    path = tmp_path / "old.txt"
    path.write_bytes(b"one\rtwo\r")
    with pytest.raises(DataError, match=r"lone carriage returns.*tr "):
        read(path)
    path.write_bytes(b"one\r")
    assert read(path).sequence(0) == "one"


def test_a_byte_order_mark_may_be_cut_by_the_smallest_blocks(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n")
    for block in (1, 2, 3, 4, 64):
        parts = list(Text().batches(Source(path), Columns(), block=block))
        assert [part.sequence(i) for part in parts for i in range(len(part))] == ["one", "two"]
