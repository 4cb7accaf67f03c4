import gzip
import io

import dnaio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import DataError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers.fasta import Fasta
from seqloom.data.reading import read, sniff
from seqloom.data.sequences import Sequences
from seqloom.testing.readers import check_reader

NAME = st.text("abcXYZ019_|.:-", min_size=1, max_size=6)
RECORDS = st.lists(st.tuples(NAME, st.text("ACGTNacgtn*-", max_size=30)), min_size=1, max_size=8)


def rows_of(parts):
    return [(part.ids[i], part.sequence(i)) for part in parts for i in range(len(part))]


def test_contract(tmp_path):
    check_reader(Fasta(), tmp_path)


@given(RECORDS, st.integers(1, 9), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.integers(1, 40))
def test_records_are_those_of_dnaio_in_blocks_of_any_size(tmp_path_factory, records, width, end, closed, block):
    path = tmp_path_factory.mktemp("fasta") / "a.fa"
    lines = []
    for name, letters in records:
        lines += [f">{name} rest", *(letters[i : i + width] for i in range(0, len(letters), width))]
    data = (end.join(lines) + end * closed).encode()
    path.write_bytes(data)
    parts = list(Fasta(Fasta.Config(capitals=False)).batches(Source(path), Columns(), block=block))
    with dnaio.open(io.BytesIO(data), fileformat="fasta") as peer:
        want = [(record.id, record.sequence) for record in peer]
    assert rows_of(parts) == want
    rows = np.concatenate([part.rows for part in parts]).tolist()
    assert rows == [number for number, line in enumerate(lines, 1) if line.startswith(">")]


@given(st.lists(st.tuples(NAME, st.text("ACGTN", min_size=1, max_size=30)), min_size=1, max_size=8), st.integers(1, 40))
def test_fastq_records_keep_names_letters_and_rows(tmp_path_factory, records, block):
    path = tmp_path_factory.mktemp("fastq") / "a.fastq"
    path.write_text("".join(f"@{name} x\n{letters}\n+\n{'I' * len(letters)}\n" for name, letters in records))
    parts = list(Fasta().batches(Source(path), Columns(), block=block))
    assert rows_of(parts) == records
    assert np.concatenate([part.rows for part in parts]).tolist() == [1 + 4 * i for i in range(len(records))]


def test_many_records_are_read_as_few_are(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text("".join(f">r{i}\n{'ACGT' * (i % 3)}\nT\n" for i in range(1500)))
    assert rows_of([read(path)]) == [(f"r{i}", "ACGT" * (i % 3) + "T") for i in range(1500)]


def test_small_letters_are_raised_and_alphabets_are_told_apart(tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(b">x\nacgT-*\n"))
    assert (read(path).sequence(0), read(path).alphabet) == ("ACGT-*", "dna")
    assert any("capitals" in note for note in sniff(path).notes)
    path.write_bytes(gzip.compress(b">x\nMKTAY\n"))
    assert read(path).alphabet == "protein"


def test_labels_and_groups_come_from_the_description(tmp_path):
    path = tmp_path / "a.fa"
    path.write_text(">x family=kinase|species=mouse\nMK\n>y notfamily=no;family=other species=man\nMA\n")
    sequences = read(path, columns=Columns(label="family", group="species"))
    assert (sequences.labels, sequences.groups) == (["kinase", "other"], ["mouse", "man"])
    assert sniff(path, columns=Columns(label="family")).task == "classify"
    with pytest.raises(DataError, match=r"row 1: a header has no clan=.*--label"):
        read(path, columns=Columns(label="clan"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b">x\nACGT\n>y\nAC GT\n", "row 3: the record that begins here"),
        (b">x\nAC\n>y\nAC1\n", "row 3: the record that begins here"),
        (b"@x\nACGT\n+\nIII\n", "row 4: is no FASTQ"),
        (b"@x\nACGT\n+\nIIII\n@y\nAC", "is no FASTQ"),
        (b">x\xe9\nACGT\n", "row 1: is not UTF-8"),
    ],
)
def test_broken_files_are_named_by_row(tmp_path, data, words):
    path = tmp_path / "a.fasta"
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        read(path)
    if b"ACGT\n>" not in data:
        return
    with pytest.raises(DataError, match=words):
        list(Fasta().batches(Source(path), Columns(), block=5))


def test_what_does_not_begin_with_a_record_is_refused(tmp_path):
    path = tmp_path / "a.fasta"
    path.write_text("ACGT\n>x\nAC\n")
    with pytest.raises(DataError, match="row 1: a FASTA file begins"):
        read(path)
    path.write_bytes(gzip.compress(b">x\n" + b"ACGT" * 9999)[:-20])
    with pytest.raises(DataError, match="cut short"):
        read(path)


def test_events_are_no_letters(tmp_path):
    with pytest.raises(DataError, match="holds letters"):
        Fasta().write(Sequences.of([["a"]]), tmp_path / "a.fa")


def test_a_byte_order_mark_is_skipped(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf>x\nACGT\n>y\nAC\n")
    sequences = read(path)
    assert (sequences.ids, sequences.sequence(0)) == (["x", "y"], "ACGT")
    assert [part.ids for part in Fasta().batches(Source(path), Columns(), block=1)] == [["x"], ["y"]]
    path.write_bytes(b"\xef\xbb\xbf@x\nACGT\n+\n!!!!\n")
    assert read(path).sequence(0) == "ACGT"


def test_only_letters_can_be_written_and_names_in_any_language(tmp_path):
    for text in ("two words", "\xa1", "A1"):
        with pytest.raises(DataError, match="letters of an alphabet"):
            Fasta().write(Sequences.of([text]), tmp_path / "a.fa")
    Fasta().write(Sequences.of(["ACGT"], ids=["ä"]), tmp_path / "a.fa")
    assert read(tmp_path / "a.fa").ids == ["ä"]
