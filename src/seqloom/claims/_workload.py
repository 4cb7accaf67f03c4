"""A program that uses the standard library on fixed inputs and writes down which Python functions were called.

Run as a script: a JSON list on stdout, one list of qualified names a piece of work. It imports nothing of seqloom, for
it runs in an interpreter of its own, whose hashes and caches are the same every time. Each kind of work is done once
unwatched before, so that what is imported at the first use is in no trace.
"""

import argparse
import ast
import copy
import csv
import email
import fractions
import gc
import html.parser
import io
import json
import pprint
import random
import re
import shlex
import statistics
import sys
import urllib.parse
from collections.abc import Callable
from typing import Any

WORDS = [
    "river",
    "stone",
    "cloud",
    "apple",
    "seven",
    "lantern",
    "quiet",
    "amber",
    "north",
    "copper",
    "violet",
    "engine",
]
TIMES = 60  # traces of each kind of work


def nested(rng: random.Random, depth: int = 3) -> Any:
    """A small value of lists, dicts, numbers and words."""
    kind = rng.randrange(3, 5) if depth == 3 else rng.randrange(5 if depth else 3)
    if kind == 3:
        return [nested(rng, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 4:
        return {rng.choice(WORDS): nested(rng, depth - 1) for _ in range(rng.randrange(4))}
    return (rng.randrange(100), rng.choice(WORDS), rng.random() < 0.5)[kind]


def prose(rng: random.Random, least: int = 3, most: int = 12) -> str:
    """A few words."""
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(least, most)))


def pattern(rng: random.Random) -> str:
    """A regular expression."""
    parts = ("[a-z]+", "(?:ab|cd)", r"\d{2,4}", "x?", "(?P<y>z*)", "(?=q)", r"\w", "[^,;]", "(a|b|c)+?", r"\bend")
    return "".join(rng.sample(parts, rng.randint(1, 4))) + rng.choice(WORDS)


def arguments(rng: random.Random) -> list[str]:
    """A command line that ``parser`` accepts."""
    optional = [["--verbose"], ["-n", str(rng.randrange(9))], ["--mode", rng.choice("abc")], ["--tag", "x", "y"]]
    chosen = rng.sample(optional, rng.randrange(len(optional)))
    return [rng.choice(WORDS), *(word for option in chosen for word in option)]


def parser() -> argparse.ArgumentParser:
    """A parser with one positional argument and four options."""
    made = argparse.ArgumentParser(prog="work")
    made.add_argument("name")
    made.add_argument("--verbose", action="store_true")
    made.add_argument("-n", type=int, default=0)
    made.add_argument("--mode", choices="abc")
    made.add_argument("--tag", nargs="*")
    return made


def markup(rng: random.Random) -> str:
    """A piece of HTML."""
    return "".join(
        rng.choice(("<p>{}</p>", "<br>{}", "<a href='{0}'>{0}</a>", "<!-- {} -->", "{} &amp; ")).format(word)
        for word in rng.sample(WORDS, rng.randint(1, 5))
    )


def formula(rng: random.Random) -> str:
    """A Python expression."""
    parts = rng.choices(("a", "f(x, 2)", "b[1:3]", "[c, d]", "-e", "(lambda y: y)"), k=rng.randint(2, 4))
    return rng.choice((" + ", " * ", " and ", " < ")).join(parts)


def table(rng: random.Random) -> str:
    """A CSV file with a header."""
    return "a,b\r\n" + "".join(f"{rng.choice(WORDS)},{rng.randrange(9)}\r\n" for _ in range(rng.randint(1, 5)))


def rewrite(text: str) -> None:
    """Read a CSV file and write it anew."""
    writer = csv.DictWriter(io.StringIO(), ["b", "a"])
    writer.writeheader()
    for row in csv.DictReader(io.StringIO(text)):
        writer.writerow(row)


def letter(rng: random.Random) -> str:
    """A message with headers."""
    heads = rng.sample(("Subject: {}", "From: a@{}.org", "To: b@{}.org", "X-Note: {}"), rng.randint(1, 4))
    return "\n".join(head.format(rng.choice(WORDS)) for head in heads) + "\n\n" + prose(rng)


def address(rng: random.Random) -> str:
    """A URL."""
    query = "&".join(f"{rng.choice(WORDS)}={rng.randrange(99)}" for _ in range(rng.randrange(4)))
    return f"{rng.choice(('http', 'ftp', ''))}://{rng.choice(WORDS)}.org/{rng.choice(WORDS)}?{query}#{rng.random():.5f}"


Work = tuple[Callable[[random.Random], Any], Callable[[Any], Any]]
WORK: dict[str, Work] = {
    "argparse": (lambda rng: (parser(), arguments(rng)), lambda given: given[0].parse_args(given[1])),
    "ast": (lambda rng: ast.parse(formula(rng)), ast.unparse),
    "copy": (nested, copy.deepcopy),
    "csv": (table, rewrite),
    "email": (letter, email.message_from_string),
    "fractions": (
        lambda rng: [f"{rng.randrange(9)}/{rng.randint(1, 9)}" for _ in range(rng.randint(1, 4))],
        lambda texts: sum(map(fractions.Fraction, texts)),
    ),
    "html": (markup, lambda text: html.parser.HTMLParser().feed(text)),
    "json": (nested, lambda value: json.dumps(value, indent=1)),
    "pprint": (nested, pprint.pformat),
    "re": (pattern, re.compile),
    "shlex": (lambda rng: prose(rng, 1, 4) + rng.choice(("", " 'a b'", ' "c"', " # d")), shlex.split),
    "statistics": (lambda rng: rng.choices((1, 2, 0.5), k=rng.randint(2, 6)), statistics.pvariance),
    "urllib": (address, lambda text: urllib.parse.parse_qs(urllib.parse.urlsplit(text).query)),
}


def watched(work: Callable[[Any], Any], given: Any) -> list[str]:
    """Qualified names of the library's Python functions in the order of their calls; resuming a generator is one."""
    names: list[str] = []

    def note(frame: Any, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__")
        if event == "call" and module != __name__:
            names.append(f"{module}.{frame.f_code.co_qualname}")

    sys.setprofile(note)
    try:
        work(given)
    finally:
        sys.setprofile(None)
    return names


def traces(times: int) -> list[list[str]]:
    """So many traces of every kind of work."""
    for name, (make, work) in WORK.items():
        for turn in range(3):
            work(make(random.Random(f"before {name} {turn}")))
    turns = [(name, turn) for name in WORK for turn in range(times)]
    return [watched(WORK[name][1], WORK[name][0](random.Random(f"{name} {turn}"))) for name, turn in turns]


if __name__ == "__main__":
    gc.disable()
    json.dump(traces(int(sys.argv[1]) if sys.argv[1:] else TIMES), sys.stdout)
