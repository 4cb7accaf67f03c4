"""The contract of every reader, for ours and those of other packages.

    check_reader(MyReader(), tmp_path)

1. round trip: what is written is read again, ids, symbols, labels and all
2. packed = plain: .gz and .zst give the same sequences
3. chunked = whole: blocks of any size give the same sequences and row numbers
4. rows: sequences know the row at which they begin, in rising order
5. errors: empty files, absent files and folders are a DataError that names the file and a mend
6. sniffing: the reader is sure of its own files, and its guess names itself
"""

import gzip
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from seqloom.core.component import part_of
from seqloom.core.errors import DataError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers._base import Reader
from seqloom.data.reading import read
from seqloom.data.sequences import Sequences

_BLOCKS = (1, 7, 64, 1 << 20)


def check_reader(
    reader: Reader,
    folder: Path,
    examples: Iterable[Sequences] | None = None,
    *,
    suffix: str = "",
    columns: Columns | None = None,
) -> None:
    """Raise AssertionError where a reader breaks the contract.

    Args:
        reader: The reader.
        folder: An empty folder to write in.
        examples: Sequences that the format can hold; by default DNA, whose letters suit most formats.
        suffix: Ending of the files.
        columns: What to ask of every file.
    """
    columns = columns or Columns()
    for number, sequences in enumerate(examples if examples is not None else _dna()):
        path = folder / f"example{number}{suffix}"
        reader.write(sequences, path)
        whole = reader.read(path, columns)
        _same(sequences, whole, "round trip")
        _check_packed(reader, path, columns, whole)
        _check_blocks(reader, path, columns, whole)
        assert (np.diff(whole.rows) > 0).all(), "row numbers do not rise"
        assert whole.rows[0] >= 1, "row numbers begin at 1"
        _check_sniffing(reader, path, columns)
    _check_errors(reader, folder, columns, suffix)


def _check_packed(reader: Reader, path: Path, columns: Columns, whole: Sequences) -> None:
    import zstandard

    for ending, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        packed = path.with_name(path.name + ending)
        packed.write_bytes(pack(path.read_bytes()))
        _same(whole, reader.read(packed, columns), ending)


def _check_blocks(reader: Reader, path: Path, columns: Columns, whole: Sequences) -> None:
    for block in _BLOCKS:
        parts = list(reader.batches(Source(path), columns, block=block))
        joined = Sequences.join(parts)
        _same(whole, joined, f"blocks of {block} bytes")
        assert joined.rows.tolist() == whole.rows.tolist(), f"blocks of {block} bytes number their rows otherwise"
        if reader.chunked and block == 1:
            assert len(parts) > 1 or len(whole) == 1, "a chunked reader gave everything in one batch"


def _check_sniffing(reader: Reader, path: Path, columns: Columns) -> None:
    sure = reader.sniff(Source(path))
    assert 0 < sure <= 1, f"the reader is {sure} sure of its own file"
    found = reader.guess(Source(path), columns)
    assert part_of(type(reader).Config).endswith(f"/{found.reader}"), f"the guess names the reader {found.reader}"
    assert found.notes, "the guess does not say what it guessed"


def _check_errors(reader: Reader, folder: Path, columns: Columns, suffix: str) -> None:
    empty = folder / f"empty{suffix}"
    empty.write_bytes(b"")
    for path in (empty, folder / f"absent{suffix}", folder):
        error = _refusal(reader, path, columns)
        assert error is not None, f"{path} was read without an error"
        assert str(path) in str(error), f"the error does not name {path}: {error}"
        assert error.mend, f"the error names no mend: {error}"


def _refusal(reader: Reader, path: Path, columns: Columns) -> DataError | None:
    try:
        read(path, columns=columns, reader=reader)
    except DataError as error:
        return error
    return None


def _same(want: Sequences, got: Sequences, what: str) -> None:
    assert got.kind == want.kind, f"{what}: {got.kind} instead of {want.kind}"
    assert got.ids == want.ids, f"{what}: other ids"
    assert got.labels == want.labels, f"{what}: other labels"
    assert got.groups == want.groups, f"{what}: other groups"
    assert [got.sequence(i) for i in range(len(got))] == [want.sequence(i) for i in range(len(want))], f"{what}: others"
    assert got.channels == want.channels, f"{what}: other channels"
    for name in want.channels:
        assert got.channel_symbols(name) == want.channel_symbols(name), f"{what}: other symbols in channel {name}"
        assert np.array_equal(got.channel(name).flat, want.channel(name).flat, equal_nan=True), (
            f"{what}: channel {name}"
        )
    for name in ("start_times", "end_times"):
        first, second = getattr(want, name), getattr(got, name)
        assert (first is None) == (second is None), f"{what}: {name} are lost or invented"
        assert first is None or np.array_equal(first, second), f"{what}: other {name}"


def _dna() -> list[Sequences]:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), size)) for size in (1, 5, 70, 71, 200)]
    return [Sequences.of(texts), Sequences.of(["ACGTACGTACGT"])]
