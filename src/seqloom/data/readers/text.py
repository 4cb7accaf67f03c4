"""Plain UTF-8 text: one line is one sequence, or the whole file is (``--stream``)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqloom.core.errors import DataError
from seqloom.core.files import replacing
from seqloom.data._source import BOM, Source, unmarked
from seqloom.data.columns import Columns, Guess
from seqloom.data.readers._base import BLOCK, Reader
from seqloom.data.sequences import Sequences

_NEWLINE, _RETURN = 10, 13


class Text(Reader):
    """Lines, or one stream. Blank lines are no sequences; a line's id is its number."""

    chunked = True

    def sniff(self, source: Source) -> float:
        """Whatever is text can be read as text; a name that says so makes it likely."""
        if b"\0" in source.head or source.head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return 0.05  # so that the complaint is about the encoding, not about an unknown format
        return 0.8 if source.suffix in (".txt", ".text") else 0.2

    def guess(self, source: Source, columns: Columns) -> Guess:
        """Lines unless ``stream`` is asked for."""
        source.check_text()
        self.refuse(source, columns, but=("stream",))
        if columns.stream:
            note = "the whole file is one sequence (as --stream asks)"
        else:
            note = "each line is one sequence; --stream reads the file as one long sequence"
        return Guess(reader="text", columns=columns, kind="text", notes=(note,))

    def batches(self, source: Source, columns: Columns, *, block: int = BLOCK) -> Iterator[Sequences]:
        """Blocks that end with a line."""
        notes = self.guess(source, columns).notes
        if columns.stream:
            data = source.content().removeprefix(BOM)
            yield _sequences(source, data, np.array([0, len(data)]), np.array([1]), notes)
            return
        for data, first_row in _whole_lines(source, block):
            values, offsets, rows = _lines(data)
            yield _sequences(source, values, offsets, rows + first_row, notes, original=data)

    def write(self, sequences: Sequences, path: str | Path) -> None:
        """One line a sequence; a sequence with a line end in it, or an empty one, cannot be a line."""
        refused = DataError("only text without line ends, none of it empty, can be lines", file=path)
        if sequences.kind != "text":
            raise refused
        data, offsets = sequences.bytes()
        text = data[offsets[0] : offsets[-1]]
        if (text == _NEWLINE).any() or (text == _RETURN).any() or not sequences.lengths.all():
            raise refused
        with replacing(Path(path)) as part:
            part.write_bytes(np.insert(text, offsets[1:] - offsets[0], _NEWLINE).tobytes())


def _whole_lines(source: Source, block: int) -> Iterator[tuple[bytes, int]]:
    """Bytes that end with a line, and how many lines came before."""
    waiting: list[bytes] = []
    before = 0
    for data in unmarked(source, block):
        cut = data.rfind(b"\n") + 1
        if cut:
            whole = b"".join([*waiting, data[:cut]])
            yield whole, before
            before += whole.count(b"\n")
            waiting = []
        waiting.append(data[cut:])
    if rest := b"".join(waiting):
        yield rest, before


def _lines(data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Text without line ends, offsets of the lines that are not blank, and their numbers from 1."""
    text = np.frombuffer(data, np.uint8)
    kept = text != _NEWLINE
    ends = np.flatnonzero(~kept)
    if b"\r" in data:
        before_end = ends[ends > 0] - 1
        kept[before_end[text[before_end] == _RETURN]] = False
        if text[-1] == _RETURN:
            kept[-1] = False
    kept_before = np.concatenate([[0], np.cumsum(kept)]) if b"\r" in data else None
    stops = ends - np.arange(len(ends)) if kept_before is None else kept_before[ends]
    total = int(len(text) - len(ends)) if kept_before is None else int(kept_before[-1])
    stops = np.append(stops, total)
    lengths = np.diff(stops, prepend=0)
    filled = lengths > 0
    return text[kept], np.concatenate([[0], stops[filled]]), np.flatnonzero(filled) + 1


def _sequences(
    source: Source,
    values: np.ndarray | bytes,
    offsets: np.ndarray,
    rows: np.ndarray,
    notes: tuple[str, ...],
    *,
    original: bytes | None = None,
) -> Sequences:
    import pyarrow as pa

    from seqloom.data import _build

    column = _build.text_column(values, offsets)
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        data = bytes(values) if original is None else original
        raise source.broken_text(data, int(rows[0]) if original is None else _first_row(original, rows)) from None
    table = _build.table(column, row=rows, columns={})
    return Sequences(table, "text", source=source.name, alphabet=_build.alphabet_of(column, "text"), notes=notes)


def _first_row(original: bytes, rows: np.ndarray) -> int:
    """Row of the block's first line, also where blank lines stand before the first sequence."""
    text = np.frombuffer(original, np.uint8)
    return int(rows[0]) - int((text[: np.argmax((text != _NEWLINE) & (text != _RETURN))] == _NEWLINE).sum())
