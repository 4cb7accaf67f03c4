"""A comparison as one HTML page that can be sent to a colleague: nothing is fetched, every word of the user escaped."""

from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, select_autoescape
from markupsafe import Markup

from seqloom.app.card import versions
from seqloom.app.report._table import check_table, headings, rows, sentence, write_table
from seqloom.training.checkpoint import write_text

if TYPE_CHECKING:
    from seqloom.app.compare import Comparison

__all__ = ["check_table", "render", "write", "write_table"]
FOLDER = Path(__file__).parent


def write(found: "Comparison", path: str | Path, *, hide_sequences: bool = False) -> Path:
    """Write the page, whole or not at all.

    Args:
        found: The comparison.
        path: The file.
        hide_sequences: Keep raw data (sequences, their ids, symbols) out of it.
    """
    write_text(Path(path), render(found, hide_sequences=hide_sequences))
    return Path(path)


def render(found: "Comparison", *, hide_sequences: bool = False) -> str:
    """The page as text."""
    from plotly.offline import get_plotlyjs

    from seqloom.app.report._details import details
    from seqloom.app.report._figures import charts, closer
    from seqloom.app.report._pictures import pictures

    loader, safe = FileSystemLoader(FOLDER), select_autoescape(default=True)
    pages = Environment(loader=loader, autoescape=safe, trim_blocks=True, lstrip_blocks=True)
    seen = details(found)
    drawn = [*charts(found), *([] if seen is None else closer(seen, hide_symbols=hide_sequences))]
    return pages.get_template("page.html").render(
        title=f"Which model for {found.data['source']}?",
        sentence=sentence(found),
        headings=headings(found),
        rows=rows(found),
        found=found,
        charts=drawn,
        figures=[Markup(_in_script(chart.figure)) for chart in drawn],
        seen=seen,
        strips=[] if seen is None or hide_sequences else seen.strips,
        pictures=[] if hide_sequences else pictures(found),
        versions=versions(),
        plotly=Markup(_in_script(get_plotlyjs()) if drawn else ""),
    )


def _in_script(text: str) -> str:
    """Text that cannot end the script element that it stands in."""
    return text.replace("</script", "<\\/script").replace("<!--", "<\\!--")
