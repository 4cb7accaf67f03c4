"""FASTA and FASTQ: biological sequences with names.

    >name description          one or more lines of letters
    @name / letters / + / qualities

A name ends at the first white space. Small letters (soft-masked repeats) are raised to capitals unless asked otherwise.
``label`` and ``group`` are keys of the description: with ``--label family``, ``>x family=kinase`` has the class kinase.
Source: Pearson and Lipman, "Improved tools for biological sequence comparison", 1988; Cock et al., "The Sanger FASTQ
file format", 2010, doi:10.1093/nar/gkp1137.
"""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seqloom.core.errors import DataError
from seqloom.core.files import replacing
from seqloom.data._source import BOM, Source, unmarked
from seqloom.data.columns import Columns, Guess
from seqloom.data.ragged import Ragged, spans
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.sequences import Sequences

if TYPE_CHECKING:
    import pyarrow as pa

_SUFFIXES = (".fa", ".fasta", ".fna", ".faa", ".ffn", ".frn", ".fq", ".fastq")
_RECORD, _NEWLINE, _RETURN = ord(">"), 10, 13
_WIDTH = 70  # letters of a line that is written
_LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz*-."


class Fasta(Reader):
    """One record is one sequence, a whole chromosome too; windows are cut later."""

    chunked = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Reader.Config):
        """Options of the reader."""

        capitals: bool = True
        """Raise small letters to capitals."""

    def sniff(self, source: Source) -> float:
        """The first byte, and a first line that is no e-mail quote or decorator."""
        named = source.suffix in _SUFFIXES
        head = source.head.removeprefix(BOM)
        if head[:1] == b">":
            return 1.0 if named else 0.7
        lines = head.split(b"\n", 3)
        if head[:1] == b"@" and len(lines) > 2 and lines[2][:1] == b"+":
            return 1.0
        return 0.9 if named else 0.0

    def guess(self, source: Source, columns: Columns) -> Guess:
        """Text of one alphabet."""
        self.refuse(source, columns, but=("label", "group"))
        notes = ["each record is one sequence; long ones are cut into windows when a model is trained"]
        if source.head.removeprefix(BOM)[:1] == b"@":
            notes.append("qualities are left out")
        if self.config.capitals:
            notes.append("small letters are raised to capitals")
        task = "classify" if columns.label else "next"
        return Guess(reader="fasta", columns=columns, kind="text", task=task, notes=tuple(notes))

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """Blocks that end with a record."""
        source.check_text()
        notes = self.guess(source, columns).notes
        head = source.head.removeprefix(BOM)
        if head[:1] == b"@":
            yield from self._fastq(source, columns, notes, block)
            return
        if head[:1] != b">":
            row = head.split(b"\n", 1)[0][:60]
            raise DataError("a FASTA file begins with '>'", file=source.name, row=1, value=row, mend="See --reader.")
        row = 1
        for data in _whole_records(source, block):
            yield self._sequences(source, columns, notes, *_parse(data, source, row, self._table))
            row += data.count(b"\n")

    @property
    def _table(self) -> bytes | None:
        """What each byte of letters becomes; None = itself."""
        return bytes(range(256)).upper() if self.config.capitals else None

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """Records with lines of 70 letters."""
        if sequences.kind != "text":
            raise DataError(f"FASTA holds letters, not {sequences.kind}", file=path)
        data, offsets = sequences.bytes()
        if data[offsets[0] : offsets[-1]].tobytes().translate(None, _LETTERS):
            raise DataError(
                "FASTA holds letters of an alphabet alone", file=path, mend="Write a table or lines of text."
            )
        with replacing(Path(path)) as part, part.open("w", encoding="utf-8", newline="\n") as file:
            for number, name in enumerate(sequences.ids):
                letters = sequences.sequence(number)
                lines = [letters[i : i + _WIDTH] for i in range(0, len(letters), _WIDTH)]
                file.write("\n".join([f">{name}", *lines, ""]))

    def _fastq(self, source: Source, columns: Columns, notes: tuple[str, ...], block: int) -> Iterator[Sequences]:
        import dnaio

        names: list[str] = []
        letters: list[str] = []
        row, held = 1, 0
        try:
            with dnaio.open(io.BufferedReader(_Stream(source)), fileformat="fastq") as records:
                for record in records:
                    names.append(record.name)
                    letters.append(record.sequence)
                    held += len(record.sequence)
                    if held >= block:
                        yield self._records(source, columns, notes, names, letters, row)
                        row += 4 * len(names)
                        names, letters, held = [], [], 0
        except dnaio.FileFormatError as error:
            line = None if error.line is None else error.line + 1
            problem = re.sub(r"^Error in FASTQ file at line \d+: ", "", str(error)).splitlines()[0]
            raise DataError(f"is no FASTQ: {problem}", file=source.name, row=line, mend="Is it cut short?") from error
        if names:
            yield self._records(source, columns, notes, names, letters, row)

    def _records(
        self, source: Source, columns: Columns, notes: tuple[str, ...], names: list[str], letters: list[str], row: int
    ) -> Sequences:
        import pyarrow as pa

        joined = "".join(letters).encode().translate(self._table)
        offsets = np.concatenate([[0], np.cumsum([len(item) for item in letters], dtype=np.int64)])
        rows = row + 4 * np.arange(len(names))
        return self._sequences(source, columns, notes, pa.array(names, pa.string()), joined, offsets, rows)

    def _sequences(
        self,
        source: Source,
        columns: Columns,
        notes: tuple[str, ...],
        names: "pa.Array",
        data: bytes | bytearray,
        offsets: np.ndarray,
        rows: np.ndarray,
    ) -> Sequences:
        import pyarrow.compute as pc

        from seqloom.data import _build

        others = data.translate(None, b"ACGTUNacgtun")  # letters such as R or Y may be either, so shares decide
        if others.translate(None, _LETTERS):
            raise _wrong_letter(data, offsets, rows, source)
        column = _build.text_column(data, offsets)
        extra = {key: _from_description(names, getattr(columns, key), rows, source) for key in ("label", "group")}
        ids = pc.replace_substring_regex(names, r"\s.*$", "")
        dna = len(others.translate(None, b"*-.")) <= 0.1 * len(data)
        table = _build.table(column, ids=ids, row=rows, columns=extra)
        return Sequences(table, "text", source=source.name, alphabet="dna" if dna else "protein", notes=notes)


