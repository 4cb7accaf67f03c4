"""Fuzz one reader, led by coverage: bytes are a file, and any exception that is not seqloom's own is a finding.

    pip install atheris
    nice python tools/fuzz_readers.py table --seconds 600 --out /tmp/fuzz

A child process runs libFuzzer over the Python code below seqloom.data, from seeds that the reader itself wrote; where
it dies (memory above the limit, a crash below Python) that is a finding too, and another child goes on. Inputs that
lead to findings lie in OUT/READER/, and are tried first by the next run; one JSON line {reader, runs, seconds,
findings, coverage, ...} goes to stdout and to OUT/fuzz.jsonl.
"""

import argparse
import importlib
import json
import os
import pkgutil
import platform
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

WORDS = {
    "fasta": (">", "@", "+", "ACGT", "name=x"),
    "midi": ("MThd", "MTrk", "\\xff\\x51\\x03", "\\xff\\x2f\\x00"),
    "npy": ("\\x93NUMPY", "'descr'", "'<f8'", "'fortran_order'", "'shape'", "PK\\x03\\x04"),
    "recbole": ("user_id:token", "item_id:token_seq", "timestamp:float", "\\x09"),
    "table": ("case,", "event", "time", "label", "unique_id", "ds", '{\\"', "[{", "null", "nan", "PAR1", "2024-01-01"),
    "text": ("\\x0d\\x0a", "\\xef\\xbb\\xbf"),
    "xes": ("<log>", "<trace>", "<event>", "<string key=", "concept:name", "<!DOCTYPE", "<!ENTITY", "</log>"),
}
COMMON = ("\\x1f\\x8b", "\\x28\\xb5\\x2f\\xfd", "\\xff\\xfe", "\\xef\\xbb\\xbf", "\\x00", "\\x0d\\x0a")


def seeds(reader: str, folder: Path) -> int:
    """Write what the reader itself writes, and for tables every form."""
    from seqloom.core.errors import SeqloomError
    from seqloom.data import Sequences, readers

    symbols = [["60", "62", "60"], ["62"]]
    times = [[0.0, 1.5, 2.0], [0.0]]
    examples = [
        Sequences.of(["ACGTACGT", "TTGA"], labels=["x", "y"]),
        Sequences.of(["some text", "more: of it"]),
        Sequences.of(symbols),
        Sequences.of(symbols, times=times, labels=["x", "y"], groups=["g", "h"]),
        Sequences.of([[0.5, 1.5, -2.0], [3.25]]),
        Sequences.of([[[0.5, 1.0], [1.5, 2.0]]]),
    ]
    suffixes = (
        (".csv", ".tsv", ".jsonl", ".parquet") if reader == "table" else (".npy", ".npz") if reader == "npy" else ("",)
    )
    for number, sequences in enumerate(examples):
        for suffix in suffixes:
            path = folder / f"seed{number}{suffix}"
            try:
                readers.get(reader)().write(sequences, path)
            except SeqloomError:
                path.unlink(missing_ok=True)  # a kind that this format does not hold
    if reader == "fasta":
        (folder / "fastq").write_text("@a x=y\nACGT\n+\n!!!!\n@b\nAC\n+\n!!\n")
    if reader == "table":
        (folder / "nested").write_text(
            '{"id": 1, "events": [{"activity": "a", "time": 2}, {"activity": "b", "time": 1}]}'
        )
        (folder / "array").write_text('[{"case": 1, "event": "x"}, {"case": 1, "event": "y"}]')
        (folder / "series").write_text("unique_id,ds,y,x\na,2024-01-01,0.5,1\na,2024-01-02,1,2\n")
    return len(list(folder.iterdir()))


