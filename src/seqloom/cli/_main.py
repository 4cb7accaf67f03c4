"""How a command line becomes a call of a verb.

Exit codes: 0 ok, 1 a finding is false, 2 user error, 3 data or extra absent, 130 saved on Ctrl-C, 143 saved on
SIGTERM.
"""

import difflib
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import seqloom
from seqloom.core import discovery
from seqloom.core.errors import INTERRUPTED, OK, USER_ERROR, SeqloomError, harmless
from seqloom.core.files import check_writable

ORDER = ("inspect", "fit", "compare", "predict", "score", "generate", "embed", "similar", "list", "explain", "diagnose")
RESUMABLE = ("fit", "compare", "diagnose")
SPINS = "10000"
"""Turns that a waiting thread spins before it sleeps. Sleeping at once (PASSIVE) made a training step of small layers
3.4 times slower on two free cores (75 to 80 ms against 23); spinning for long starves neighbours."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    if "OMP_WAIT_POLICY" not in os.environ:  # before torch, whose threads read it as they start
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    if not given or given[0] in ("-h", "--help", "help"):
        sys.stdout.write(usage())
        return OK
    if given[0] in ("--version", "-V"):
        sys.stdout.write(f"seqloom {seqloom.__version__}\n")
        return OK
    verb, rest = given[0], given[1:]
    if verb not in verbs():
        close = difflib.get_close_matches(verb, verbs(), 1)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the verbs are {', '.join(verbs())}"
        sys.stderr.write(f"seqloom: there is no verb {verb!r}; {hint}\n")
        return USER_ERROR
    return _run(verb, [word for word in rest if word != "--debug"], debug="--debug" in rest)


def verbs() -> tuple[str, ...]:
    """Every verb, in the order in which a newcomer meets them."""
    found = discovery.names("cli")
    return (*(name for name in ORDER if name in found), *(name for name in found if name not in ORDER))


def usage() -> str:
    """What ``seqloom --help`` shows, made without importing a single verb."""
    width = max(map(len, verbs()))
    lines = [f"  {name:<{width}}  {discovery.summary('cli', name)}" for name in verbs()]
    return "\n".join(
        [
            "seqloom: sequences in, an honest comparison and a saved model out.",
            "",
            "usage: seqloom VERB ... [--debug]     seqloom VERB --help     seqloom --version",
            "",
            *lines,
            "",
            "FILE is text, CSV, TSV, Parquet, JSON, FASTA, FASTQ, XES, RecBole, NumPy or MIDI (plain, .gz, .zst),",
            "- for stdin, or sample:NAME for one that travels with the package: sample:flights, sample:austen, ...",
            "",
            "first steps:",
            "  seqloom inspect sample:flights",
            "  seqloom compare sample:flights --models unigram,ngram,gru --budget 10s",
            "  seqloom fit sample:flights --model gru --out m",
            "  seqloom predict m sample:flights",
            "",
        ]
    )


def parse(verb: str, arguments: Sequence[str]) -> Any:
    """The verb's dataclass, filled from the command line."""
    import inspect

    import tyro

    kind: Any = discovery.get("cli", verb)
    marks = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    return tyro.cli(
        kind, args=[*arguments], prog=f"seqloom {verb}", description=inspect.cleandoc(kind.__doc__), config=marks
    )


def _run(verb: str, arguments: list[str], *, debug: bool) -> int:
    try:
        command = parse(verb, arguments)
        _check_targets(command)
        return command.run()
    except SystemExit as error:  # tyro: --help, or arguments that it cannot read
        return error.code if isinstance(error.code, int) else USER_ERROR
    except KeyboardInterrupt as error:
        _interrupted(verb, arguments, str(error))
        return getattr(error, "exit_code", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output has gone: nothing left to say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except SeqloomError as error:
        if debug:
            raise
        sys.stderr.write(harmless(f"seqloom {verb}: {error}\n"))
        return error.exit_code
    except Exception as error:  # a fault of ours: who runs the command is told how to see more, not shown all of it
        if debug:
            raise
        what = " ".join(str(error).split())[:300] or "no word of it"
        sys.stderr.write(harmless(f"seqloom {verb}: unexpected {type(error).__name__}: {what}; --debug shows where\n"))
        return USER_ERROR


def _check_targets(command: Any) -> None:
    """Refuse files that could not be written before the long work begins, not behind it."""
    to, report = getattr(command, "to", None), getattr(command, "report", None)
    if to is not None:
        from seqloom.cli._terminal import check_frame

        check_frame(Path(to))
    if isinstance(report, str):
        check_writable(Path(report))


def _interrupted(verb: str, arguments: list[str], what: str) -> None:
    again = [word for word in arguments if word != "--resume"]
    mend = f"; go on with: seqloom {verb} {shlex.join(again)} --resume" if verb == "fit" else ""
    mend = "; what is finished is kept, the same command goes on" if verb in ("compare", "diagnose") else mend
    sys.stderr.write(f"\nseqloom {verb}: {what or 'stopped'}{mend}\n")
