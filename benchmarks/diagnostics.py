"""Write the measured table of docs/guide/diagnostics.md, and the kernels on the pages of the mixers.

The table stands between its two markers on the page, so that no number there is typed by hand. What is finished is kept
in a folder: a second call trains only what is new or what the code has changed.

    python benchmarks/diagnostics.py                                    every mixer, the five usual tasks, a minute each
    python benchmarks/diagnostics.py --mixers s4d,lstm+attention --budget 400steps    these alone
    python benchmarks/diagnostics.py --pictures                         the kernels alone, some seconds
"""

import argparse
import re
from pathlib import Path
from typing import Any

from seqloom.app._diagnosis_files import about, rows_over, table
from seqloom.app._kernel_picture import kernels_of, write_picture
from seqloom.app._options import configured, shown
from seqloom.app.diagnose import Diagnosis, diagnose
from seqloom.core import discovery
from seqloom.core.errors import ConfigError
from seqloom.core.files import write_text
from seqloom.testing.benchmark import machine

ROOT = Path(__file__).resolve().parent.parent
PAGE, PICTURES = ROOT / "docs" / "guide" / "diagnostics.md", ROOT / "docs" / "mixers" / "img"
CACHE = ROOT / ".cache" / "diagnostics"
OPTIONS = {"hippo": ("memory=legt",)}
"""Options without which a mixer has no kernel."""


def write(found: Diagnosis, page: Path = PAGE) -> None:
    """Put the table between its markers."""
    where = machine()
    said = f"*{where['processor']}; {where['versions']}; {where['date']}*"
    shown = f"{about(found)}\n\n{table(rows_over(found))}\n\n{said}"
    pattern = re.compile(r"(<!-- measured diagnostics -->\n).*?(<!-- end -->)", re.S)
    text, count = pattern.subn(lambda marks: f"{marks[1]}{shown}\n{marks[2]}", page.read_text(encoding="utf-8"))
    if count != 1:
        raise ValueError(f"{page} has no place for the table")
    write_text(page, text)


def draw(folder: Path = PICTURES) -> None:
    """The kernels of every mixer that has some."""
    for name in discovery.names("mixers"):
        kind: Any = discovery.get("mixers", name)
        if not hasattr(kind, "kernel"):
            continue
        options = OPTIONS.get(name, ())
        try:
            kernels = kernels_of(shown(name, options), configured(name, options), width=64, length=1024)
        except ConfigError as error:  # no kernel with these options
            print(f"{name}: {error}")
            continue
        print(write_picture(kernels, folder / f"{name}.svg"))


class Lines:
    """Progress as lines, a stage each."""

    def stage(self, name: str, total: int | None = None, unit: str = "step") -> None:
        print(name, flush=True)

    def advance(self, n: int = 1, values: Any = None) -> None:
        return None

    def note(self, text: str) -> None:
        print(text, flush=True)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mixers", default="all")
    parser.add_argument("--tasks", help="with commas between; default: the five usual ones")
    parser.add_argument("--budget", default="20s")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--parameters", type=int, default=0, help="of all layers; 0 = the same MLP for every mixer")
    parser.add_argument("--rates", default="full")
    parser.add_argument("--out", type=Path, default=CACHE)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--pictures", action="store_true", help="draw the kernels, measure nothing")
    given = parser.parse_args()
    if given.pictures:
        draw()
        return
    tasks = None if given.tasks is None else given.tasks.split(",")
    mixers = [name.replace("+", ",") for name in given.mixers.split(",")]
    asked: dict[str, Any] = {
        "budget": given.budget,
        "seeds": given.seeds,
        "parameters": given.parameters,
        "rates": given.rates,
    }
    found = diagnose(mixers, tasks, out=given.out, progress=Lines(), **asked)
    write(found, given.page)


if __name__ == "__main__":
    main()
