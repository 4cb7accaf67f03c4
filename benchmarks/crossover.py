"""Where a mixer becomes cheaper than attention: forward time of one layer over the length, on this processor.

Every causal mixer with its default options, width 64, one row, one thread. Times are kept in a folder, a file a mixer,
so that a second call measures only what is new; the table and the plot go into docs/guide/convolution-recurrence-
attention.md, between its markers.

    python benchmarks/crossover.py                       everything, some minutes
    python benchmarks/crossover.py --mixers hyena,mamba --again
"""

import argparse
import json
import math
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from seqloom.core import discovery
from seqloom.core.files import write_json, write_text
from seqloom.mixers._base import Mixer
from seqloom.testing.benchmark import machine

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "guide" / "convolution-recurrence-attention.md"
PLOT = PAGE.parent / "img" / "crossover.svg"
CACHE = ROOT / ".cache" / "crossover"
WIDTH, LENGTHS, SLOWEST, ROUNDS = 64, tuple(2**k for k in range(8, 15)), 3.0, 5
SHOWN = ("attention", "s4", "s4d", "hyena", "mamba", "mamba2", "gla", "lstm", "slstm")
"""Lines of the plot; the table has all."""
LONG = {"sgconv": {"length": 1 << 14}}
"""Options without which a mixer ends before the longest row."""


def causal() -> list[str]:
    found = []
    for name in discovery.names("mixers"):
        kind: Any = discovery.get("mixers", name)
        if kind.Config().traits().causal in ("exact", "fft"):
            found.append(name)
    return found


def options(name: str) -> Mixer.Config:
    """Defaults; implicit filters have the longest row for their unit of time."""
    kind: Any = discovery.get("mixers", name)
    config = kind.Config(**LONG.get(name, {}))
    if hasattr(config, "filter") and hasattr(config.filter, "length"):
        from dataclasses import replace

        config = replace(config, filter=replace(config.filter, length=LENGTHS[-1]))
    return config


@torch.no_grad()
def measure(name: str) -> dict[str, Any]:
    """Median seconds at every length, until one takes too long."""
    torch.manual_seed(0)
    mixer: Mixer = options(name).build(WIDTH)
    seconds: dict[str, float] = {}
    for length in LENGTHS:
        x_1TD = torch.randn(1, length, WIDTH)
        first = timed(lambda x=x_1TD: mixer(x))
        seconds[str(length)] = statistics.median([first, *(timed(lambda x=x_1TD: mixer(x)) for _ in range(ROUNDS))])
        if seconds[str(length)] > SLOWEST / 3:
            break
    state = mixer.state_bytes(LENGTHS[-1])
    return {"mixer": name, "seconds": seconds, "state_bytes": state, "about": machine()}


def timed(run: Callable[[], object]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def crossing(own: dict[str, float], other: dict[str, float]) -> str:
    """Length from which on it is faster than attention, between two measured ones by their logarithms."""
    shared = [length for length in own if length in other]
    faster = [own[length] < other[length] for length in shared]
    if all(faster):
        return f"below {shared[0]}"
    if not faster[-1]:
        return f"beyond {int(shared[-1]):,}"
    last = max(at for at, yes in enumerate(faster) if not yes)
    a, b = shared[last], shared[last + 1]
    before, after = (math.log(own[length] / other[length]) for length in (a, b))
    share = before / (before - after)
    return f"{round(int(a) * (int(b) / int(a)) ** share, -2 if int(a) > 1000 else -1):,.0f}"


def slope(seconds: dict[str, float]) -> float:
    """Exponent over the upper half of the lengths."""
    items = [(math.log(int(length)), math.log(value)) for length, value in seconds.items()][-4:]
    mx, my = (statistics.fmean(column) for column in zip(*items, strict=True))
    return sum((x - mx) * (y - my) for x, y in items) / sum((x - mx) ** 2 for x, _ in items)


def table(rows: list[dict[str, Any]]) -> str:
    attention = next(row["seconds"] for row in rows if row["mixer"] == "attention")
    lines = ["| mixer | ms at 1,024 | ms at 16,384 | exponent | faster than attention from | state bytes at 16,384 |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for row in sorted(rows, key=lambda row: row["seconds"].get("16384", math.inf)):
        seconds = row["seconds"]
        far = f"{1e3 * seconds['16384']:,.1f}" if "16384" in seconds else "not measured"
        cross = "" if row["mixer"] == "attention" else crossing(seconds, attention)
        name = row["mixer"].replace("_", "\\_")
        near = f"{1e3 * seconds['1024']:,.2f}"
        lines.append(f"| {name} | {near} | {far} | {slope(seconds):.2f} | {cross} | {row['state_bytes']:,} |")
    return "\n".join(lines)


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), dpi=120)
    for row in rows:
        if row["mixer"] in SHOWN:
            lengths = [int(length) for length in row["seconds"]]
            style = {"linewidth": 3, "color": "black"} if row["mixer"] == "attention" else {"linewidth": 1.5}
            axes.plot(lengths, [1e3 * value for value in row["seconds"].values()], label=row["mixer"], **style)
    axes.set(xscale="log", yscale="log", xlabel="columns", ylabel="milliseconds, one layer of width 64, forward")
    axes.set_xticks(LENGTHS, [f"{length:,}" for length in LENGTHS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(ncols=2, frameon=False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", help="with commas between; default: every causal one")
    parser.add_argument("--out", type=Path, default=CACHE)
    parser.add_argument("--again", action="store_true", help="measure what is there already once more")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    for name in given.mixers.split(",") if given.mixers else causal():
        file = given.out / f"{name}.json"
        if given.again or not file.is_file():
            write_json(file, measure(name))
            print(name, flush=True)
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(given.out.glob("*.json"))]
    about = rows[0]["about"]
    said = f"*{about['processor']}, one thread; {about['versions']}; {about['date']}*"
    pattern = re.compile(r"(<!-- measured crossover -->\n).*?(<!-- end -->)", re.S)
    text, count = pattern.subn(
        lambda marks: f"{marks[1]}{table(rows)}\n\n{said}\n{marks[2]}", PAGE.read_text(encoding="utf-8")
    )
    if count != 1:
        raise ValueError(f"{PAGE} has no place for the table")
    write_text(PAGE, text)
    plot(rows, PLOT)


if __name__ == "__main__":
    main()
