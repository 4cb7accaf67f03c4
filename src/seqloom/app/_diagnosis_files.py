"""A diagnosis as tables and as a page that can be sent: CSV and JSON for programs, Markdown and HTML for people."""

import math
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup, escape

from seqloom.app._diagnosing import RATES
from seqloom.app._diagnostics import LAYERS, WIDTH
from seqloom.app.card import versions
from seqloom.app.diagnose import Cell, Diagnosis
from seqloom.app.report import check_table
from seqloom.app.report._figures import COLOURS, MARKS
from seqloom.core.errors import harmless
from seqloom.core.files import json_text, write_text

FOLDER, PAGE = Path(__file__).parent, "diagnosis.html"
CLEAR = "rgba(0,0,0,0)"
LAYOUT = {
    "height": 360,
    "margin": {"l": 56, "r": 16, "t": 8, "b": 48},
    "paper_bgcolor": CLEAR,
    "plot_bgcolor": CLEAR,
    "font": {"color": "#7F7F7F"},
    "dragmode": False,
    "showlegend": True,
}
"""Grey letters on nothing are read on light and on dark ground."""
CARD = ("task", "result", "floor", "best possible", "accuracy", "scaled", "longer (scaled)", "steps")
COSTS = ("parameters", "state bytes", "FLOPs a position", "tokens/s", "step form", "validation loss by learning rate")


def write_table(found: Diagnosis, path: str | Path) -> Path:
    """Write the table, whole or not at all; the ending says how: .csv, .md, .json or .html (a fragment).

    CSV has a row a cell and length, JSON everything; Markdown and HTML are the cards, and the table over all mixers
    where there are several.
    """
    check_table(path)
    makers = {".csv": _csv, ".md": markdown, ".json": lambda found: json_text(found.figures()), ".html": _html}
    write_text(Path(path), makers[Path(path).suffix](found))
    return Path(path)


def write_page(found: Diagnosis, path: str | Path) -> Path:
    """Write the page: the table, accuracy against the bytes of the state, and every card."""
    from plotly.offline import get_plotlyjs

    safe = select_autoescape(default=True)
    pages = Environment(loader=FileSystemLoader(FOLDER), autoescape=safe, trim_blocks=True, lstrip_blocks=True)
    figures = [(task, Markup(figure.to_json().replace("<", "\\u003c"))) for task, figure in charts(found)]
    text = pages.get_template(PAGE).render(
        title=f"What {', '.join(found.mixers)} can do" if len(found.mixers) < 4 else "What each mixer can do",
        about=about(found),
        over=rows_over(found) if len(found.mixers) > 1 else [],
        cards=[(mixer, card(found.of(mixer))) for mixer in found.mixers],
        charts=figures,
        versions=versions(),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script").replace("<!--", "<\\!--") if figures else ""),
    )
    write_text(Path(path), text)
    return Path(path)


def about(found: Diagnosis) -> str:
    """How the figures came about."""
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    how = {
        "halving": f"the learning rate is the best of {rates} after a third of the budget each, by the validation part",
        "full": f"the learning rate is the best of {rates}, each with the whole budget, by the validation part",
    }.get(found.rates, f"the learning rate is {found.rates}")
    seeds = "one seed" if found.seeds == 1 else f"{found.seeds} seeds"
    equal = f", the MLPs as wide as makes {found.parameters:,} parameters in all layers" if found.parameters else ""
    return (
        f"Each training: {found.budget}, {seeds}, {LAYERS} layers of width {WIDTH}{equal}; {how}. "
        "Scaled: 0 is the best guess without a look at the example, 1 is perfect. "
        "What is not solved here may be solved by a longer training."
    )


def card(cells: Sequence[Cell]) -> list[list[str]]:
    """A heading, then a row a task: what one mixer can do, and what it costs."""
    return [[*CARD, *COSTS], *([*_result(cell), *_cost(cell)] for cell in cells)]


def rows_over(found: Diagnosis) -> list[list[str]]:
    """A heading, then a row a mixer: scaled accuracy at the length of training and at the longest, by task."""
    heading = ["mixer", "parameters", "state bytes", *found.tasks]
    rows = []
    for mixer in found.mixers:
        cells = {cell.task: cell for cell in found.of(mixer)}
        done = [cell for cell in cells.values() if not cell.error]
        states = [cell.state_bytes for cell in done if cell.state_bytes is not None]
        parameters = f"{max(cell.parameters for cell in done):,}" if done else ""
        rows.append([mixer, parameters, _span(states), *(_short(cells[task]) for task in found.tasks)])
    return [heading, *rows]


def rates(cell: Cell) -> str:
    """Every learning rate with its loss on the validation part, and which one was taken."""
    words = []
    for one in cell.tried:
        loss = "diverged" if one["loss"] is None else f"{one['loss']:.3f}"
        words.append(f"{one['rate']:g}: {loss}{' (taken)' if one['rate'] == cell.rate else ''}")
    return ", ".join(words) or f"{cell.rate:g} alone"


