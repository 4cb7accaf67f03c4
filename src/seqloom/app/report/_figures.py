"""The charts of the report, as plotly's JSON, each with the table that says the same."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from seqloom.app.report._table import named

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison, Entry
    from seqloom.app.report._details import Details

# Okabe and Ito's colours, told apart by most eyes, on light and dark ground.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#B8A800", "#7F7F7F")
DASHES = ("solid", "dash", "dot", "dashdot")
MARKS = ("circle", "square", "diamond", "triangle-up", "x", "star", "hexagon", "pentagon")
GREY = "#7F7F7F"
LETTERS = 24
_STEPS = "Where in a sequence {} is surprised: early, before it knows enough, or far from the beginning."
_PLACES = {
    "next": ("Surprise by position", "position in the sequence", "position", "bits of each symbol", _STEPS),
    "values": ("Surprise by position", "position in the sequence", "position", "bits of each value", _STEPS),
    "forecast": ("Error by steps ahead", "steps ahead", "step", "scaled error", "How far ahead {} sees."),
    "classify": (
        "Bits by length",
        "length of the sequence",
        "length",
        "bits of each class",
        "Whether {} tells short sequences apart as well as long ones.",
    ),
    "regress": (
        "Error by events read",
        "events read",
        "after",
        "absolute error",
        "How early {} knows, and how much it gains by every event.",
    ),
}
"""Title, axis, one of what stands on it, unit and words of the chart by position, by what is predicted."""


@dataclass(frozen=True)
class Chart:
    """One chart with its words."""

    title: str
    about: str
    """What it shows and how it is read."""
    figure: str
    """Plotly's JSON."""
    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def charts(found: "Comparison") -> list[Chart]:
    """Every chart of all models that there is something to draw for."""
    drawn = []
    shown = [entry for entry in found.entries if entry.row is not None and entry.row.mean is not None]
    axes = (("Quality and time", "seconds", "seconds of training"), ("Quality and size", "parameters", "parameters"))
    for title, what, axis in axes if shown else ():
        drawn.append(_against(found, shown, title, what, axis))
    learned = [entry for entry in found.entries if entry.row is not None and any(_looks(entry))]
    if learned:
        drawn.append(_learning(found, learned))
    return drawn


def closer(seen: "Details", *, hide_symbols: bool = False) -> list[Chart]:
    """Charts of one model; ``hide_symbols``: none that names symbols, channels or classes."""
    drawn = [] if seen.reliability is None else [_calibration(seen)]
    if len(seen.places) > 1:
        drawn.append(_places(seen))
    if len(seen.costs) > 1 and not hide_symbols:
        drawn.append(_costs(seen))
    return drawn


def _chart(
    title: str, about: str, figure: go.Figure, headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]
) -> Chart:
    figure.update_layout(
        margin={"l": 56, "r": 16, "t": 8, "b": 48},
        height=340 + 10 * sum(1 for _ in figure.select_traces()),
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
        hovermode="closest",
        dragmode=False,  # a finger scrolls the page
    )
    # "<" never stands in the JSON, so that a model's name cannot close the script element
    return Chart(title, about, figure.to_json().replace("<", "\\u003c"), headings, rows)


