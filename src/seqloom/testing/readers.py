"""The contract of every reader, for ours and those of other packages.

    check_reader(MyReader(), tmp_path)

1. round trip: what is written is read again, ids, symbols, labels and all
2. packed = plain: .gz and .zst give the same sequences
3. chunked = whole: blocks of any size give the same sequences and row numbers
4. rows: sequences know the row at which they begin, in rising order
5. errors: empty files, absent files and folders are a DataError that names the file and a mend
6. sniffing: the reader is sure of its own files, and its guess names itself
7. damage: a file that is cut, flipped, stuffed or doubled gives sequences or an error that seqloom means
"""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from seqloom.core.component import part_of
from seqloom.core.errors import DataError, SeqloomError
from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers._base import Reader
from seqloom.data.reading import read
from seqloom.data.sequences import Sequences

_BLOCKS = (1, 7, 64, 1 << 20)
_ACCIDENTS = 40
_ODD = b"\0\n\r\t,;\"'\\<>[]{}@ \x7f\x80\xc3\xff"
_WORDS = (b"nan", b"inf", b"-1", b"1e999", b"null", b'""', b"\r\n", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"9" * 400)


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
        _check_damage(reader, path, columns)
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
    assert _content(got) == _content(want), f"{what}: other sequences"
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


def _content(sequences: Sequences) -> list[Any]:
    items = [sequences.sequence(i) for i in range(len(sequences))]
    return [item.tolist() for item in items] if sequences.kind == "values" else items


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """A file after one accident: cut short, bits flipped, bytes put in or taken out, a block doubled or blanked."""
    data, size = bytearray(whole), len(whole)
    start, length = int(rng.integers(size + 1)), int(rng.integers(1, 9) ** 2)
    accident = rng.integers(7)
    if accident == 0:
        return whole[:start]
    if accident == 1:
        for at in rng.integers(size, size=length) if size else ():
            data[at] ^= 1 << int(rng.integers(8))
    elif accident == 2:
        data[start:start] = rng.integers(256, size=length, dtype=np.uint8).tobytes()
    elif accident == 3:
        del data[start : start + length]
    elif accident == 4:
        data[start:start] = data[start : start + length] * int(rng.integers(1, 4))
    elif accident == 5:
        data[start : start + length] = bytes([rng.choice(list(_ODD))]) * length
    else:
        data[start:start] = _WORDS[int(rng.integers(len(_WORDS)))]
    return bytes(data)


def _check_damage(reader: Reader, path: Path, columns: Columns) -> None:
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    broken = path.with_name(f"damaged{path.suffix}")
    for number in range(_ACCIDENTS):
        broken.write_bytes(damaged(whole, rng))
        try:
            reader.read(broken, columns)
        except SeqloomError:
            continue
        except Exception as error:
            what = f"{type(error).__name__} instead of a DataError: {error}"
            raise AssertionError(f"accident {number}: {what}") from error


def _dna() -> list[Sequences]:
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), size)) for size in (1, 5, 70, 71, 200)]
    return [Sequences.of(texts), Sequences.of(["ACGTACGTACGT"])]
