"""Compare over every model on an event log of 300,000 events: wall time beside the budgets, memory at its peak.

The log has 30 activities in some 20,000 cases. A case has one of six kinds, and each kind its own likely followers of
every activity; one of three closers ends a case, the one that belongs to its opener; one step in twenty repeats what
was done three steps before; waits are log-normal, and cases run beside one another. The rows are in the order of time.

`seqloom compare LOG --models all` is a process of its own, the report included. The sum of the budgets counts one
budget a training of a network (mixers and recipes, times the seeds). Reading, classical models, looks at the
validation part, judging and the report have no budget: they share the 15 % that the goal leaves. The table says what
each arm took from its first file (run.json) to its last (arm.json), and what was left for all the rest.

    python benchmarks/comparison.py                  SEQLOOM_BUDGET=5s SEQLOOM_EVENTS=30000 for a trial
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from seqloom.core import discovery
from seqloom.testing.benchmark import hardware, machine
from seqloom.training.budget import parse

FULL = (300_000, "60s")
"""What the goals are said of; only such a run writes its result down."""
EVENTS = int(os.environ.get("SEQLOOM_EVENTS", FULL[0]))
BUDGET = os.environ.get("SEQLOOM_BUDGET", FULL[1])
ACTIVITIES, KINDS, ENDS, LENGTH = 30, 6, 3, 15
SLACK, GIGABYTES = 1.15, 2.0


@dataclass(frozen=True)
class Measured:
    """What one comparison took."""

    seconds: float
    gigabytes: float
    """Largest resident memory of the process; compare starts no others."""
    found: dict
    arms: dict[str, float]
    """Wall seconds of each arm by its name: training, looks, judging, saving."""

    @property
    def networks(self) -> list[dict]:
        """Rows of the models that had a budget."""
        classical = discovery.names("models/classical")
        return [one for one in self.found["models"] if one["name"] not in classical]

    @property
    def budgets(self) -> float:
        """Seconds of all budgets together."""
        return len(self.networks) * self.found["seeds"] * (parse(self.found["budget"]).seconds or 0.0)

    @property
    def reached(self) -> bool:
        """Whether both goals are."""
        return self.seconds <= SLACK * self.budgets and self.gigabytes <= GIGABYTES


def write_log(path: Path, events: int) -> int:
    """``case,activity,timestamp,resource``; the number of cases."""
    rng = np.random.default_rng(0)
    case_E, activity_E = _walked(rng, events)
    wait_E = rng.lognormal(7 + activity_E % 5, 0.8)  # seconds: from minutes to a day
    begun = np.cumsum(rng.exponential(1800, case_E[-1] + 1))
    spent_E = np.cumsum(wait_E)
    first_E = np.flatnonzero(np.diff(case_E, prepend=-1))
    clock_E = begun[case_E] + spent_E - spent_E[first_E][case_E]
    order_E = np.argsort(clock_E, kind="stable")
    start = np.datetime64("2024-01-01T00:00:00", "ms")
    frame = pl.DataFrame(
        {
            "case": case_E[order_E],
            "activity": activity_E[order_E],
            "timestamp": start + (clock_E[order_E] * 1000).astype("timedelta64[ms]"),
            "resource": (activity_E[order_E] * 7 + rng.integers(0, 5, events)) % 40,
        }
    ).with_columns(
        case=pl.format("case-{}", "case"),
        activity=pl.format("activity {}", "activity"),
        resource=pl.format("r{}", "resource"),
    )
    frame.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S%.3f")
    return int(case_E[-1]) + 1


def _walked(rng: np.random.Generator, events: int) -> tuple[np.ndarray, np.ndarray]:
    """Case and activity of every event (E,), case after case; the last case is cut."""
    middle, count = ACTIVITIES - 2 * ENDS, 2 * events // LENGTH
    follow_KA4 = np.argsort(rng.random((KINDS, ACTIVITIES, middle)), axis=2)[:, :, :4] + ENDS
    kind_N, opener_N = rng.integers(0, KINDS, count), rng.integers(0, ENDS, count)
    length_N = 3 + rng.geometric(1 / (LENGTH - 2), count)
    walked_NT = np.zeros((count, length_N.max()), np.int64)
    walked_NT[:, 0] = opener_N
    for at in range(1, walked_NT.shape[1]):
        choice_N = np.minimum(rng.geometric(0.6, count) - 1, 3)
        walked_NT[:, at] = follow_KA4[kind_N, walked_NT[:, at - 1], choice_N]
        again_N = (rng.random(count) < 0.05) & (at > 3)
        walked_NT[again_N, at] = walked_NT[again_N, at - 3]
    walked_NT[np.arange(count), length_N - 1] = ACTIVITIES - ENDS + opener_N
    there_NT = np.arange(walked_NT.shape[1]) < length_N[:, None]
    return np.nonzero(there_NT)[0][:events], walked_NT[there_NT][:events]


def measured(path: Path, folder: Path) -> Measured:
    """One comparison over every model."""
    words = ["compare", str(path), "--models", "all", "--budget", BUDGET, "--out", str(folder), "--json"]
    told = folder.with_suffix(".json")
    began = time.perf_counter()
    with told.open("wb") as stdout:
        process = subprocess.Popen([sys.executable, "-m", "seqloom", *words], stdout=stdout, stderr=subprocess.PIPE)
        begun = _follow(process)
        _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise RuntimeError(f"{' '.join(words)} ended with status {status}")
    ends = sorted((file.stat().st_mtime, file.parent.name.rsplit("-", 2)[0]) for file in folder.glob("arms/*/arm.json"))
    arms = {name: end - before for (before, _), (end, name) in itertools.pairwise([(begun, ""), *ends])}
    return Measured(seconds, used.ru_maxrss * 1024 / 1e9, json.loads(told.read_text("utf-8")), arms)


def _follow(process: subprocess.Popen) -> float:
    """Pass on what is said; the time of the first line, which comes when the data are read and the arms begin."""
    begun = 0.0
    for line in process.stderr or ():
        begun = begun or time.time()
        print(line.decode("utf-8").rstrip(), file=sys.stderr, flush=True)
    return begun


def page(got: Measured, before: str, cases: int) -> list[str]:
    """The result as lines of Markdown."""
    lines = ["# comparison", "", *(f"- {key}: {value}" for key, value in machine().items())]
    lines += [f"- log: {EVENTS:,} events of {ACTIVITIES} activities in {cases:,} cases"]
    lines += [f"- command: seqloom compare LOG --models all --budget {BUDGET} --json", f"- load before: {before}", ""]
    networks = f"{len(got.networks)} networks of {BUDGET}, seeds: {got.found['seeds']}"
    lines += ["| | measured | goal |", "| --- | ---: | ---: |", f"| budgets: {networks} | {got.budgets:.0f} s | |"]
    lines += [f"| wall time | {got.seconds:.1f} s | {_goal(got.seconds, got.budgets * SLACK, 's')} |"]
    lines += [f"| peak memory | {got.gigabytes:.2f} GB | {_goal(got.gigabytes, GIGABYTES, 'GB')} |", ""]
    lines += ["| arm | bits per symbol | s of training | s of the arm |", "| --- | ---: | ---: | ---: |"]
    for one in got.found["models"]:
        told = one["error"] or f"{one['bits_per_symbol']:.3f}"
        lines.append(f"| {one['name']} | {told} | {one.get('seconds', 0):.1f} | {got.arms.get(one['name'], 0):.1f} |")
    networks = {one["name"] for one in got.networks}
    classical = sum(seconds for name, seconds in got.arms.items() if name not in networks)
    rest = got.seconds - sum(got.arms.values())
    return [
        *lines,
        f"| classical models together | | | {classical:.1f} |",
        f"| start, reading, report | | | {rest:.1f} |",
    ]


def _goal(value: float, goal: float, unit: str) -> str:
    return f"{goal:.4g} {unit} {'reached' if value <= goal else 'MISSED'}"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="seqloom-comparison-") as folder:
        path, before = Path(folder) / "log.csv", ", ".join(f"{load:.1f}" for load in os.getloadavg())
        cases = write_log(path, EVENTS)
        got = measured(path, Path(folder) / "compared")
    text = "\n".join(page(got, before, cases)) + "\n"
    print(text)
    if (EVENTS, BUDGET) == FULL:
        name = f"comparison_{hardware()}_{machine()['date']}.md"
        (Path(__file__).parent / "results" / name).write_text(text, encoding="utf-8")
    return 0 if got.reached else 1


if __name__ == "__main__":
    sys.exit(main())
