"""From bytes to a polars frame: CSV and TSV (everything as strings, so that "007" stays), Parquet, JSON lines."""

import csv
import io
import json
from typing import Any

import polars as pl

from seqloom.core.errors import DataError
from seqloom.data._source import BOM, Source

SEPARATORS = (",", "\t", ";", "|")
SAVE_AGAIN = "Save the table again."


def form_of(source: Source) -> str | None:
    """``parquet``, ``jsonl``, a separator of columns, or None where it looks like no table."""
    if source.head[:4] == b"PAR1":
        return "parquet"
    text = source.head.removeprefix(BOM)
    if text.lstrip()[:1] == b"{" and _is_object(text.lstrip().split(b"\n", 1)[0]):
        return "jsonl"
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
    form = form_of(source)
    if form == "parquet":
        return _parquet(source, head), 1, form
    source.check_text()
    if form == "jsonl":
        return _json_lines(source, head), 1, form
    if form is None:
        mend = "Name the format with --reader, or separate the columns by commas or tabs."
        raise DataError("has no columns", file=source.name, row=1, value=_first_line(source), mend=mend)
    return _separated(source, form, head), 2, form


def _separated(source: Source, separator: str, head: bool) -> pl.DataFrame:
    options: dict[str, Any] = {"separator": separator, "infer_schema": False, "truncate_ragged_lines": head}
    try:
        if head:
            frame = pl.read_csv(io.BytesIO(_whole_lines(source)), encoding="utf8-lossy", **options)
        else:
            path = source.plain_path()
            frame = pl.read_csv(path if path is not None else source.content(), **options)
    except pl.exceptions.PolarsError as error:
        raise _csv_error(source, separator, error) from error
    except OSError as error:
        raise DataError(str(error), file=source.name) from error
    if not frame.height and not head:
        first = _first_line(source)
        raise DataError("has a header but no rows", file=source.name, row=1, value=first, mend="Check how it was made.")
    return frame


def _csv_error(source: Source, separator: str, error: Exception) -> DataError:
    """Look for the row that polars did not like."""
    data, text = source.content(), str(error)
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return source.broken_text(data)
    if not decoded.strip():
        return DataError("is empty", file=source.name)
    rows = csv.reader(io.StringIO(decoded, newline=""), delimiter=separator, strict=True)
    try:
        width = len(next(rows))
        for row in rows:
            if len(row) > width:
                problem = f"a row has {len(row)} columns, the header has {width}"
                mend = "Quote values that hold a separator."
                return DataError(problem, file=source.name, row=rows.line_num, value=separator.join(row), mend=mend)
    except csv.Error as found:
        return DataError(f"quotes do not match: {found}", file=source.name, row=rows.line_num, mend=SAVE_AGAIN)
    return DataError(f"is no readable table: {text.splitlines()[0]}", file=source.name, mend=SAVE_AGAIN)


def _parquet(source: Source, head: bool) -> pl.DataFrame:
    """By Arrow's reader: a damaged file is an exception there, where polars may abort; and strings are checked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = source.plain_path()
    try:
        file = pq.ParquetFile(path if path is not None else pa.BufferReader(source.content()))
        with file:
            table = pa.Table.from_batches(_first(file), file.schema_arrow) if head else file.read()
        table.validate(full=True)
        return pl.DataFrame(pl.from_arrow(table))
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        problem = f"is no readable Parquet file: {str(error).splitlines()[0]}"
        raise DataError(problem, file=source.name, mend="Is it cut short? Copy it again.") from error


def _first(file: Any) -> list[Any]:
    batch = next(file.iter_batches(batch_size=200), None)
    return [] if batch is None else [batch]


def _json_lines(source: Source, head: bool) -> pl.DataFrame:
    data = _whole_lines(source) if head else source.content()
    try:
        return pl.read_ndjson(io.BytesIO(data.removeprefix(BOM)), infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise _json_error(source, data, error) from error


def _json_error(source: Source, data: bytes, error: Exception) -> DataError:
    for row, line in enumerate(data.split(b"\n"), 1):
        try:
            if line.strip() and not isinstance(json.loads(line), dict):
                return DataError("is no JSON object", file=source.name, row=row, value=line[:40])
        except UnicodeDecodeError:
            return source.broken_text(data)
        except ValueError as found:
            return DataError(
                f"is no JSON: {found}", file=source.name, row=row, value=line[:40], mend="One object a line."
            )
    return DataError(f"is no readable JSON lines: {str(error).splitlines()[0]}", file=source.name)


def _whole_lines(source: Source) -> bytes:
    """The head without a line that it cuts; at least the first line."""
    data = source.head
    cut = data.rfind(b"\n") + 1
    return data[:cut] if cut and len(data) >= 1 << 16 else data


def _first_line(source: Source) -> str:
    return source.head.split(b"\n", 1)[0].decode("utf-8", "replace").strip()


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return len(line) > 1 << 15  # a first line longer than the head
