"""Files larger than memory: seconds and peak memory of inspect and fit on an event log of 1 GB.

Every command is a process of its own, so that its peak (ru_maxrss, mapped pages included) is its own. The log is made
by a random walk over 40 activities; cases begin all the time and run beside one another, and the rows are in the order
of time, as real logs are. Goals: inspect in 10 s; inspect, fit ngram and 20 steps of a gru within 1.5 GB.

    python benchmarks/streaming.py                        the commands; SEQLOOM_MEGABYTES=100 for a smaller file
    python benchmarks/run.py streaming                    reading alone, 100 MB, against polars
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from seqloom.data._source import Source
from seqloom.data.columns import Columns
from seqloom.data.readers.table import Table
from seqloom.testing.benchmark import Case, hardware, machine

MEGABYTE = 1_000_000
ROW = 42.0  # bytes a row
BLOCK = 1 << 20
SIZE = int(os.environ.get("SEQLOOM_MEGABYTES", "1000"))
LENGTH, BESIDE, ACTIVITIES = 20, 5000, 40


@dataclass(frozen=True)
class Limit:
    """A command, and what it may take."""

    name: str
    words: tuple[str, ...]
    seconds: float | None
    gigabytes: float


LIMITS = (
    Limit("inspect", ("inspect",), 10.0, 1.5),
    Limit("fit ngram", ("fit", "--model", "ngram"), None, 1.5),
    Limit("fit gru, 20 steps", ("fit", "--model", "gru", "--budget", "20steps"), None, 1.5),
)


def write_log(path: Path, megabytes: int) -> int:
    """``case,activity,timestamp,resource,cost``: rows in the order of time; the number of rows."""
    rng, rows, done = np.random.default_rng(0), int(megabytes * MEGABYTE / ROW), 0
    follow = np.argsort(rng.random((ACTIVITIES, ACTIVITIES)), axis=1)[:, :4]  # four activities may follow each
    now = np.datetime64("2024-01-01T00:00:00", "s").astype(np.int64)
    case_S, state_S, begun = np.arange(BESIDE), rng.integers(0, ACTIVITIES, BESIDE), BESIDE
    with path.open("wb") as file:
        file.write(b"case,activity,timestamp,resource,cost\n")
        while done < rows:
            steps = min(BLOCK, rows - done) // BESIDE + 1
            case, state = np.empty((steps, BESIDE), np.int64), np.empty((steps, BESIDE), np.int64)
            for step in range(steps):  # every case that runs has one event in each round
                case[step], state[step] = case_S, state_S
                choice = np.minimum(rng.geometric(0.7, BESIDE) - 1, 3)
                state_S = follow[state_S, choice]
                ended = rng.random(BESIDE) < 1 / LENGTH
                case_S = case_S.copy()
                case_S[ended] = begun + np.arange(int(ended.sum()))
                begun += int(ended.sum())
            shuffled = rng.permuted(np.broadcast_to(np.arange(BESIDE), (steps, BESIDE)), axis=1)
            case, state = np.take_along_axis(case, shuffled, 1).ravel(), np.take_along_axis(state, shuffled, 1).ravel()
            clock = now + np.cumsum(rng.integers(0, 2, len(case)))
            now = int(clock[-1])
            _frame(case, state, clock, rng).write_csv(file, include_header=False, datetime_format="%Y-%m-%d %H:%M:%S")
            done += len(case)
    return done


def _frame(case: np.ndarray, state: np.ndarray, clock: np.ndarray, rng: np.random.Generator) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "case": pl.Series(case),
            "activity": pl.Series(state),
            "timestamp": pl.Series(clock.astype("datetime64[s]").astype("datetime64[ms]")),
            "resource": pl.Series(rng.integers(0, 100, len(case))),
            "cost": pl.Series(rng.integers(0, 1000, len(case)) / 8),
        }
    ).with_columns(
        case=pl.format("c{}", "case"),
        activity=pl.format("a{}", "activity"),
        resource=pl.format("r{}", "resource"),
    )


def cases() -> Iterator[Case]:
    with tempfile.TemporaryDirectory(prefix="seqloom-streaming-") as folder:
        path = Path(folder) / "log.csv"
        write_log(path, 100)
        arms = {
            "block by block": lambda: list(Table().batches(Source(path), Columns(), block=1 << 24)),
            "in memory": lambda: list(Table().batches(Source(path), Columns(), block=1 << 40)),
            "polars.read_csv": lambda: pl.read_csv(path, infer_schema=False),
        }
        yield Case("event log CSV, 100 MB", arms, "polars.read_csv", lambda: _check(path), None, 5)


def _check(path: Path) -> None:
    streamed, whole = (next(iter(Table().batches(Source(path), Columns(), block=1 << bits))) for bits in (24, 40))
    if not streamed.table.equals(whole.table):
        raise AssertionError("blocks give other sequences than the whole table")


def measured(words: tuple[str, ...]) -> tuple[float, float]:
    """Wall seconds and peak gigabytes of a command."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "seqloom", *words], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(words)} ended with status {status}")
    return time.perf_counter() - began, used.ru_maxrss * 1024 / 1e9


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="seqloom-streaming-") as folder:
        path = Path(folder) / "log.csv"
        rows = write_log(path, SIZE)
        lines = ["# streaming", "", *(f"- {key}: {value}" for key, value in machine().items())]
        lines += [
            f"- file: {path.stat().st_size / MEGABYTE:.0f} MB, {rows:,} rows of case, event, time, string, number"
        ]
        lines += ["- load before: " + ", ".join(f"{load:.1f}" for load in os.getloadavg())]
        lines += ["", "| command | s | goal | peak GB | goal |", "| --- | ---: | ---: | ---: | ---: |"]
        for number, limit in enumerate(LIMITS):
            verb, *rest = limit.words
            out = ("--out", f"{folder}/model{number}") if verb == "fit" else ()
            seconds, peak = measured((verb, str(path), *rest, *out))
            goals = (_goal(seconds, limit.seconds), _goal(peak, limit.gigabytes))
            lines.append(f"| {limit.name} | {seconds:.1f} | {goals[0]} | {peak:.2f} | {goals[1]} |")
            print(lines[-1], flush=True)
    name = f"streaming_{hardware()}_{machine()['date']}.md"
    (Path(__file__).parent / "results" / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _goal(value: float, goal: float | None) -> str:
    return "" if goal is None else f"{goal:g} {'reached' if value <= goal else 'MISSED'}"


if __name__ == "__main__":
    main()
