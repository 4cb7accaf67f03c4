"""Times written in many ways -> microseconds, or plain numbers.

A format is chosen that reads every value; where day and month can be read both ways, the user is asked.
"""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from seqloom.core.errors import DataError

_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y")
_CLOCKS = (
    "",
    " %H:%M:%S%.f",
    " %H:%M",
    "T%H:%M:%S%.f",
    "T%H:%M",
    "T%H:%M:%S%.f%:z",
    " %H:%M:%S%.f%:z",
    "T%H:%M:%S%.f%z",
)
SAMPLE = 500
ZONES = (None, "UTC")
ASK = "Write times as 2024-03-31 17:05:00, or choose another column with --time."


def parse(series: pl.Series, source: str, first_row: int) -> np.ndarray:
    """Int64 microseconds since 1970 (UTC) as datetime64[us], or float64 numbers; a missing time is an error."""
    no_gap(series, source, first_row)
    if series.dtype.is_numeric():
        return finite(series.cast(pl.Float64), source, first_row)
    if series.dtype.is_temporal():
        return microseconds(series.cast(pl.Datetime("us")) if series.dtype == pl.Date else series)
    text = series.cast(pl.String).str.strip_chars()
    sample = text.head(SAMPLE)
    if not sample.cast(pl.Float64, strict=False).null_count():
        numbers = text.cast(pl.Float64, strict=False)
        no_gap(numbers, source, first_row, series)
        return finite(numbers, source, first_row)
    return _dates(text, sample, source, first_row)


def _dates(text: pl.Series, sample: pl.Series, source: str, first_row: int) -> np.ndarray:
    plain = _iso(text)
    if plain is not None:
        return plain
    if sample.str.ends_with("Z").all():
        text, sample = text.str.replace("Z$", "+00:00"), sample.str.replace("Z$", "+00:00")
    fits = [format for format in formats() if not read_as(sample, format).null_count()]
    whole = [(format, read_as(text, format)) for format in fits]
    good = [(format, times) for format, times in whole if not times.null_count()]
    for other in good[1:]:
        at = apart(good[0][1], other[1])
        if at is not None:
            ways = [(format, times[at]) for format, times in (good[0], other)]
            raise two_ways(ways, source, first_row + at, text[at])
    if good:
        return microseconds(good[0][1])
    best = whole or [(format, read_as(text, format)) for format in formats()]
    times = min((times for _, times in best), key=lambda times: times.null_count())
    at = int(times.is_null().arg_max() or 0)
    raise DataError("is no time", file=source, row=first_row + at, value=text[at], mend=ASK)


def two_ways(good: list[tuple[str, object]], source: str, row: int, value: object) -> DataError:
    """The error for formats that both read every time; ``good`` has what each makes of the value."""
    ways = " and ".join(f"{format} ({time})" for format, time in good)
    return DataError(f"times can be read in two ways: {ways}", file=source, row=row, value=value, mend=ASK)


def apart(one: pl.Series, other: pl.Series) -> int | None:
    """Where two readings of the same values differ first: ``01/01/2024`` is one day in both."""
    differ = one != other
    return int(differ.arg_max() or 0) if differ.any() else None


def _iso(text: pl.Series) -> np.ndarray | None:
    """ISO 8601 times by Arrow's fast parser; None where any value is written otherwise."""
    found = (iso(text, zone) for zone in ZONES)
    return next((times for times in found if times is not None), None)


def iso(text: pl.Series, zone: str | None) -> np.ndarray | None:
    """ISO 8601 times that all have a zone, or all have none; None where any value is written otherwise."""
    strings = pc.cast(text.to_arrow(compat_level=pl.CompatLevel.oldest()), pa.large_string())
    try:
        return pc.cast(strings, pa.timestamp("us", zone)).cast(pa.int64()).to_numpy().view("datetime64[us]")
    except pa.ArrowInvalid:
        return None


def formats() -> list[str]:
    """Every way of writing a time that is known."""
    return [day + clock for day in _DAYS for clock in _CLOCKS]


def read_as(text: pl.Series, format: str) -> pl.Series:
    """Times in UTC by a format; null where a value is written otherwise."""
    zoned = format.endswith("z")
    times = text.str.to_datetime(format, time_unit="us", strict=False, time_zone="UTC" if zoned else None)
    return times.dt.replace_time_zone(None) if zoned else times


def microseconds(series: pl.Series) -> np.ndarray:
    """Moments as datetime64[us], in UTC."""
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone:
        series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return series.cast(pl.Datetime("us")).to_numpy()


def no_gap(series: pl.Series, source: str, first_row: int, shown: pl.Series | None = None) -> None:
    """DataError where a time is missing; ``shown`` holds the values as they are written."""
    if series.null_count():
        at = int(series.is_null().arg_max() or 0)
        value = None if shown is None else shown[at]
        problem = "there is no time" if shown is None else "is no number like the times before it"
        raise DataError(problem, file=source, row=first_row + at, value=value, mend="Fill it or delete the row.")


def finite(series: pl.Series, source: str, first_row: int) -> np.ndarray:
    """Numbers as float64; DataError where one is infinite or no number."""
    times = series.to_numpy()
    if not np.isfinite(times).all():
        at = int(np.argmin(np.isfinite(times)))
        mend = "Fill it or delete the row."
        raise DataError("is no finite time", file=source, row=first_row + at, value=float(times[at]), mend=mend)
    return times
