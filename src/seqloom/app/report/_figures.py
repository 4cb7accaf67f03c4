"""The charts of the report, as plotly's JSON."""

import math
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison, Entry

# Okabe and Ito's colours, told apart by most eyes, on light and dark ground.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800", "#7F7F7F")
DASHES = ("solid", "dash", "dot", "dashdot")


def charts(found: "Comparison") -> list[dict[str, Any]]:
    """Name, explanation and figure of every chart that there is something to draw for."""
    drawn = []
    learned = [entry for entry in found.entries if entry.row is not None and any(_looks(entry))]
    if learned:
        drawn.append(_chart("Learning curves", _learning(found, learned), "How the validation part got better."))
    shown = [entry for entry in found.entries if entry.row is not None and entry.row.mean is not None]
    axes = (("Quality and time", "seconds", "seconds of training"), ("Quality and size", "parameters", "parameters"))
    for title, what, axis in axes if shown else ():
        drawn.append(_chart(title, _against(found, shown, what, axis), "Lower left is better."))
    return drawn


def _chart(title: str, figure: go.Figure, about: str) -> dict[str, Any]:
    figure.update_layout(
        margin={"l": 56, "r": 16, "t": 8, "b": 48},
        height=360,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "y": -0.25},
        hovermode="closest",
    )
    # "<" never stands in the JSON, so that a model's name cannot close the script element
    return {"title": title, "about": about, "figure": figure.to_json().replace("<", "\\u003c")}


def _learning(found: "Comparison", entries: list["Entry"]) -> go.Figure:
    figure = go.Figure()
    for entry in entries:
        number = found.entries.index(entry)
        for k, looks in enumerate(_looks(entry)):
            figure.add_scatter(
                x=[look["seconds"] for look in looks],
                y=[look["nll"] / math.log(2) for look in looks],
                mode="lines+markers",
                name=_plain(entry.name),
                legendgroup=entry.name,
                showlegend=k == 0,
                line={"color": _colour(found, entry), "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
                opacity=1.0 if k == 0 else 0.5,
            )
    figure.update_xaxes(title="seconds of training", rangemode="tozero")
    figure.update_yaxes(title=found.measure.replace("_", " ") + " (validation)")
    return figure


def _against(found: "Comparison", entries: list["Entry"], what: str, title: str) -> go.Figure:
    figure = go.Figure()
    for entry in entries:
        row = entry.row
        if row is None or row.mean is None:
            continue
        spread = [row.spread] if row.spread is not None else None
        figure.add_scatter(
            x=[max(entry.mean(what), 1e-3)],
            y=[row.mean],
            error_y={"type": "data", "array": spread, "visible": spread is not None},
            mode="markers",
            name=_plain(entry.name),
            marker={"color": _colour(found, entry), "size": 11},
        )
    figure.update_xaxes(title=title, type="log")
    figure.update_yaxes(title=found.measure.replace("_", " ") + " (test)")
    return figure


def _looks(entry: "Entry") -> list[list[dict[str, Any]]]:
    """Looks at the validation part, by arm; only arms that looked."""
    every = [[event for event in arm.events if event["kind"] == "look" and "nll" in event] for arm in entry.arms]
    return [looks for looks in every if looks]


def _colour(found: "Comparison", entry: "Entry") -> str:
    """The same in every chart."""
    return COLOURS[found.entries.index(entry) % len(COLOURS)]


def _plain(text: str) -> str:
    """Plotly reads a little HTML in its labels: nothing of a name may be taken for it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