def child(reader: str, out: Path, options: list[str]) -> None:
    """Run libFuzzer; it ends the process itself."""
    import atheris

    with atheris.instrument_imports(include=["seqloom.data"]):
        import seqloom.data
        from seqloom.core.errors import SeqloomError
        from seqloom.data import read

        for module in pkgutil.walk_packages(seqloom.data.__path__, "seqloom.data."):
            importlib.import_module(module.name)  # all of them now: what is imported later is not followed
    memory = Path("/dev/shm")
    home = memory if memory.is_dir() and os.access(memory, os.W_OK) else None
    path = Path(tempfile.mkdtemp(dir=home)) / "file"
    seen: set[str] = set()

    def once(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path, reader=reader)
        except SeqloomError:
            return
        except Exception as error:
            where = _where(error)
            if where not in seen:
                seen.add(where)
                (out / f"finding-{abs(hash(where)):x}").write_bytes(data)
                with (out / "findings.jsonl").open("a") as file:
                    file.write(
                        json.dumps({"where": where, "error": str(error)[:200], "input": data[:2000].hex()}) + "\n"
                    )

    atheris.Setup([sys.argv[0], *options], once)
    try:
        atheris.Fuzz()
    finally:
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def _where(error: Exception) -> str:
    """Kind of an exception and the innermost line of seqloom that it went through."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if "seqloom" in frame.filename]
    return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}" if own else type(error).__name__


def fuzz(reader: str, seconds: int, out: Path, megabytes: int) -> dict:
    """Children until the time is over; what they found, as one value."""
    folder, corpus = out / reader, out / reader / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in (*COMMON, *WORDS.get(reader, ()))))
    count, started, runs, coverage, died = seeds(reader, corpus), time.monotonic(), 0, 0, []
    log, findings = folder / "log", folder / "findings.jsonl"
    findings.unlink(missing_ok=True)
    for before in folder.glob("finding-*"):
        before.rename(corpus / before.name)
    while (left := seconds - (time.monotonic() - started)) > 5 and len(died) < 20:
        limits = [f"-max_total_time={int(left)}", f"-rss_limit_mb={megabytes}", "-timeout=30", "-max_len=8192"]
        rest = [f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/died-", "-print_final_stats=1"]
        command = [sys.executable, __file__, reader, "--out", str(out), "--child", str(corpus), *limits, *rest]
        with log.open("wb") as file:
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        text = log.read_text("utf-8", "replace")
        done = [int(number) for number in re.findall(r"^#(\d+)\s", text, re.MULTILINE)]
        final = re.findall(r"stat::number_of_executed_units:\s*(\d+)", text)
        runs += max([*done, *map(int, final)], default=0)
        coverage = max([coverage, *(int(number) for number in re.findall(r"cov: (\d+)", text))])
        if code and not done:
            raise SystemExit(f"the child does not start:\n{text[-2000:]}")
        if code:
            died.append(" ".join(re.findall(r"SUMMARY: (.*)", text)[-1:]) or f"exit code {code}: {text[-300:]}")
    known = [json.loads(line) for line in findings.read_text().splitlines()] if findings.exists() else []
    by_place = {finding["where"]: finding for finding in known}
    return {
        "reader": reader,
        "runs": runs,
        "seconds": round(time.monotonic() - started),
        "findings": len(by_place) + len(died),
        "places": sorted(by_place),
        "died": died,
        "coverage": coverage,
        "seeds": count,
        "corpus": len(list(corpus.iterdir())),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def main() -> int:
    """One reader, one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("reader", help="name of a reader")
    parser.add_argument("--seconds", type=int, default=600, help="how long")
    parser.add_argument("--out", type=Path, required=True, help="folder of corpus, findings and fuzz.jsonl")
    parser.add_argument("--megabytes", type=int, default=2048, help="memory above which a run is a finding")
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.reader, given.out / given.reader, given.child)
        return 0
    result = fuzz(given.reader, given.seconds, given.out, given.megabytes)
    line = json.dumps(result)
    with (given.out / "fuzz.jsonl").open("a") as file:
        file.write(line + "\n")
    print(line)
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
