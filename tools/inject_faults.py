"""Let the disk fail at every single change of it, and see that nothing is lost: python tools/inject_faults.py

Each scenario is run once undisturbed, which counts its changes; then again for each change and each fault. A fault must
be told in one line that names the file and a mend, or do no harm; whatever is on the disk must be whole; and the same
command (with --resume for fit) must then end with the same bytes. Writes benchmarks/results/robustness_faults.json.
"""

import argparse
import contextlib
import datetime
import io
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from seqloom.claims._base import Claim, Count, Finding, Source
from seqloom.claims._runner import run_claim
from seqloom.cli import main
from seqloom.core.errors import MENDS, SeqloomError
from seqloom.testing._faults import Disk, Fault
from seqloom.training import checkpoint

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "robustness_faults.json"
FAULTS: tuple[Fault, ...] = ("full", "broken", "kill")
LOG = "case,event\n" + "".join(f"c{case},{'abcd'[(case + k) % 4]}\n" for case in range(40) for k in range(3 + case % 3))
MODEL = ("model.safetensors", "config.json", "vocabulary.json", "run.json", "metrics.json")
Told = tuple[int, str]


@dataclass(frozen=True)
class Scenario:
    """Something that writes into a folder."""

    name: str
    run: Callable[[Path, Path], Told]
    """Run in (data, folder) -> exit code and what was said."""
    again: Callable[[Path, Path], Told]
    """Go on after a fault."""
    proof: tuple[str, ...]
    """Files that must be the same as those of an undisturbed run, as patterns."""


def command(*words: str) -> Callable[[Path, Path], Told]:
    """A command line; DATA, MODEL and OUT in it are places."""

    def run(data: Path, folder: Path) -> Told:
        places = {"DATA": data / "log.csv", "MODEL": data / "model", "OUT": folder, "FILE": folder / "answer"}
        filled = [word.replace(name, str(place)) for word in words for name, place in [_place(word, places)]]
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(filled)
        return code, out.getvalue() + err.getvalue()

    return run


def _place(word: str, places: dict[str, Path]) -> tuple[str, Path | str]:
    return next(((name, place) for name, place in places.items() if name in word), ("\0", ""))


class Tiny(Claim):
    """A claim of two arms that cost nothing."""

    source = Source(title="None", authors="None", year=2000, arxiv="0000.00000")
    statement = paper = here = "twice is twice"

    def arms(self) -> dict[str, Count]:
        return {
            name: Count(lambda seed, k=k: {"x": float(k * seed)}, config={"k": k}) for name, k in (("a", 1), ("b", 2))
        }

    def findings(self, got: object) -> Iterable[Finding]:
        yield Finding("twice", got["b"].x - 2 * got["a"].x, "==", 0.0)


def claim(data: Path, folder: Path) -> Told:
    """Run the claim."""
    try:
        return run_claim(Tiny(), seeds=(0, 1), cache=folder / "cache", out=folder).exit_code, ""
    except SeqloomError as error:
        return error.exit_code, f"seqloom claim: {error}\n"


def _fit(model: str, budget: str) -> Scenario:
    words = ("fit", "DATA", "--model", model, "--budget", budget, "--out", "OUT", "--json")
    return Scenario(f"fit {model}", command(*words), command(*words, "--resume"), MODEL)


def _predict(ending: str) -> Scenario:
    run = command("predict", "MODEL", "DATA", "--to", f"FILE{ending}")
    return Scenario(f"predict --to {ending}", run, run, (f"answer{ending}",))


COMPARE = command("compare", "DATA", "--models", "ngram,gru", "--budget", "2steps", "--out", "OUT", "--json")
SCENARIOS = (
    _fit("gru", "3steps"),
    _fit("ngram", "3steps"),
    Scenario("compare ngram,gru", COMPARE, COMPARE, tuple(f"arms/*/{name}" for name in (*MODEL, "test.safetensors"))),
    Scenario("claim", claim, claim, ("cache/*/*.json", "*.json")),
    *map(_predict, (".csv", ".parquet", ".jsonl")),
)


