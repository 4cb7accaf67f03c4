"""Write the measured tables of docs/guide/diagnostics.md, and the kernels on the pages of the mixers.

The tables stand between their markers on the page, so that no number there is typed by hand. What is finished is kept
in a folder: a second call trains only what is new or what the code has changed. The second table is of one task at
nearly equal bytes of state, with the options that bring every mixer there.

    python benchmarks/diagnostics.py                                    every mixer, the five usual tasks
    python benchmarks/diagnostics.py --state                            the second table
    python benchmarks/diagnostics.py --mixers s4d,lstm+attention --rates full    these alone, each rate in full
    python benchmarks/diagnostics.py --pictures                         the kernels alone, some seconds
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import replace
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
NEEDED = {"prob_sparse": ("causal=strict",)}
"""Options without which a mixer sees the future."""
LEFT_OUT = {
    "bidirectional": "sees the future",
    "hydra": "sees the future",
    "matrix_mixer": "sees the future",
    "linformer": "sees the future",
    "reverse_complement": "wraps another",
    "s4nd": "s4d where there is one axis",
    "hip": "attention while it trains",
    "monarch_mixer": "larger alone than the others with their MLPs",
}
"""Mixers that have no row, and why."""
STATE = {
    "mom": ('router={"part":"layers/router","outlets":3,"top":1}', "heads=8", "conv=1"),
    "gated_delta": ("value_factor=1.5",),
    "mlstm": ("expand=1.0", "heads=2"),
    "mamba": ("state=13",),
    "mamba2": ("state=12",),
    "gla": ("heads=2", "key_factor=1.0"),
    "retention": (),
    "linear_attention": ("heads=2",),
    "window": ("window=16",),
    "seqboat": ("window=10",),
    "h3": ("shift=16", "state=16"),
    "s4d": ("state=32",),
    "s4": ("state=32",),
    "lssl": (),
    "ema": (),
}
"""Options with which two layers of width 64 keep about 16 KiB a sequence; who cannot at equal parameters has none."""
STATE_TASK = "selective_copy"


def measured(kinds: Mapping[str, tuple[str, ...]], tasks: list[str] | None, **asked: Any) -> Diagnosis:
    """One diagnosis of mixers that have options of their own."""
    parts = [diagnose(name, tasks, options=options, progress=Lines(), **asked) for name, options in kinds.items()]
    return replace(parts[0], cells=[cell for part in parts for cell in part.cells])


def usual() -> dict[str, tuple[str, ...]]:
    """Every mixer that has a row, and an LSTM below attention."""
    names = [name for name in discovery.names("mixers") if name not in LEFT_OUT]
    return {"lstm,attention": (), **{name: NEEDED.get(name, ()) for name in names}}


def write(found: Diagnosis, page: Path = PAGE, table_name: str = "diagnostics") -> None:
    """Put a table between its markers."""
    where = machine()
    said = f"*{where['processor']}; {where['versions']}; {where['date']}*"
    shown = f"{about(found)}\n\n{table(rows_over(found))}\n\n{said}"
    pattern = re.compile(rf"(<!-- measured {table_name} -->\n).*?(<!-- end -->)", re.S)
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
    parser.add_argument("--mixers", help="with commas between; default: all that have a row")
    parser.add_argument("--tasks", help="with commas between; default: the five usual ones")
    parser.add_argument("--state", action="store_true", help="the table at equal bytes of state")
    parser.add_argument("--budget", default="400steps")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--parameters", type=int, default=131_072, help="of all layers; 0 = the same MLP for every mixer"
    )
    parser.add_argument("--rates", default="halving")
    parser.add_argument("--out", type=Path, default=CACHE)
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--pictures", action="store_true", help="draw the kernels, measure nothing")
    given = parser.parse_args()
    if given.pictures:
        draw()
        return
    kinds, tasks = usual(), None if given.tasks is None else given.tasks.split(",")
    if given.state:
        kinds, tasks = STATE, tasks or [STATE_TASK]
    if given.mixers is not None:
        names = [name.replace("+", ",") for name in given.mixers.split(",")]
        kinds = {name: kinds.get(name, ()) for name in names}
    asked = {name: getattr(given, name) for name in ("budget", "seeds", "parameters", "rates", "out")}
    write(measured(kinds, tasks, **asked), given.page, "state" if given.state else "diagnostics")


if __name__ == "__main__":
    main()
