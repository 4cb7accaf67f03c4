"""Write the measured tables of docs/guide/which-model.md, and the sentences that they bear out.

Each table is what `seqloom compare ... --table` wrote; it stands between its two markers on the page. A sentence of the
list of advice is made of a table's figures: which of its forms is written, or none, is decided by them. So no number on
the page is typed by hand, and no advice outlives its measurement.

    python benchmarks/which_model.py                    all tables, some 13 minutes on two quiet cores
    python benchmarks/which_model.py flights seattle    these alone; the advice is of all that were ever measured
    SEQLOOM_BUDGET=2s SEQLOOM_SEEDS=1                   for a trial; SEQLOOM_PAGE=FILE writes elsewhere
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqloom.core import discovery
from seqloom.testing.benchmark import machine

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(os.environ.get("SEQLOOM_PAGE", ROOT / "docs" / "guide" / "which-model.md"))
FIGURES = Path(os.environ.get("SEQLOOM_FIGURES", ROOT / "benchmarks" / "results" / "which_model.json"))
BUDGET, SEEDS = os.environ.get("SEQLOOM_BUDGET", "10s"), os.environ.get("SEQLOOM_SEEDS", "2")
NETWORKS = "lstm,gru,attention,linear_attention,s4d"
COUNTED = "unigram,markov,ngram,ppm,hmm"
SAMPLES = {
    "flights": ("--models", "all"),
    "austen": ("--models", f"{COUNTED},lezi,{NETWORKS}"),
    "novels": ("--models", f"unigram,markov,ngram,ppm,{NETWORKS}"),
    "seattle": ("--horizon", "7", "--models", f"seasonal_naive,random_walk,exponential_smoothing,linear,{NETWORKS}"),
    "lambda": ("--models", f"{COUNTED},{NETWORKS}"),
}
"""What is compared on each sample: everything where a process may be drawn, else what suits and stays in the time."""
BASELINES = ("unigram", "seasonal_naive", "majority")
PICTURES = ("alergia", "inductive_miner", "hmm")
"""Models whose structure is drawn in the report."""


@dataclass(frozen=True)
class Table:
    """A comparison's figures, as it gave them to --json."""

    name: str
    found: dict[str, Any]

    @property
    def measure(self) -> str:
        return next(key for key in self.found["models"][0] if key not in ("name", "error"))

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Models with a result, best first."""
        return [one for one in self.found["models"] if one[self.measure] is not None]

    def row(self, name: str) -> dict[str, Any] | None:
        return next((one for one in self.rows if one["name"] == name), None)

    def best(self, *, network: bool) -> dict[str, Any] | None:
        """The best network, or the best model that is none."""
        classical = (*discovery.names("models/classical"), "majority")
        return next((one for one in self.rows if (one["name"] not in classical) == network), None)

    def told(self, one: dict[str, Any]) -> str:
        """A model and its figure."""
        return f"`{one['name']}` ({one[self.measure]:.3f})"

    def tied(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        """Whether the comparison could not tell them apart."""
        return other["name"] in one["ties"]

    @property
    def size(self) -> str:
        """How much there was to learn from."""
        lines = [line for line in self.found["data"]["lines"] if line.startswith("train: ")]
        return lines[0].removeprefix("train: ") if lines else ""


def compared(name: str) -> tuple[Table, str, str]:
    """Figures, the table as Markdown, and the command that made it."""
    words = ["compare", f"sample:{name}", *SAMPLES[name], "--budget", BUDGET, "--seeds", SEEDS]
    with tempfile.TemporaryDirectory(prefix="seqloom-which-") as folder:
        table = Path(folder) / "table.md"
        rest = ["--out", f"{folder}/out", "--table", str(table), "--json"]
        done = subprocess.run([sys.executable, "-m", "seqloom", *words, *rest], stdout=subprocess.PIPE, check=True)
        return Table(name, json.loads(done.stdout)), table.read_text("utf-8"), f"seqloom {' '.join(words)}"


def counting_or_learning(table: Table) -> str | None:
    """Whether a network was worth its budget."""
    network, other = table.best(network=True), table.best(network=False)
    if network is None or other is None:
        return None
    between = f"the best network, {table.told(network)}, and the best of the others, {table.told(other)}"
    spent = f"{network['seconds']:.0f} s of training against {other['seconds']:.1f} s"
    if table.tied(network, other):
        return f"{between}, cannot be told apart ({spent}): take the one that is cheaper or can be read."
    ahead = network[table.measure] < other[table.measure]
    return f"{between}: {'the network pays' if ahead else 'begin without a network'} ({spent})."


def memory(table: Table) -> str | None:
    """What looking further back was worth."""
    rows = [table.row(name) for name in ("unigram", "markov", "ngram", "ppm")]
    chain = [*(one for one in rows if one is not None), table.best(network=True)]
    return f"from no memory to a long one: {', '.join(table.told(one) for one in chain if one is not None)}."


def pictures(table: Table) -> str | None:
    """What a model that can be drawn costs."""
    drawn = [one for one in table.rows if one["name"] in PICTURES]
    if not drawn:
        return None
    each, best = ", ".join(table.told(one) for one in drawn), table.rows[0]
    if best is drawn[0]:
        return f"of those that can be drawn, {each}, the first is the best of all: the picture costs nothing."
    return f"those that can be drawn are {each}; the best of all, {table.told(best)}, is what they miss."


def speed(table: Table) -> str | None:
    """How much was learnt from in a second."""
    network, counted = table.best(network=True), table.row("ngram")
    if network is None or counted is None:
        return None
    times = counted["tokens_per_second"] / max(network["tokens_per_second"], 1e-9)
    held = " and ".join(f"{one['memory'] / 1e6:.1f} MB" for one in (counted, network))
    return f"`ngram` learns from {times:,.0f} times as many symbols a second as `{network['name']}`, in {held}."


def beyond_the_trivial(table: Table) -> str | None:
    """How far the best model is from the answer that knows no sequence."""
    trivial = next((one for one in table.rows if one["name"] in BASELINES), None)
    if trivial is None:
        return None
    best, gain = table.rows[0], 1 - table.rows[0][table.measure] / trivial[table.measure]
    if best is trivial:
        return f"nothing is ahead of the trivial answer, {table.told(trivial)}."
    if table.tied(best, trivial):
        return f"the best, {table.told(best)}, cannot be told apart from the trivial answer, {table.told(trivial)}."
    return f"the best, {table.told(best)}, needs {gain:.1%} less than the trivial answer, {table.told(trivial)}."


ADVICE: tuple[tuple[str, tuple[str, ...], Callable[[Table], str | None]], ...] = (
    ("Few symbols to learn from, or many?", ("flights", "austen", "lambda"), counting_or_learning),
    ("How far back must a model look?", ("flights", "austen", "lambda"), memory),
    ("Must somebody read the model?", ("flights",), pictures),
    ("Do data stream in, is time short?", ("flights", "austen"), speed),
    ("Are classes asked for?", ("novels",), counting_or_learning),
    ("Is a forecast asked for?", ("seattle",), counting_or_learning),
    ("Is there anything to learn?", ("flights", "austen", "novels", "seattle", "lambda"), beyond_the_trivial),
)
"""A question, the samples that can answer it, and how a table answers."""


def advice(tables: dict[str, Table]) -> Iterator[str]:
    """The list, as far as there are tables."""
    for question, names, answer in ADVICE:
        said = [(name, answer(tables[name])) for name in names if name in tables]
        if any(text for _, text in said):
            yield f"- **{question}**"
            yield from (f"    - *{name}* ({tables[name].size}): {text}" for name, text in said if text)


def put(page: str, mark: str, lines: list[str]) -> str:
    """The page with other lines between a pair of markers."""
    between = re.compile(rf"(<!-- measured {mark} -->\n).*?(<!-- end -->)", re.S)
    changed, count = between.subn(lambda found: "\n".join([found[1], *lines, "", found[2]]), page)
    if count != 1:
        raise ValueError(f"{PAGE} has {count} pairs of markers for {mark}, not one")
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sample", nargs="*", metavar="SAMPLE", help=f"one of {', '.join(SAMPLES)}; all by default")
    wanted = parser.parse_args().sample or list(SAMPLES)
    if unknown := set(wanted) - set(SAMPLES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}; there are {', '.join(SAMPLES)}")
    figures = json.loads(FIGURES.read_text("utf-8")) if FIGURES.is_file() else {}
    for name in wanted:
        table, shown, command = compared(name)
        figures[name] = {key: table.found[key] for key in ("models", "budget", "seeds", "data")}
        where = machine()
        said = f"*{where['processor']}; {where['versions']}; {where['date']}*"
        page = put(PAGE.read_text("utf-8"), name, [f"```sh\n{command}\n```", "", said, "", shown.rstrip()])
        lines = list(advice({key: Table(key, value) for key, value in figures.items()}))
        PAGE.write_text(put(page, "advice", lines), encoding="utf-8")
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {len(table.rows)} models", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
