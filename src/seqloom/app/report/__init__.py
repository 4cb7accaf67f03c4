"""A comparison as one HTML page that can be sent to a colleague: nothing is fetched, every word of the user escaped."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from seqloom.app.card import versions
from seqloom.training.checkpoint import write_text

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison

FOLDER = Path(__file__).parent


def write(found: "Comparison", path: str | Path, *, hide_sequences: bool = False) -> Path:
    """Write the page, whole or not at all.

    Args:
        found: The comparison.
        path: The file.
        hide_sequences: Keep raw data (the most surprising sequences, their ids) out of it.
    """
    write_text(Path(path), render(found, hide_sequences=hide_sequences))
    return Path(path)


def render(found: "Comparison", *, hide_sequences: bool = False) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    from seqloom.app.report._figures import charts

    pages = Environment(loader=FileSystemLoader(FOLDER), autoescape=select_autoescape(default=True), trim_blocks=True)
    drawn = [{**chart, "figure": Markup(_in_script(chart["figure"]))} for chart in charts(found)]
    return pages.get_template("page.html").render(
        title=f"Which model for {found.data['source']}?",
        sentence=found.sentence() if found.entries and found.entries[0].row is not None else "Every model failed.",
        unit=found.measure.replace("_", " "),
        rows=[_row(entry.figures(found.measure), found.measure) for entry in found.entries],
        found=found,
        charts=drawn,
        odd=[] if hide_sequences else found.odd,
        versions=versions(),
        plotly=Markup(_in_script(get_plotlyjs()) if drawn else ""),
    )


def _row(one: dict[str, Any], measure: str) -> dict[str, Any]:
    """Figures as they are shown."""
    if one[measure] is None:
        return {"name": one["name"], "error": one.get("error") or "no finite score"}
    low, high = one["low"], one["high"]
    return {
        "name": one["name"],
        "error": "",
        "best": one["best"],
        "mean": f"{one[measure]:.3f}",
        "interval": "" if low is None else f"{low:.3f} to {high:.3f}",
        "spread": "" if one["spread"] is None else f"{one['spread']:.3f}",
        "accuracy": f"{one['accuracy']:.1%}",
        "parameters": f"{one['parameters']:,}",
        "seconds": f"{one['seconds']:.1f}",
        "speed": f"{one['tokens_per_second']:,.0f}",
        "memory": f"{one['memory'] / 1e6:.1f}",
        "ties": ", ".join(one["ties"]),
    }


def _in_script(text: str) -> str:
    """Text that cannot end the script element that it stands in."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