def two(value: float) -> str:
    """Two digits behind the point, and no minus before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def charts(found: Diagnosis) -> list[tuple[str, go.Figure]]:
    """By task: scaled accuracy at the length of training against the bytes of the state, a mark a mixer."""
    drawn = []
    for task in found.tasks:
        cells = [cell for cell in found.cells if cell.task == task and not cell.error and cell.state_bytes]
        if len(cells) < 2:
            continue
        figure = go.Figure()
        for cell in cells:
            number = found.mixers.index(cell.mixer)
            mark = {"color": COLOURS[number % len(COLOURS)], "symbol": MARKS[number % len(MARKS)], "size": 11}
            name = cell.mixer.replace("&", "&amp;").replace("<", "&lt;")
            figure.add_scatter(x=[cell.state_bytes], y=[cell.scaled], mode="markers", name=name, marker=mark)
        grid = {"gridcolor": "rgba(127,127,127,0.3)", "zeroline": False}
        figure.update_xaxes(title="bytes of one sequence's state", type="log", **grid)
        figure.update_yaxes(title="accuracy, scaled", range=[-0.05, 1.05], **grid)
        figure.update_layout(**LAYOUT)
        drawn.append((task, figure))
    return drawn


def markdown(found: Diagnosis) -> str:
    """The tables for people who read text."""
    tables = [rows_over(found)] if len(found.mixers) > 1 else []
    tables += [card(found.of(mixer)) for mixer in found.mixers]
    names = [*([""] if len(found.mixers) > 1 else []), *found.mixers]
    parts = [about(found)]
    for name, rows in zip(names, tables, strict=True):
        parts += [*([f"**{_cell(name)}**"] if name else []), table(rows)]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as Markdown, the first one as its heading."""
    lines = ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(rows[0]) - 1), *lines[1:]])


def _result(cell: Cell) -> list[str]:
    if cell.error:
        return [cell.task, f"{cell.word}: {cell.error}", *[""] * (len(CARD) - 2)]
    spread = f" ({min(cell.by_seed):.1%} to {max(cell.by_seed):.1%})" if len(cell.by_seed) > 1 else ""
    own = [f"{cell.floor:.1%}", f"{cell.oracle:.0%}", f"{cell.accuracy:.1%}{spread}", two(cell.scaled)]
    return [cell.task, cell.word, *own, longer(cell), f"{cell.steps:,}"]


def longer(cell: Cell) -> str:
    """Scaled accuracy at every length beyond training's."""
    parts = []
    for at, value in cell.longer.items():
        floor = cell.longer_floor[at]
        parts.append(f"{at}: {'out of reach' if value is None else two((value - floor) / (1 - floor))}")
    return ", ".join(parts)


def _cost(cell: Cell) -> list[str]:
    if cell.error:
        return [""] * len(COSTS)
    state = "" if cell.state_bytes is None else f"{cell.state_bytes:,}"
    flops = "" if cell.flops_per_position is None else f"{cell.flops_per_position:,.0f}"
    form = {None: "none", True: "the same", False: f"differs by {cell.step_gap or 0.0:.1e}"}[cell.agrees]
    return [f"{cell.parameters:,}", state, flops, f"{cell.tokens_per_second:,.0f}", form, rates(cell)]


def _short(cell: Cell) -> str:
    if cell.error:
        return cell.word
    return two(cell.scaled) if cell.longest is None else f"{two(cell.scaled)} → {two(cell.longest[1])}"


def _span(values: Sequence[int]) -> str:
    if not values:
        return "none"
    least, most = min(values), max(values)
    return f"{most:,}" if math.isclose(least, most) else f"{least:,} to {most:,}"


def _csv(found: Diagnosis) -> str:
    return found.frame().write_csv()


def _html(found: Diagnosis) -> str:
    tables = [("all mixers", rows_over(found))] if len(found.mixers) > 1 else []
    tables += [(mixer, card(found.of(mixer))) for mixer in found.mixers]
    return "".join(_html_table(name, rows) for name, rows in tables)


def _html_table(name: str, rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in rows[0])
    body = []
    for first, *rest in rows[1:]:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        body.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    inside = "\n".join(body)
    return (
        f"<table>\n<caption>{escape(name)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{inside}\n</tbody>\n"
        "</table>\n"
    )


def _cell(text: str) -> str:
    """Text that neither ends a cell nor means anything else to Markdown."""
    plain = harmless(text).replace("\n", " ").replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    plain = plain.replace(">", "&gt;")
    for mark in "|*_`[]":
        plain = plain.replace(mark, f"\\{mark}")
    return plain
