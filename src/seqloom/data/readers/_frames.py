"""From bytes to a polars frame: CSV and TSV (everything as strings, so that "007" stays), Parquet, JSON lines."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import polars as pl

from seqloom.core.errors import DataError
from seqloom.data._source import BOM, Source, unmarked

SEPARATORS = (",", "\t", ";", "|")
_ARRAY = re.compile(rb"\s*\[\s*\{\s*\"")  # of JSON objects
SAVE_AGAIN = "Save the table again."


def form_of(source: Source) -> str | None:
    """``parquet``, ``jsonl``, a separator of columns, or None where it looks like no table."""
    if source.head[:4] == b"PAR1":
        return "parquet"
    text = source.head.removeprefix(BOM)
    if text.lstrip()[:1] == b"{" and _is_object(text.lstrip().split(b"\n", 1)[0]):
        return "jsonl"
    if source.suffix == ".json" or _ARRAY.match(text):
        return "json"
    return separator_of(text.decode("utf-8", "replace"), source.suffix)


def separator_of(text: str, suffix: str = "") -> str | None:
    """The separator that cuts every line of the head into as many columns as the first."""
    lines = text.splitlines()[:200]
    lines = [line for line in (lines if len(lines) < 3 else lines[:-1]) if line.strip()]  # the last may be cut
    if not lines:
        return None
    preferred = {".tsv": "\t", ".csv": ","}.get(suffix)
    found = []
    for separator in SEPARATORS:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        same = sum(width == widths[0] for width in widths) / len(widths)
        if widths[0] > 1 and (same >= 0.9 or separator == preferred):
            found.append((separator == preferred, widths[0], separator))
    if found:
        return max(found, key=lambda item: item[:2])[2]
    return preferred


def load(source: Source, *, head: bool = False) -> tuple[pl.DataFrame, int, str]:
    """The frame, the row of its first line in the file, and its form. ``head`` reads only the first lines."""
    form = known_form(source)
    if form == "parquet":
        return _parquet(source, head), 1, form
    if form == "jsonl":
        return _json_lines(source, head), 1, form
    if form == "json":
        from seqloom.data.readers._nested import json_array

        return json_array(source), 1, form
    return separated(source, form, head=head), 2, form


def known_form(source: Source) -> str:
    """The form of a table; DataError for what is none."""
    form = form_of(source)
    if form != "parquet":
        source.check_text()
    if form is None:
        mend = "Name the format with --reader, or separate the columns by commas or tabs."
        raise DataError("has no columns", file=source.name, row=1, value=_first_line(source), mend=mend)
    return form


def separated(source: Source, separator: str, *, head: bool = False) -> pl.DataFrame:
    """A table with a separator between its columns, every value a string."""
    options: dict[str, Any] = {"separator": separator, "infer_schema": False, "truncate_ragged_lines": head}
    path = None if head else source.plain_path()
    try:
        if path is not None:
            options["quote_char"] = quote_of(unmarked(source, 1 << 24), separator)
            frame = pl.read_csv(path, **options)
        else:
            data = _whole_lines(source) if head else source.content()
            options["quote_char"] = quote_of([data.removeprefix(BOM)], separator)
            frame = pl.read_csv(io.BytesIO(data), encoding="utf8-lossy" if head else "utf8", **options)
    except pl.exceptions.PolarsError as error:
        raise csv_error(source, separator, error) from error
    except OSError as error:
        raise DataError(str(error), file=source.name) from error
    if options["quote_char"] and not head:
        check_quotes(frame, source, separator)
    if not frame.height and not head:
        if found := _broken(source) or _bare_quote(source, separator):  # in the header, it takes in all that follows
            raise found
        first = _first_line(source)
        raise DataError("has a header but no rows", file=source.name, row=1, value=first, mend="Check how it was made.")
    return frame


def quote_of(blocks: Iterable[bytes], separator: str) -> str | None:
    """What quotes the fields; None where no field begins with a quote, so that all are letters: ``5" pipe``."""
    begins, before = (b"\n", separator.encode()), b"\n"
    for block in blocks:
        if (block[:1] == b'"' and before in begins) or any(begin + b'"' in block for begin in begins):
            return '"'
        before = block[-1:]
    return None


def check_quotes(frame: pl.DataFrame, source: Source, separator: str) -> None:
    """DataError where rows hang together by quotes that are letters: polars may take what is between for one value."""
    for column in frame:
        lines = column.filter(column.str.contains("\n", literal=True))
        if lines.str.contains('"', literal=True).any():
            if found := _broken(source) or _bare_quote(source, separator):
                raise found
            return


def csv_error(source: Source, separator: str, error: Exception) -> DataError:
    """Look for the row that polars did not like; a file larger than memory is gone through a part at a time."""
    if broken := _broken(source):
        return broken
    rows = csv.reader(_lines(source), delimiter=separator, strict=True)
    try:
        width = len(next(rows, []))
        if not width and not any(rows):
            return DataError("is empty", file=source.name)
        for row in rows:
            if len(row) > width:
                problem = f"a row has {len(row)} columns, the header has {width}"
                mend = "Quote values that hold a separator."
                return DataError(problem, file=source.name, row=rows.line_num, value=separator.join(row), mend=mend)
    except csv.Error as found:
        return DataError(f"quotes do not match: {found}", file=source.name, row=rows.line_num, mend=SAVE_AGAIN)
    if bare := _bare_quote(source, separator):
        return bare
    return DataError(f"is no readable table: {str(error).splitlines()[0]}", file=source.name, mend=SAVE_AGAIN)