def prepare(data: Path) -> None:
    """The data of every scenario."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "log.csv").write_text(LOG)
    if not (data / "model").exists():
        code, told = command("fit", "DATA", "--model", "ngram", "--out", "MODEL")(data, data)
        assert code == 0, told


def undisturbed(scenario: Scenario, data: Path, folder: Path) -> tuple[list[str], dict[str, bytes]]:
    """Changes of the disk that a scenario makes, and what it leaves."""
    with Disk(folder).watching() as disk:
        code, told = scenario.run(data, folder)
    assert code == 0, told
    return disk.changes, proof(scenario, folder)


def proof(scenario: Scenario, folder: Path) -> dict[str, bytes]:
    """Content of the files that must be equal."""
    found = {path for pattern in scenario.proof for path in folder.glob(pattern)}
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(found)}


def inject(scenario: Scenario, data: Path, folder: Path, at: int, fault: Fault, whole: dict[str, bytes]) -> str:
    """One fault: "" where nothing was lost, else what went wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    code, told = 0, ""
    with Disk(folder, at, fault).watching() as disk:
        code, told = scenario.run(data, folder)
    if not disk.failed:
        return "the fault was not met"
    bad = damaged(folder)
    if bad:
        return f"not whole: {bad}"
    harmless = not disk.dead and code == 0 and proof(scenario, folder) == whole
    if not disk.dead and not harmless and (wrong := badly_told(told, folder)):
        return wrong
    code, told = scenario.again(data, folder)
    if code:
        return f"does not go on: {told.strip()[-300:]}"
    if proof(scenario, folder) != whole:
        return "goes on to other bytes"
    left = [path.name for path in folder.rglob("*") if path.suffix in (".part", ".lock", ".partial")]
    return f"litter: {left}" if left else ""


def badly_told(told: str, folder: Path) -> str:
    """What is wrong with how a fault was told."""
    if "Traceback" in told or "unexpected" in told:
        return f"a fault of ours: {told.strip()[-300:]}"
    if str(folder) not in told:
        return f"no file is named: {told.strip()[-300:]}"
    if not any(mend in told for _, mend in MENDS.values()):
        return f"no mend: {told.strip()[-300:]}"
    return ""


def damaged(folder: Path) -> str:
    """The first file that is there and not whole; parts are none, metrics.jsonl may end in the middle of a line."""
    for path in folder.rglob("*"):
        if not path.is_file() or path.suffix == ".part":
            continue
        try:
            if path.suffix == ".json":
                checkpoint.read_json(path)
            elif path.suffix == ".safetensors":
                checkpoint.load(path)
            elif path.name == "report.html" and "</html>" not in path.read_text():
                return path.name
        except SeqloomError as error:
            return f"{path.name}: {error}"
    return ""


def sample(count: int, most: int) -> list[int]:
    """At most so many numbers below ``count``, evenly, first and last among them; a single one lies in the middle."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    return sorted({round(k * (count - 1) / (most - 1)) for k in range(most)})


def run(most: int) -> dict:
    """All scenarios; the figures of the result's file."""
    began, rows = time.time(), []
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        prepare(data)
        for scenario in SCENARIOS:
            changes, whole = undisturbed(scenario, data, Path(place) / "run")
            met, lost = 0, []
            for fault in FAULTS:
                for at in sample(len(changes), most):
                    wrong = inject(scenario, data, Path(place) / "run", at, fault, whole)
                    met += 1
                    if wrong:
                        lost.append({"fault": fault, "at": at, "change": changes[at], "wrong": wrong})
            rows.append({"scenario": scenario.name, "changes": len(changes), "injected": met, "failed": lost})
            print(f"{scenario.name}: {len(changes)} changes, {met} faults, {len(lost)} failed", flush=True)
            for one in lost[:10]:
                print("   ", one)
            shutil.rmtree(Path(place) / "run", ignore_errors=True)
    return {
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "seconds": round(time.time() - began),
        "faults": list(FAULTS),
        "injected": sum(row["injected"] for row in rows),
        "failed": sum(len(row["failed"]) for row in rows),
        "scenarios": rows,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=10_000, help="changes of a scenario that are tried, evenly chosen")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    figures = run(options.most)
    options.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"{figures['injected']} faults, {figures['failed']} failed, {figures['seconds']} s -> {options.out}")