def _whole_records(source: Source, block: int) -> Iterator[bytes]:
    waiting: list[bytes] = []
    for data in unmarked(source, block):
        joint = waiting[-1][-1:] + data[:1] if waiting else b""
        if joint == b"\n>":  # a record begins exactly where the block does
            yield b"".join(waiting)
            waiting = []
        cut = data.rfind(b"\n>") + 1
        if cut:
            yield b"".join([*waiting, data[:cut]])
            waiting = []
        waiting.append(data[cut:])
    yield b"".join(waiting)


def _parse(
    data: bytes, source: Source, first_row: int, table: bytes | None
) -> tuple["pa.Array", bytearray, np.ndarray, np.ndarray]:
    """Header lines, letters end to end, offsets, and the rows of the headers."""
    from seqloom.data import _build

    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    if text[-1] != _NEWLINE:
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1])
    stops = ends - (text[np.maximum(ends - 1, 0)] == _RETURN) * (ends > starts)  # \r\n ends a line, too
    head = np.flatnonzero((text[np.minimum(starts, len(text) - 1)] == _RECORD) & (ends > starts))
    lengths = stops - starts
    body = lengths.copy()
    body[head] = 0
    before = np.concatenate([[0], np.cumsum(body)])
    letters = _letters(data, [(starts[head], (stops - starts)[head]), (stops[stops < ends], 1)], table)
    offsets = np.append(before[head], before[-1])
    names = Ragged(text[spans(starts[head] + 1, lengths[head] - 1)], np.append(0, np.cumsum(lengths[head] - 1)))
    column = _build.text_column(names.values, names.offsets)
    try:
        column.validate(full=True)
    except ValueError:
        raise source.broken_text(data, first_row) from None
    return column, letters, offsets, head + first_row


def _letters(data: bytes, others: list[tuple[np.ndarray, Any]], table: bytes | None) -> bytearray:
    """Everything but line ends and the spans (start, length) of ``others``: these become line ends, then all leave."""
    blanked = bytearray(data)
    view = np.frombuffer(blanked, np.uint8)
    for starts, lengths in others:
        view[spans(starts, np.broadcast_to(lengths, starts.shape))] = _NEWLINE
    return blanked.translate(table, b"\n")


def _wrong_letter(data: bytes | bytearray, offsets: np.ndarray, rows: np.ndarray, source: Source) -> DataError:
    at = int(np.argmax(~np.isin(np.frombuffer(data, np.uint8), np.frombuffer(_LETTERS, np.uint8))))
    row = rows[max(int(np.searchsorted(offsets, at, side="right")) - 1, 0)]
    problem = "the record that begins here has something else than letters"
    mend = "Remove digits and spaces."
    return DataError(problem, file=source.name, row=int(row), value=bytes(data[max(at - 5, 0) : at + 5]), mend=mend)


def _from_description(names: "pa.Array", key: str | None, rows: np.ndarray, source: Source) -> Any:
    """The value of ``key=value`` in every header."""
    if key is None:
        return None
    import pyarrow.compute as pc

    found = pc.struct_field(pc.extract_regex(names, rf"(?:^|[\s|;]){re.escape(key)}=(?P<value>[^\s|;]+)"), "value")
    if found.null_count:
        at = int(np.argmax(found.is_null().to_numpy(zero_copy_only=False)))
        problem, mend = f"a header has no {key}=...", "Name another key with --label or --group."
        raise DataError(problem, file=source.name, row=int(rows[at]), value=names[at].as_py(), mend=mend)
    return found


class _Stream(io.RawIOBase):
    """A source as a file object, block by block."""

    def __init__(self, source: Source) -> None:
        self._blocks, self._held = unmarked(source, 1 << 20), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not len(self._held):
            self._held = memoryview(next(self._blocks, b""))
        count = min(len(buffer), len(self._held))
        buffer[:count], self._held = self._held[:count], self._held[count:]
        return count
