"""The card of a model: what it was trained on, how, and how good it is beside the trivial answer. Markdown."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from seqloom.app.judge import MEASURES, Judgement
from seqloom.app.plan import TRIVIAL, Loaded, is_neural
from seqloom.training.prepare import Prepared
from seqloom.training.run import Run
from seqloom.training.source import FileSource

PACKAGES = ("seqloom", "torch", "numpy", "numba", "polars", "pyarrow")


def card(name: str, run: Run, loaded: Loaded, got: Judgement, baseline: Judgement, timing: dict[str, Any]) -> str:
    """The whole card."""
    target = loaded.prepared.target
    pieces = [
        f"# {name}",
        f"A model of the task *{run.task}*, fitted with seqloom {versions()['seqloom']}.",
        "## How good it is",
        _results(name, got, baseline, None if target is None else target.unit),
        "## Data",
        _bullets(data_lines(run, loaded.prepared, inputs=reads_inputs(run, loaded.prepared)) + loaded.notes),
        "## Leakage",
        _bullets(leakage_lines(loaded.prepared)),
        "## Training",
        _bullets(_training(run, timing)),
        "## Versions",
        _bullets([f"{package} {found}" for package, found in versions().items()]),
    ]
    return "\n\n".join(pieces) + "\n"


def reads_inputs(run: Run, data: Prepared) -> bool:
    """Whether a model takes what stands beside the symbols: networks do, and every model of values."""
    return is_neural(run.model) or data.sizes.values > 0


def data_lines(run: Run, data: Prepared, *, inputs: bool = True) -> list[str]:
    """Where the data come from and how they were split, in sentences; ``inputs``: whether the model reads them."""
    source = run.data
    lines = []
    if isinstance(source, FileSource):
        lines.append(f"source: {source.path or 'memory'}")
        lines.append(f"fingerprint (SHA-256): {source.fingerprint or 'not taken'}")
    for name, part in data.parts.items():
        sequences, unit = "sequence" if len(part) == 1 else "sequences", "steps" if part.kind == "values" else "symbols"
        lines.append(f"{name}: {len(part):,} {sequences}, {int(np.sum(part.lengths)):,} {unit}")
    if data.classes:
        lines.append(f"{len(data.classes)} classes: {', '.join(data.classes[:20])}")
    if data.tokenizer is not None:
        lines.append(
            f"vocabulary: {len(data.tokenizer.vocabulary.symbols):,} symbols, learnt from the training part alone"
        )
    if data.features is not None:
        names = ", ".join(channel.name for channel in data.features.channels)
        told = "scaled by the training part alone" if inputs else "which this model does not read"
        lines.append(f"numbers: {names}, {told}")
    return lines + data.notes


def leakage_lines(data: Prepared) -> list[str]:
    """What the parts share that they should not, in sentences."""
    found = [] if data.leakage is None else list(data.leakage.sentences)
    return found or ["nothing found"]


def versions() -> dict[str, str]:
    """Python and the packages that decide the figures."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _results(name: str, got: Judgement, baseline: Judgement, told: str | None = None) -> str:
    trivial = {"classify": "majority", **TRIVIAL}[got.task].replace("_", " ")
    note = {"next": " (end symbol included)", "forecast": " (mean absolute scaled error)"}.get(got.task, "")
    unit = MEASURES[got.task].replace("_", " ") + note if told is None else f"mean absolute error ({told})"
    right = "inside the central 80 %" if got.task in ("values", "forecast", "regress") else "accuracy"
    rows = [f"| on the test part | {unit} | {right} |", "| --- | ---: | ---: |"]
    rows += [
        f"| {who} | {one.bits:.4f} | {one.accuracy:.1%} |"
        for who, one in ((name, got), (f"{trivial} (trivial)", baseline))
    ]
    what = {"classify": "sequences", "next": "symbols", "regress": "prefixes"}.get(got.task, "values")
    counted = f"{got.counted:,} {what}" + (f" from {len(got.bits_N):,} origins" if got.task == "forecast" else "")
    return "\n".join(rows) + f"\n\nJudged on {counted}. {verdict(got, baseline)}"


def verdict(got: Judgement, baseline: Judgement) -> str:
    """One sentence: better than the trivial answer or not."""
    gain = baseline.bits - got.bits
    if gain <= 0:
        return "It is no better than the trivial answer: there is little to learn here, or the budget was too small."
    if got.task in ("forecast", "regress"):
        return f"Its error is {gain / max(baseline.bits, 1e-12):.0%} below that of the trivial answer."
    return f"It saves {gain:.2f} bits ({gain / max(baseline.bits, 1e-12):.0%}) against the trivial answer."


def _training(run: Run, timing: dict[str, Any]) -> list[str]:
    return [
        f"budget {run.budget}, {timing['taken']:,} of {timing['steps']:,} steps, stopped by: {timing['stopped']}",
        f"{timing['seconds']:.1f} s of training, {timing['tokens_per_second']:,.0f} tokens/s",
        f"{timing['parameters']:,} parameters, {timing['memory'] / 1e6:.1f} MB counted for training",
        f"seed {run.seed}, precision {run.precision}, device {timing['device']}",
    ]


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
