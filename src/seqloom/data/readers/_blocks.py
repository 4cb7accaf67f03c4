"""A table in blocks of whole rows: what is larger than memory is parsed a part at a time.

A block of CSV ends behind the last line break that has an even number of quotes before it, as polars itself counts
them, or behind the last one where quotes are letters; the header is put before every block, so that each is a table of
the same columns.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import polars as pl
import pyarrow as pa

from seqloom.data._source import BOM, Source, unmarked
from seqloom.data.readers import _frames, _nested

QUOTE, BREAK = b'"', b"\n"
NO_QUOTE = b"\xff"  # in no text of UTF-8


class Blocks:
    """One table, to be gone through several times."""

    def __init__(self, source: Source, form: str) -> None:
        """``form`` is as ``_frames.form_of`` says it."""
        self.source, self.form = source, form

    @property
    def first_row(self) -> int:
        """Row of the first line of the table in the file: a CSV has its header above."""
        return 2 if len(self.form) == 1 else 1

    def frames(self, size: int) -> Iterator[tuple[int, pl.DataFrame]]:
        """Frames of about ``size`` bytes, each with the number of rows before it; the next is parsed meanwhile."""
        if self.form == "parquet":
            parts = _parquet(self.source, size)
        elif self.form == "jsonl":
            parts = _objects(self.source, size, self._types)
        else:
            parts = _filled(self._separated(size))
        before = 0
        for frame in _ahead(_nested.without_objects(part, self.source.name) for part in parts):
            yield before, frame
            before += frame.height

    def _separated(self, size: int) -> Iterator[pl.DataFrame]:
        header = b""
        for parts in records(self.source.blocks(size), lambda: self._quote is not None):
            table = b"".join((header, *parts))
            quote = self._quote if QUOTE in table else '"'
            if not header:
                header = table[: _first_row(table, NO_QUOTE if quote is None else QUOTE)]
            if len(table) == len(header):
                continue
            try:
                frame = pl.read_csv(table, separator=self.form, infer_schema=False, quote_char=quote)
            except pl.exceptions.PolarsError as error:
                raise _frames.csv_error(self.source, self.form, error) from error
            if quote and QUOTE in table:
                _frames.check_quotes(frame, self.source, self.form)
            yield frame

    @cached_property
    def _quote(self) -> str | None:
        """Asked for at the first quote alone: a file without any is not gone through for it."""
        return _frames.quote_of(unmarked(self.source, 1 << 24), self.form)

    @cached_property
    def _types(self) -> Any:
        """Columns of JSON lines and their types: they come from the whole file, as when it is read at once."""
        seen = None
        for frame in _objects(self.source, 1 << 25, None):
            seen = frame.clear() if seen is None else pl.concat([seen, frame.clear()], how="diagonal_relaxed")
        return None if seen is None else seen.schema


def unpacked_size(source: Source, form: str) -> int:
    """About how many bytes of table there are; a packed file is taken for eight times its size."""
    if form == "parquet":
        meta = _frames.parquet_file(source).metadata
        return sum(meta.row_group(at).total_byte_size for at in range(meta.num_row_groups))
    path = source.plain_path()
    if path is not None:
        return path.stat().st_size
    return 8 * source.path.stat().st_size if source.path is not None else sum(map(len, source.blocks()))


def without_blank_ends(frame: pl.DataFrame) -> pl.DataFrame:
    """Without rows at the end in which every column is empty: a file that ends with blank lines."""
    height = frame.height
    while height and all(value is None for value in frame.row(height - 1)):
        height -= 1
    return frame.head(height)


def _ahead(parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """One block is parsed while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, parts, None)
        while (frame := waiting.result()) is not None:
            waiting = pool.submit(next, parts, None)
            yield frame


def _filled(parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Blank rows at the end of a block wait for a row that is not blank."""
    held = None
    for part in parts:
        frame = part if held is None else pl.concat([held, part])
        filled = without_blank_ends(frame)
        held = frame.tail(frame.height - filled.height) if filled.height < frame.height else None
        if filled.height:
            yield filled


def records(blocks: Iterator[bytes], quoted: Callable[[], bool] = lambda: True) -> Iterator[list[Any]]:
    """The same bytes, cut behind rows, each in pieces; a row that is longer than a block makes a longer one.

    ``quoted`` is asked at the first quote: True where a line break between quotes belongs to its field.
    """
    rest: list[Any] = []
    odd, quote = False, QUOTE
    for block in blocks:
        if quote == QUOTE and QUOTE in block and not quoted():
            quote = NO_QUOTE
        cut = _last_row(block, quote, odd)
        if cut and not (_blank(block, cut) and all(_blank(part, len(part)) for part in rest)):
            yield [*rest, memoryview(block)[:cut]]
            rest, odd = [], False
            block = block[cut:]
        rest.append(block)
        odd ^= quote in block and block.count(quote) % 2 == 1
    if any(rest):
        yield rest


def _last_row(block: bytes, quote: bytes, odd: bool) -> int:
    """Where the last row that ends in a block ends, 0 where none does; ``odd``: it begins inside quotes."""
    end = block.rfind(BREAK)
    if quote not in block:  # much faster than to count
        return 0 if odd else end + 1
    inside = odd ^ (block.count(quote, 0, end + 1) % 2 == 1)
    while end >= 0 and inside:
        opened = block.rfind(quote, 0, end)
        if opened < 0:
            return 0
        end = block.rfind(BREAK, 0, opened)
        inside ^= block.count(quote, end + 1, opened + 1) % 2 == 1
    return end + 1


def _blank(data: bytes, end: int) -> bool:
    """True where there is nothing but line breaks up to ``end``; the first bytes decide nearly always."""
    return not data[: min(end, 64)].strip(b"\r\n") and not data[:end].strip(b"\r\n")


def _first_row(data: bytes, quote: bytes) -> int:
    """Where the first row that is not blank ends."""
    begin = len(data) - len(data.lstrip(b"\r\n"))
    end = data.find(BREAK, begin)
    while end >= 0 and data.count(quote, begin, end) % 2:
        end = data.find(BREAK, end + 1)
    return end + 1 if end >= 0 else len(data)


def _objects(source: Source, size: int, schema: Any) -> Iterator[pl.DataFrame]:
    row = 1
    for parts in records(source.blocks(size), lambda: False):
        data = b"".join(parts).removeprefix(BOM if row == 1 else b"")
        try:
            yield _frames.objects(data, schema)
        except pl.exceptions.PolarsError as error:
            raise _frames.json_error(source, data, error, row) from error
        row += data.count(BREAK)


def _parquet(source: Source, size: int) -> Iterator[pl.DataFrame]:
    file = _frames.parquet_file(source)
    rows = max(file.metadata.num_rows, 1)
    batch = max(size * rows // max(unpacked_size(source, "parquet"), 1), 1)
    with file, _frames.parquet_damage(source):
        for part in file.iter_batches(batch_size=min(batch, rows)):
            yield _frames.checked(pa.Table.from_batches([part]))
