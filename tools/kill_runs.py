"""Kill trainings at random moments (kill -9), go on, compare the bytes: python tools/kill_runs.py

``fit`` trains a network, ``compare`` an n-gram and a network of two seeds. Each run is a process of its own, killed at
a moment drawn evenly from its life since its first file; then the same command goes on to the end. Every model must
have the bytes of an undisturbed run. Writes benchmarks/results/robustness_kills.json.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import torch

from seqloom.cli import main
from seqloom.core.errors import SeqloomError
from seqloom.training import checkpoint

RESULT = Path(__file__).resolve().parent.parent / "benchmarks" / "results" / "robustness_kills.json"
LOG = "case,event\n" + "".join(
    f"c{case},{'abcdefgh'[(case * case + step) % 8]}\n" for case in range(200) for step in range(6 + case % 9)
)
VERBS: dict[str, Callable[[Path, Path, int], list[str]]] = {
    "fit": lambda log, out, steps: ["fit", str(log), "--model", "gru", "--budget", f"{steps}steps", "--out", str(out)],
    "compare": lambda log, out, steps: [
        *("compare", str(log), "--models", "ngram,gru", "--seeds", "2"),
        *("--budget", f"{steps}steps", "--out", str(out)),
    ],
}


SERVER = multiprocessing.get_context("forkserver")
"""Processes of their own that need not load torch again: they are forked from one that has, and has done nothing."""


def work(words: list[str]) -> None:
    """What a process does."""
    with Path(os.devnull).open("w") as silent:
        sys.stdout = sys.stderr = silent
        sys.exit(main(words))


def begin(words: list[str]) -> Process:
    """A process of its own."""
    process = SERVER.Process(target=work, args=(words,))
    process.start()
    return process


def wait_for(folder: Path, process: Process) -> bool:
    """Until there is a file that counts; False where the process ended before."""
    while process.is_alive():
        if any(folder.rglob("run.json")):
            return True
        time.sleep(0.002)
    return False


def models(folder: Path) -> dict[str, bytes]:
    """Every model of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("model.safetensors"))}


def damaged(folder: Path) -> list[str]:
    """Files that are there and not whole."""
    found = []
    for path in folder.rglob("*"):
        try:
            if path.suffix == ".safetensors":
                checkpoint.load(path)
            elif path.suffix == ".json":
                checkpoint.read_json(path)
        except SeqloomError as error:
            found.append(str(error))
    return found


def ended(process: Process) -> int:
    """Exit code of a process, once it has ended."""
    process.join()
    return process.exitcode or 0


def kill(verb: str, place: Path, times: int, steps: int, chance: random.Random) -> Iterator[dict]:
    """All kills of one verb: the figures after each."""
    log, out, words = place / "log.csv", place / "run", VERBS[verb]
    log.write_text(LOG)
    first = begin(words(log, out, steps))
    assert wait_for(out, first)
    began = time.monotonic()
    assert ended(first) == 0
    life, whole = time.monotonic() - began, models(out)
    figures = {"kills": 0, "ended_before": 0, "equal": 0, "trained": 0, "damaged": [], "failed": [], "litter": 0}
    started = time.monotonic()
    while figures["kills"] < times:
        shutil.rmtree(out, ignore_errors=True)
        process = begin(words(log, out, steps))
        wait_for(out, process)
        time.sleep(chance.uniform(0, life))
        process.kill()
        if ended(process) == 0:
            figures["ended_before"] += 1
            continue
        figures["kills"] += 1
        figures["trained"] += any(out.rglob("checkpoint.safetensors"))
        figures["damaged"] += damaged(out)
        code = ended(begin([*words(log, out, steps), *(["--resume"] if verb == "fit" else [])]))
        figures["failed"] += [code] if code else []
        figures["equal"] += code == 0 and models(out) == whole
        figures["litter"] += sum(path.suffix in (".part", ".lock") for path in out.rglob("*"))
        print(verb, {name: value for name, value in figures.items() if value}, flush=True)
        yield {**figures, "models": len(whole), "life_s": round(life, 2), "seconds": round(time.monotonic() - started)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50, help="kills of each verb")
    parser.add_argument("--steps", type=int, default=60, help="training steps of each network")
    parser.add_argument("--seed", type=int, default=7, help="of the moments")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    SERVER.set_forkserver_preload(["seqloom.cli.fit", "seqloom.app.compare", "seqloom.app.report"])
    moments, result = random.Random(options.seed), {}
    note = {"date": datetime.date.today().isoformat(), "torch": torch.__version__}
    note |= {"times": options.times, "steps": options.steps, "seed": options.seed}
    for name in VERBS:
        with tempfile.TemporaryDirectory() as folder:
            for figures in kill(name, Path(folder), options.times, options.steps, moments):
                result[name] = figures
                options.out.write_text(json.dumps({**note, **result}, indent=2) + "\n")  # a run cut short counts too
    print(f"-> {options.out}")