def _learning(found: "Comparison", entries: list["Entry"]) -> Chart:
    figure, rows = go.Figure(), []
    for entry in entries:
        number = found.entries.index(entry)
        for k, looks in enumerate(_looks(entry)):
            learnt = [look["loss"] if found.predicts == "regress" else look["nll"] / math.log(2) for look in looks]
            figure.add_scatter(
                x=[look["seconds"] for look in looks],
                y=learnt,
                mode="lines+markers",
                name=_plain(entry.name),
                legendgroup=str(number),
                showlegend=k == 0,
                marker={"symbol": _mark(found, entry)},
                line={"color": _colour(found, entry), "dash": DASHES[number // len(COLOURS) % len(DASHES)]},
                opacity=1.0 if k == 0 else 0.5,
            )
            run = f" (run {k + 1})" if k else ""
            rows += [
                (f"{entry.name}{run}", f"{look['seconds']:.2f}", f"{value:.3f}")
                for look, value in zip(looks, learnt, strict=True)
            ]
    learnt_by = {"forecast": "bits per value", "regress": "loss of the scaled number"}
    unit = learnt_by.get(found.predicts, named(found.measure))
    figure.update_xaxes(title="seconds of training", rangemode="tozero")
    figure.update_yaxes(title=f"{unit} (validation)")
    about = "How the validation part got better while the networks trained. Lower is better."
    return _chart("Learning curves", about, figure, ("model", "seconds", unit), rows)


def _against(found: "Comparison", entries: list["Entry"], title: str, what: str, axis: str) -> Chart:
    figure, rows = go.Figure(), []
    for entry in entries:
        row = entry.row
        if row is None or row.mean is None:
            continue
        error = {"type": "data", "visible": False}
        if row.low is not None and row.high is not None:
            above, below = max(row.high - row.mean, 0.0), max(row.mean - row.low, 0.0)
            error = {"type": "data", "symmetric": False, "array": [above], "arrayminus": [below]}
        figure.add_scatter(
            x=[max(entry.mean(what), 1e-3)],
            y=[row.mean],
            error_y=error,
            mode="markers",
            name=_plain(entry.name),
            marker={"color": _colour(found, entry), "symbol": _mark(found, entry), "size": 11},
        )
        interval = "" if row.low is None else f"{row.low:.3f} to {row.high:.3f}"
        size = f"{entry.mean(what):,.2f}" if what == "seconds" else f"{entry.mean(what):,.0f}"
        rows.append((entry.name, size, f"{row.mean:.3f}", interval))
    unit = named(found.measure, found.unit)
    sizes = [max(entry.mean(what), 1e-3) for entry in entries]
    # powers of ten alone where there are several of them, else what plotly finds between two
    figure.update_xaxes(title=axis, type="log", dtick=1 if max(sizes) > 30 * min(sizes) else None)
    figure.update_yaxes(title=f"{unit} (test)")
    about = "Down and to the left is better. The bars are the 95 % intervals."
    return _chart(title, about, figure, ("model", axis, unit, "95 % interval"), rows)


def _calibration(seen: "Details") -> Chart:
    curve = seen.reliability
    if curve is None:
        raise ValueError("nothing to draw")
    values = seen.what in ("channel", "number")
    said, came = curve.confidence_B.tolist(), curve.frequency_B.tolist()
    end = min(1.0, 1.15 * max(*said, *came))
    figure = go.Figure()
    figure.add_scatter(
        x=[0, end],
        y=[0, end],
        mode="lines",
        name="as often as said",
        line={"color": GREY, "dash": "dash"},
        hoverinfo="skip",
    )
    figure.add_scatter(x=said, y=came, mode="lines+markers", name=_plain(seen.name), line={"color": COLOURS[0]})
    figure.update_xaxes(title="promised share" if values else "probability of the likeliest", range=[0, end])
    figure.update_yaxes(title="values inside" if values else "how often it was right", range=[0, end])
    first, second = ("interval", "values inside") if values else ("probability", "right")
    about = (
        f"How many values lie inside the central intervals of {seen.name}. On the dashed line as many as promised."
        if values
        else f"When {seen.name} says 80 %, is it right 80 times in 100? On the dashed line it is; below it is too sure."
    )
    about += f" Mean distance: {curve.error:.3f}."
    rows = [
        (f"{a:.1%}", f"{b:.1%}", f"{count:,}") for a, b, count in zip(said, came, curve.count_B.tolist(), strict=True)
    ]
    return _chart("Calibration", about, figure, (first, second, "predictions"), rows)


def _places(seen: "Details") -> Chart:
    title, axis, mark, unit, about = _PLACES[seen.predicts]
    unit += f" ({seen.unit})" if seen.unit else ""
    figure = go.Figure()
    middle = [(place.first + place.last) / 2 for place in seen.places]
    figure.add_scatter(
        x=middle,
        y=[place.error for place in seen.places],
        error_y=_bars([(place.low, place.error, place.high) for place in seen.places]),
        mode="lines+markers",
        line={"color": COLOURS[0]},
        showlegend=False,
        text=[place.name for place in seen.places],
        hovertemplate=f"{mark} %{{text}}: %{{y:.2f}} {_plain(seen.unit) or unit.split()[0]}<extra></extra>",
    )
    wide = seen.places[-1].last > 100
    figure.update_xaxes(title=axis, type="log" if wide else "linear", dtick=1 if wide else None)
    figure.update_yaxes(title=unit, rangemode="tozero")
    rows = [
        (
            place.name,
            f"{place.error:.3f}",
            "" if math.isnan(place.low) else f"{place.low:.3f} to {place.high:.3f}",
            f"{place.count:,}",
        )
        for place in seen.places
    ]
    about = f"{about.format(seen.name)} Of the whole test part; the bars are the 95 % intervals."
    return _chart(title, about, figure, (mark, unit, "95 % interval", "predictions"), rows)


def _bars(ends: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Error bars of low, mean and high; none where one sequence is all there is."""
    if any(math.isnan(low) for low, _, _ in ends):
        return {"type": "data", "visible": False}
    above = [max(high - mean, 0.0) for _, mean, high in ends]
    below = [max(mean - low, 0.0) for low, mean, _ in ends]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1, "width": 2}


def _costs(seen: "Details") -> Chart:
    figure = go.Figure()
    names = _short([cost.name for cost in seen.costs])
    figure.add_bar(
        x=[cost.share for cost in seen.costs],
        y=list(range(len(names))),
        orientation="h",
        marker={"color": COLOURS[0]},
        showlegend=False,
        hovertemplate="%{x:.1%} of all bits<extra></extra>",
    )
    figure.update_xaxes(title="share of all bits", tickformat=".0%")
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, autorange="reversed")
    rows = [(cost.name, f"{cost.share:.1%}", f"{cost.bits:.2f}", f"{cost.count:,}") for cost in seen.costs]
    title = {"symbol": "The most costly symbols", "class": "What each class costs"}.get(seen.what, "Bits by channel")
    about = f"What {seen.name} pays most for in all: what comes often, or comes as a surprise."
    return _chart(title, about, figure.update_layout(bargap=0.3), (seen.what, "share", "bits each", "times"), rows)


def _looks(entry: "Entry") -> list[list[dict[str, Any]]]:
    """Looks at the validation part, by arm; only arms that looked."""
    every = [[event for event in arm.events if event["kind"] == "look" and "nll" in event] for arm in entry.arms]
    return [looks for looks in every if looks]


def _colour(found: "Comparison", entry: "Entry") -> str:
    """The same in every chart."""
    return COLOURS[found.entries.index(entry) % len(COLOURS)]


def _mark(found: "Comparison", entry: "Entry") -> str:
    """The same in every chart, for eyes that see no colours."""
    return MARKS[found.entries.index(entry) % len(MARKS)]


def _short(names: Sequence[str]) -> list[str]:
    return [_plain(name if len(name) <= LETTERS else name[: LETTERS - 1] + "…") for name in names]


def _plain(text: str) -> str:
    """Plotly reads a little HTML in its labels: nothing of a name may be taken for it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
