"""The table of a comparison as a file: CSV and JSON for programs, Markdown and HTML for people."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import escape

from seqloom.core.errors import ConfigError, harmless
from seqloom.core.files import check_writable, json_text, write_text

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison

ENDINGS = (".csv", ".md", ".json", ".html")
FIELDS = ("low", "high", "spread", "accuracy", "parameters", "seconds", "tokens_per_second", "memory", "steps", "seeds")
"""Figures of a row of the CSV file after the measure; further measures and the ties follow."""


def check_table(path: str | Path) -> None:
    """Refuse a file that ``write_table`` could not write: its ending, or its place."""
    if Path(path).suffix not in ENDINGS:
        raise ConfigError(f"{path}: the ending of --table says the format; there are {', '.join(ENDINGS)}")
    check_writable(Path(path))


def write_table(found: "Comparison", path: str | Path) -> Path:
    """Write the table, whole or not at all; the ending says how: .csv, .md, .json or .html (a fragment).

    CSV and JSON hold every figure as it is, Markdown and HTML as it is shown.
    """
    check_table(path)
    makers = {".csv": _csv, ".md": _markdown, ".json": _json, ".html": _html}
    write_text(Path(path), makers[Path(path).suffix](found))
    return Path(path)


def headings(found: "Comparison") -> tuple[str, ...]:
    """Of the shown columns."""
    right = "inside 80 %" if found.predicts in ("values", "forecast", "regress") else "right"
    sizes = ("parameters", "seconds", "tokens/s", "MB")
    measure = named(found.measure, found.unit)
    return ("model", measure, "95 % interval", "± over seeds", right, *sizes, "cannot be told apart from")


def named(measure: str, unit: str = "") -> str:
    """A measure as it is shown, with the unit of what is told where it has one."""
    name = {"mase": "scaled error", "mae": "absolute error"}.get(measure, measure.replace("_", " "))
    return f"{name} ({unit})" if unit else name


def rows(found: "Comparison") -> list[dict[str, Any]]:
    """Every model as it is shown: its cells, or why there are none."""
    return [_row(entry.figures(found.measure), found.measure) for entry in found.entries]


def _row(one: dict[str, Any], measure: str) -> dict[str, Any]:
    if one[measure] is None:
        why = f"{'skipped' if one['skipped'] else 'failed'}: {one['error'] or 'no finite score'}"
        return {"name": one["name"], "error": why, "best": False, "cells": []}
    low, high = one["low"], one["high"]
    cells = [
        f"{one[measure]:.3f}",
        "" if low is None else f"{low:.3f} to {high:.3f}",
        "" if one["spread"] is None else f"{one['spread']:.3f}",
        f"{one['accuracy']:.1%}",
        f"{one['parameters']:,}",
        f"{one['seconds']:.1f}",
        f"{one['tokens_per_second']:,.0f}",
        f"{one['memory'] / 1e6:.1f}",
        ", ".join(one["ties"]),
    ]
    return {"name": one["name"], "error": "", "best": one["best"], "cells": cells}


def _csv(found: "Comparison") -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = dict.fromkeys((found.measure, *FIELDS, *(name for entry in found.entries for name in entry.further)))
    writer.writerow(("name", *columns, "ties", "best", "error"))
    for entry in found.entries:
        one = entry.figures(found.measure)
        own = ["" if one.get(name) is None else one[name] for name in columns]
        writer.writerow((one["name"], *own, "; ".join(one.get("ties", ())), one.get("best", False), one["error"]))
    return out.getvalue()


def _json(found: "Comparison") -> str:
    return json_text(found.figures())


def _markdown(found: "Comparison") -> str:
    names = headings(found)
    lines = [_line(names), _line(["---", *["---:"] * (len(names) - 2), "---"])]
    for row in rows(found):
        name = f"**{_cell(row['name'])}**" if row["best"] else _cell(row["name"])
        own = row["cells"] or [row["error"], *[""] * (len(names) - 2)]
        lines.append(_line([name, *map(_cell, own)]))
    return "\n".join(lines) + "\n"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Text that neither ends a cell nor means anything else to Markdown."""
    plain = harmless(text).replace("\n", " ").replace("\\", "\\\\")
    for mark in "|*_`[]<>":
        plain = plain.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return plain


def _html(found: "Comparison") -> str:
    names = headings(found)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = [f"<table>\n<caption>{escape(sentence(found))}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>"]
    for row in rows(found):
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in row["cells"])
        own = cells or f'<td colspan="{len(names) - 1}">{escape(row["error"])}</td>'
        name = f"<strong>{escape(row['name'])}</strong>" if row["best"] else escape(row["name"])
        lines.append(f'<tr><th scope="row">{name}</th>{own}</tr>')
    return "\n".join([*lines, "</tbody>\n</table>\n"])


def sentence(found: "Comparison") -> str:
    """The result in plain words, whatever it is."""
    return found.sentence() if found.entries and found.entries[0].row is not None else "Every model failed."
