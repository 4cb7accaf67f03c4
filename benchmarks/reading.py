"""Reading files into Sequences, and encoding them, against the least that it costs.

Goals are rates: the last cases have a floor that only waits as long as the goal allows. Event-log CSV 60 MB/s, FASTA
150 MB/s, XES 150,000 events/s. The CSV is in no order: cases are interleaved, so that everything is sorted. polars
decides on its own threads (POLARS_MAX_THREADS).
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

from seqloom.data import Sequences, read
from seqloom.data.readers.fasta import Fasta
from seqloom.data.readers.table import Table
from seqloom.data.readers.text import Text
from seqloom.data.readers.xes import Xes
from seqloom.testing.benchmark import Case
from seqloom.testing.readers import check_reader
from seqloom.tokenizers.bytes import Bytes
from seqloom.tokenizers.characters import Characters
from seqloom.tokenizers.kmer import Kmer
from seqloom.tokenizers.symbols import Symbols

MEGABYTE = 1_000_000
FOLDER = tempfile.TemporaryDirectory(prefix="seqloom-reading-")


def cases() -> Iterator[Case]:
    log, genome, reads, lines = write_log(60), write_fasta(150, 10**9), write_fasta(60, 300), write_lines(60)
    parse = {"polars.read_csv": lambda: pl.read_csv(log, infer_schema=False)}
    yield Case(
        f"event log CSV, {size(log)}", {"read": lambda: read(log), **parse}, "polars.read_csv", check_tables, 4.0, 7
    )
    for name, path, check in (
        ("FASTA, one genome", genome, check_fasta),
        ("FASTA, many records", reads, check_fasta),
        ("lines of text", lines, check_text),
    ):
        arms = {"read": lambda path=path: read(path), "copy of the bytes": lambda path=path: path.read_bytes()}
        yield Case(f"{name}, {size(path)}", arms, "copy of the bytes", check, None, 7)
    traces, events = write_xes(200_000)
    yield within("event log CSV", log, log.stat().st_size / (60 * MEGABYTE), "60 MB/s", check_tables)
    yield within("FASTA, one genome", genome, genome.stat().st_size / (150 * MEGABYTE), "150 MB/s", check_fasta)
    yield within(f"XES, {events:,} events", traces, events / 150_000, "150,000 events/s", check_xes)
    yield from encoding(read(lines), read(log))


def within(name: str, path: Path, seconds: float, goal: str, check: Callable[[], None]) -> Case:
    """Reading against the time that a goal allows."""
    arms = {"read": lambda: read(path), goal: lambda: time.sleep(seconds)}
    return Case(f"{name}, {size(path)}, {goal}", arms, goal, check, 1.0, 5)


def encoding(text: Sequences, events: Sequences) -> Iterator[Case]:
    data = text.bytes()[0]
    codes = events.symbols()[0].flat
    for tokenizer, sequences, flat in (
        (Bytes(), text, data),
        (Characters(), text, data),
        (Symbols(), events, codes),
        (Kmer(Kmer.Config(k=6, stride=6)), text.select(np.arange(len(text) // 10)), data[: len(data) // 10]),
    ):
        tokenizer.fit(sequences)
        name = f"encode {type(tokenizer).__name__.lower()}, {len(flat) / MEGABYTE:.0f} M symbols"
        yield Case(
            name,
            {"encode": encode(tokenizer, sequences), "one table look-up": look_up(flat)},
            "one table look-up",
            lambda: None,
        )


def encode(tokenizer: object, sequences: Sequences) -> Callable[[], object]:
    return lambda: tokenizer.encode(sequences)


def look_up(flat: np.ndarray) -> Callable[[], object]:
    table = np.arange(int(flat.max()) + 1, dtype=np.int32)
    return lambda: table[flat]


def size(path: Path) -> str:
    return f"{path.stat().st_size / MEGABYTE:.0f} MB"


@cache
def check_tables() -> None:
    with tempfile.TemporaryDirectory() as folder:
        events = Sequences.of([["a", "b"], ["b"]], times=[[1.5, 2.5], [0.5]])
        check_reader(Table(), Path(folder), [events], suffix=".csv")


@cache
def check_xes() -> None:
    with tempfile.TemporaryDirectory() as folder:
        times = [[np.datetime64("2024-01-01T10:00", "us")] * 2, [np.datetime64("2024-01-02", "us")]]
        check_reader(Xes(), Path(folder), [Sequences.of([["a", "b"], ["b"]], times=times)], suffix=".xes")


@cache
def check_fasta() -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_reader(Fasta(), Path(folder), suffix=".fa")


@cache
def check_text() -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_reader(Text(), Path(folder), suffix=".txt")


def write_log(megabytes: int) -> Path:
    """Case, activity, time, resource and cost: 52 bytes a row."""
    rng, rows = np.random.default_rng(0), megabytes * MEGABYTE // 52
    path = Path(FOLDER.name) / "log.csv"
    start = np.datetime64("2024-01-01T00:00:00", "us")
    frame = pl.DataFrame(
        {
            "case": np.char.add("case-", rng.integers(0, rows // 25, rows).astype(str)),
            "activity": np.char.add("activity ", rng.integers(0, 40, rows).astype(str)),
            "timestamp": start + rng.integers(0, 10**7, rows).astype("timedelta64[s]"),
            "resource": np.char.add("r", rng.integers(0, 100, rows).astype(str)),
            "cost": rng.integers(0, 1000, rows) / 8,
        }
    )
    frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S")
    return path


def write_fasta(megabytes: int, length: int) -> Path:
    """Records of ``length`` letters in lines of 80."""
    rng, path = np.random.default_rng(0), Path(FOLDER.name) / f"records{length}.fa"
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, megabytes * MEGABYTE * 80 // 81 // 80 * 80)]
    with path.open("wb") as file:
        for number, start in enumerate(range(0, len(letters), length)):
            own = letters[start : start + length]
            body = np.insert(own, np.arange(80, len(own) + 1, 80), 10).tobytes()
            file.write(b">record%d and words\n" % number + body + b"\n" * (not body.endswith(b"\n")))
    return path


def write_xes(events: int) -> tuple[Path, int]:
    """Traces of 20 events, each with a name, a time, a resource and a cost; the number of events."""
    rng, path = np.random.default_rng(0), Path(FOLDER.name) / "log.xes"
    drawn = rng.integers(0, (40, 100, 8000), (events // 20 * 20, 3)).tolist()
    with path.open("w", encoding="utf-8") as file:
        file.write('<?xml version="1.0" encoding="UTF-8"?>\n<log xes.version="1.0">\n')
        for at, (activity, resource, cost) in enumerate(drawn):
            if at % 20 == 0:
                file.write(f'<trace>\n<string key="concept:name" value="case {at // 20}"/>\n')
            clock = f"2024-01-{at % 28 + 1:02}T{at % 24:02}:{at % 60:02}:00.000+01:00"
            file.write(
                f'<event>\n<string key="concept:name" value="activity {activity}"/>\n'
                f'<date key="time:timestamp" value="{clock}"/>\n'
                f'<string key="org:resource" value="r{resource}"/>\n<float key="cost" value="{cost / 8}"/>\n</event>\n'
            )
            if at % 20 == 19:
                file.write("</trace>\n")
        file.write("</log>\n")
    return path, len(drawn)


def write_lines(megabytes: int) -> Path:
    rng, path = np.random.default_rng(0), Path(FOLDER.name) / "lines.txt"
    words = np.array(["".join(rng.choice(list("etaoinshrdlu"), 1 + rng.poisson(4))) for _ in range(5000)])
    drawn = words[rng.integers(0, len(words), megabytes * MEGABYTE // 6)]
    lines = [" ".join(drawn[start : start + 20]) for start in range(0, len(drawn), 20)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
