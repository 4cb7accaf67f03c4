"""Time against a floor, honestly: nothing that is not green, medians of ratios, and who else used the machine.

A case has several arms, of which one is the floor: the least that the work costs on this machine (a copy of the same
bytes, the bare transform). All arms are timed in turn in every round, and a ratio is taken within a round, so that a
busy neighbour disturbs both sides of it.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch

TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(frozen=True)
class Case:
    """One comparison. Its arms are callables without arguments; the first is what is judged."""

    name: str
    arms: Mapping[str, Callable[[], object]]
    """Label -> what to time; inputs are made before, results are dropped."""
    floor: str
    """Label of the arm that the others are divided by."""
    check: Callable[[], object]
    """Raises where the subject is wrong; runs before anything is timed."""
    goal: float | None = None
    """The first arm's largest allowed ratio to the floor, None = only reported."""
    rounds: int = 15


@dataclass(frozen=True)
class Result:
    """What one case measured, or why it was not timed."""

    name: str
    floor: str
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Median of each arm."""
    ratios: Mapping[str, float] = field(default_factory=dict)
    """Median over the rounds of each arm's ratio to the floor in the same round."""
    others: float = 0.0
    """Cores that other processes used meanwhile."""
    goal: float | None = None
    failure: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is met; None where there is none."""
        if self.goal is None or self.failure:
            return None
        return next(iter(self.ratios.values())) <= self.goal


def run_case(case: Case, threads: int = 1) -> Result:
    """Check, warm up, then time every arm in turn."""
    before = torch.get_num_threads()
    try:
        case.check()
    except Exception as error:  # whatever a check raises, its case is not green
        return Result(case.name, case.floor, goal=case.goal, failure=f"{type(error).__name__}: {str(error)[:200]}")
    torch.set_num_threads(threads)
    try:
        times, others = _time(case)
    finally:
        torch.set_num_threads(before)
    ratios = {
        label: statistics.median(one / base for one, base in zip(times[label], times[case.floor], strict=True))
        for label in case.arms
    }
    seconds = {label: statistics.median(values) for label, values in times.items()}
    return Result(case.name, case.floor, seconds, ratios, others, case.goal)


def run_theme(
    cases: Iterable[Case], threads: int = 1, progress: Callable[[str], None] = lambda line: None
) -> list[Result]:
    """Run every case; ``progress`` gets a line for each."""
    results = []
    for case in cases:
        results.append(run_case(case, threads))
        progress(_line(results[-1]))
    return results


def machine() -> dict[str, str]:
    """What a figure depends on: processor, cores, versions, date."""
    cpu, info = platform.processor() or "unknown", Path("/proc/cpuinfo")
    if info.exists():
        cpu = next(
            (line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu
        )
    accelerator = torch.accelerator.is_available() and torch.cuda.is_available() and torch.cuda.get_device_name()
    import numba

    return {
        "processor": f"{cpu}, {os.cpu_count()} cores",
        "accelerator": accelerator or "none",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": f"Python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def report(theme: str, results: Iterable[Result], threads: int, notes: Mapping[str, str] | None = None) -> str:
    """The results as a Markdown page; ``notes`` stand beside the machine's description."""
    lines = [f"# {theme}", ""]
    lines += [f"- {key}: {value}" for key, value in {**machine(), "threads": str(threads), **(notes or {})}.items()]
    lines += ["", "Ratios are medians over rounds in which every arm ran once. `others` is how many cores other"]
    lines += ["processes used meanwhile: above about 0.3, read figures of more than one thread with care.", ""]
    lines += ["| case | arm | ms | x floor | goal | others |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for result in results:
        if result.failure:
            lines.append(f"| {result.name} | not timed: {result.failure.splitlines()[0]} | | | | |")
        for at, label in enumerate(result.seconds):
            goal = "" if at or result.goal is None else f"{result.goal:g} {'reached' if result.reached else 'MISSED'}"
            name = f"{label} (floor)" if label == result.floor else label
            cells = (result.name if not at else "", name, f"{1e3 * result.seconds[label]:.3f}")
            lines.append(f"| {' | '.join(cells)} | {result.ratios[label]:.2f} | {goal} | {result.others:.2f} |")
    return "\n".join(lines) + "\n"


def hardware() -> str:
    """A short name of this machine for the names of result files."""
    words = machine()["processor"].replace("(R)", "").replace(",", "").split()
    return "-".join([*words[:2], f"{os.cpu_count()}c"]).lower()


def _time(case: Case) -> tuple[dict[str, list[float]], float]:
    times: dict[str, list[float]] = {label: [] for label in case.arms}
    for arm in case.arms.values():
        arm()
    begin, busy, own = time.perf_counter(), _busy(), time.process_time()
    labels = list(case.arms)
    for turn in range(case.rounds):
        shift = turn % len(labels)  # no arm always follows the same neighbour
        for label in labels[shift:] + labels[:shift]:
            start = time.perf_counter()
            outcome = case.arms[label]()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[label].append(time.perf_counter() - start)
            del outcome
    wall = time.perf_counter() - begin
    return times, max(0.0, (_busy() - busy - (time.process_time() - own)) / wall)


def _busy() -> float:
    """Seconds of processor time that all processes have used since the machine started; 0 where unknown."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0
    user, nice, system, _, _, irq, soft = (int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:8])
    return (user + nice + system + irq + soft) / TICKS


def _line(result: Result) -> str:
    if result.failure:
        return f"{result.name}: not timed, its check fails: {result.failure}"
    parts = (f"{label} {1e3 * result.seconds[label]:.3f} ms ({result.ratios[label]:.2f}x)" for label in result.seconds)
    return f"{result.name}: {', '.join(parts)}; others {result.others:.2f} cores"