def _bare_quote(source: Source, separator: str) -> DataError | None:
    """The error for a quote that is a letter and has no partner in its line, in a file that quotes other fields."""
    cut, held = re.escape(separator), list[str]()
    quoted = re.compile(rf'(?:^|(?<={cut}))"[^"]*(?:""[^"]*)*"(?={cut}|\r?\n?\Z)')
    rows = csv.reader((held.append(line) or line for line in _lines(source)), delimiter=separator)
    with suppress(csv.Error):  # a field that is too long for it
        for _ in rows:
            left = quoted.sub(lambda field: "\n" if "\n" in field[0] else "", "".join(held))
            held.clear()
            if any(line.count('"') % 2 for line in left.split("\n")):  # two of them polars reads as they stand
                value = next(field for field in left.split(separator) if '"' in field).strip("\r\n")
                problem, again = "a quote stands inside a field that is not quoted", value.replace('"', '""')
                mend = f'Double the quote and quote the field: "{again}".'
                return DataError(problem, file=source.name, row=rows.line_num, value=value, mend=mend)
    return None


def _broken(source: Source) -> DataError | None:
    """The error for bytes that are not UTF-8."""
    decoder, row, rest = codecs.getincrementaldecoder("utf-8")(), 1, b""
    for block in source.blocks():
        data, rest = rest + block, b""
        try:
            decoder.decode(block)
            rest = decoder.getstate()[0]  # a character that the block cuts
        except UnicodeDecodeError:
            return source.broken_text(data, row)
        row += block.count(b"\n")
    return source.broken_text(rest, row) if rest else None


def _lines(source: Source) -> Iterator[str]:
    decoder, rest = codecs.getincrementaldecoder("utf-8-sig")(), ""
    for block in source.blocks():
        whole, found, rest = (rest + decoder.decode(block)).rpartition("\n")
        yield from io.StringIO(whole + found, newline="")
    yield from io.StringIO(rest, newline="")


def _parquet(source: Source, head: bool) -> pl.DataFrame:
    """By Arrow's reader: a damaged file is an exception there, where polars may abort; and strings are checked."""
    with parquet_file(source) as file, parquet_damage(source):
        return checked(_first(file) if head else file.read())


def parquet_file(source: Source) -> Any:
    """The open file; nothing but its last bytes is read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = source.plain_path()
    with parquet_damage(source):
        return pq.ParquetFile(path if path is not None else pa.BufferReader(source.content()))


@contextmanager
def parquet_damage(source: Source) -> Iterator[None]:
    """What Arrow and polars raise at a damaged file, as one error."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        problem = f"is no readable Parquet file: {str(error).splitlines()[0]}"
        raise DataError(problem, file=source.name, mend="Is it cut short? Copy it again.") from error


def checked(table: Any) -> pl.DataFrame:
    """A frame of an Arrow table; strings that are not UTF-8 are an error."""
    table.validate(full=True)
    return pl.DataFrame(pl.from_arrow(table))


def _first(file: Any) -> Any:
    import pyarrow as pa

    batch = next(file.iter_batches(batch_size=200), None)
    return pa.Table.from_batches([] if batch is None else [batch], file.schema_arrow)


def _json_lines(source: Source, head: bool) -> pl.DataFrame:
    data = _whole_lines(source) if head else source.content()
    try:
        return objects(data.removeprefix(BOM))
    except pl.exceptions.PolarsError as error:
        raise json_error(source, data, error) from error


def objects(data: bytes, schema: Any = None) -> pl.DataFrame:
    """One row an object; the types come from all of them, where they are not given."""
    return pl.read_ndjson(io.BytesIO(data), infer_schema_length=None, schema=schema)


def json_error(source: Source, data: bytes, error: Exception, first_row: int = 1) -> DataError:
    """Look for the line that polars did not like; ``data`` may be a part of the file."""
    mend = "Write one object a line."
    for row, line in enumerate(data.split(b"\n"), first_row):
        try:
            if line.strip() and not isinstance(json.loads(line, parse_constant=_no_number), dict):
                return DataError("is no JSON object", file=source.name, row=row, value=line[:40], mend=mend)
        except UnicodeDecodeError:
            return source.broken_text(data, first_row)
        except RecursionError:
            return DataError("is JSON nested too deeply", file=source.name, row=row, value=line[:40], mend=mend)
        except ValueError as found:
            return DataError(f"is no JSON: {found}", file=source.name, row=row, value=line[:40], mend=mend)
    problem = f"is no readable JSON lines: {str(error).splitlines()[0]}"
    return DataError(problem, file=source.name, mend="Give a field values of one kind in all lines.")


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number, write null")


def _whole_lines(source: Source) -> bytes:
    """The head without a line that it cuts; the first line is never cut."""
    data = source.head
    if len(data) < 1 << 16:
        return data
    if b"\n" not in data:
        blocks = []
        for block in source.blocks(1 << 20):
            blocks.append(block)
            if b"\n" in block:
                break
        data = b"".join(blocks)
    return data[: data.rfind(b"\n") + 1] or data


def _first_line(source: Source) -> str:
    return source.head.split(b"\n", 1)[0].decode("utf-8", "replace").strip()


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except RecursionError:
        return True  # the reader says how deep it may be
    except ValueError:
        return len(line) > 1 << 15  # a first line longer than the head
