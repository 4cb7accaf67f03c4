"""The kernels of a linear time-invariant mixer, drawn over logarithmic time: SVG, PNG or HTML by the file's ending.

What a mixer remembers of an input is its kernel: a filter that decays to the right forgets, one that swings counts, one
that is flat adds up. Time is drawn as lag + 1, so that lag 0 has a place on a logarithmic axis. Where several lags
share a column of the picture, the least and the greatest value of it are drawn, so that no swing is lost.

Shapes: K kernels, T lags.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqloom.app.report._figures import COLOURS
from seqloom.core.errors import ConfigError
from seqloom.core.files import check_writable, replacing, write_text
from seqloom.mixers._base import Mixer

ENDINGS = (".svg", ".png", ".html")
CURVES = 4
WIDE, HIGH = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 64, 16, 44, 44
GREY, SIZE = "#7F7F7F", 12
SHARP = 2
"""Pixels of a PNG for one unit of the drawing."""


@dataclass(frozen=True)
class Kernels:
    """A few kernels with their names."""

    title: str
    names: tuple[str, ...]
    values_KT: np.ndarray


@dataclass(frozen=True)
class Line:
    """Straight pieces between points."""

    points: Sequence[tuple[float, float]]
    colour: str
    width: float = 1.0


@dataclass(frozen=True)
class Words:
    """Text; ``anchor`` is the end that stands at x."""

    text: str
    x: float
    y: float
    anchor: str = "start"
    colour: str = GREY


def check_picture(path: str | Path) -> None:
    """Refuse a file that ``write_picture`` could not write: its ending, its place, or a package that is missing."""
    if Path(path).suffix not in ENDINGS:
        raise ConfigError(f"{path}: the ending of --plot says the format; there are {', '.join(ENDINGS)}")
    if Path(path).suffix == ".png":
        _pillow()
    check_writable(Path(path))


def kernels_of(name: str, config: Mixer.Config, width: int, length: int) -> Kernels:
    """A few kernels of a new mixer, evenly spread over its channels.

    Raises:
        ConfigError: The mixer has no kernel: what it remembers depends on what it reads.
    """
    if length < 2:
        raise ConfigError(f"a kernel is drawn over 2 lags and more, not {length}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        mixer: Any = config.build(width)
        if not callable(getattr(mixer, "kernel", None)):
            raise ConfigError(f"{name} has no kernel: what it remembers of an input depends on the others")
        kernel = mixer.kernel(length)
    inner = kernel.shape[:-1]
    flat_KT = kernel.reshape(-1, length).double().numpy()
    picked = np.unique(np.linspace(0, len(flat_KT) - 1, CURVES).round().astype(int))
    places = [np.unravel_index(int(at), inner) for at in picked]
    names = tuple(", ".join(str(int(i)) for i in place) for place in places)
    return Kernels(f"{name}: kernels as they begin, width {width}", names, flat_KT[picked])


def write_picture(kernels: Kernels, path: str | Path) -> Path:
    """Draw kernels into a file, whole or not at all; the ending says how."""
    check_picture(path)
    file = Path(path)
    if file.suffix == ".svg":
        write_text(file, _svg(kernels))
    elif file.suffix == ".png":
        _png(kernels, file)
    else:
        write_text(file, _html(kernels))
    return file


def drawing(kernels: Kernels) -> Iterator[Line | Words]:
    """Axes, curves and words in units of the picture, from the top left corner."""
    length = kernels.values_KT.shape[1]
    low, high = float(min(kernels.values_KT.min(), 0.0)), float(max(kernels.values_KT.max(), 0.0))
    if high - low < 1e-30:
        high = low + 1.0
    width, height = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM

    def right(lag: Any) -> Any:
        return LEFT + width * np.log(np.asarray(lag) + 1.0) / math.log(length)

    def down(value: Any) -> Any:
        return TOP + height * (high - np.asarray(value)) / (high - low)

    yield Words(kernels.title, LEFT, 18)
    for value in _ticks(low, high):
        y = float(down(value))
        yield Line([(LEFT, y), (WIDE - RIGHT, y)], "#C8C8C8", 0.5 if value else 1.0)
        yield Words(f"{value:g}", LEFT - 6, y + 4, "end")
    for power in range(int(math.log10(length)) + 1):
        x = float(right(10**power - 1))
        yield Line([(x, HIGH - BOTTOM), (x, HIGH - BOTTOM + 4)], GREY)
        yield Words(f"{10**power:,}", x, HIGH - BOTTOM + 18, "middle")
    yield Words("lag + 1", WIDE - RIGHT, HIGH - 8, "end")
    for number, (name, values_T) in enumerate(zip(kernels.names, kernels.values_KT, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        at, values = _envelope(values_T, right(np.arange(length)))
        yield Line(list(zip(at.tolist(), down(values).tolist(), strict=True)), colour, 1.5)
        yield Words(f"[{name}]", LEFT + number * width / CURVES, 36, colour=colour)


def _envelope(values_T: np.ndarray, x_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most four points a column: the first, the least, the greatest and the last, in the order of time."""
    cuts = np.flatnonzero(np.diff(x_T.astype(int))) + 1
    kept: list[int] = []
    for piece in np.split(np.arange(len(values_T)), cuts):
        own = values_T[piece]
        kept += sorted({int(piece[0]), int(piece[own.argmin()]), int(piece[own.argmax()]), int(piece[-1])})
    return x_T[kept], values_T[kept]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, zero among them."""
    rough = (high - low) / 4
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * times for times in (1, 2, 5, 10) if base * times >= rough)
    return [round(step * k, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _svg(kernels: Kernels) -> str:
    from markupsafe import escape

    parts = []
    for item in drawing(kernels):
        if isinstance(item, Line):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
            parts.append(f'<polyline points="{points}" stroke="{item.colour}" stroke-width="{item.width:g}"/>')
        else:
            place = f'x="{item.x:.1f}" y="{item.y:.1f}" text-anchor="{item.anchor}" fill="{item.colour}"'
            parts.append(f"<text {place}>{escape(item.text)}</text>")
    inside = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" width="{WIDE}" height="{HIGH}" '
        f'role="img" aria-label="{escape(kernels.title)}" font-family="system-ui, sans-serif" font-size="{SIZE}" '
        f'fill="none" stroke-linejoin="round">\n{inside}\n</svg>\n'
    )


def _png(kernels: Kernels, file: Path) -> None:
    image_of, drawer_of, font_of = _pillow()
    image = image_of("RGB", (WIDE * SHARP, HIGH * SHARP), "white")
    pen, font = drawer_of(image), font_of(SIZE * SHARP)
    anchors = {"start": "ls", "middle": "ms", "end": "rs"}
    for item in drawing(kernels):
        if isinstance(item, Line):
            points = [(x * SHARP, y * SHARP) for x, y in item.points]
            pen.line(points, fill=item.colour, width=max(1, round(item.width * SHARP)), joint="curve")
        else:
            place = (item.x * SHARP, item.y * SHARP)
            pen.text(place, item.text, fill=item.colour, font=font, anchor=anchors[item.anchor])
    with replacing(file) as part:
        image.save(part, format="PNG", optimize=True)


def _pillow() -> tuple[Any, Any, Any]:
    """What draws a PNG: it comes with tensorboard, unless somebody took it away."""
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError as error:
        raise ConfigError("pillow draws PNG and is not installed: pip install pillow, or ask for .svg") from error
    return Image.new, ImageDraw.Draw, ImageFont.load_default


def _html(kernels: Kernels) -> str:
    import plotly.graph_objects as go

    figure = go.Figure()
    lag_T = np.arange(kernels.values_KT.shape[1]) + 1
    for number, (name, values_T) in enumerate(zip(kernels.names, kernels.values_KT, strict=True)):
        line = {"color": COLOURS[number % len(COLOURS)]}
        figure.add_scatter(x=lag_T, y=values_T, mode="lines", name=f"[{name}]", line=line)
    figure.update_xaxes(title="lag + 1", type="log")
    figure.update_layout(title=kernels.title.replace("<", "&lt;"), template="plotly_white")
    return figure.to_html(include_plotlyjs=True, full_html=True)
