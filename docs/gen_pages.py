"""mkdocs hook: the navigation, the tables of parts and the table of claims, made from the tree at every build.

A page asks for a table with a comment of its own line:

    <!-- parts mixers -->    every part on a shelf, with its one-line summary
    <!-- claims -->          every claim with its findings, from results/*.json
    <!-- floors -->          the shelves themselves

Nothing generated is written to disk.
"""

import ast
import json
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from seqloom.core import discovery

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
FLOORS = (
    ("core", "Ground: configs, discovery, layouts, states, errors"),
    ("kernels", "One meaning, many speeds"),
    ("data", "Readers, sequences, splits, batches, synthetic tasks"),
    ("comm", "Collectives with a byte counter"),
    ("tokenizers", "From symbols to ids and back"),
    ("layers", "What several mixers share"),
    ("mixers", "State in, state out: (B, T, D) to (B, T, D)"),
    ("models", "Backbones with heads, and classical models"),
    ("objectives", "What is learned"),
    ("decoding", "What is written, seen through one Stepper"),
    ("parallel", "Many devices along the sequence"),
    ("compression", "Quantize, prune, code"),
    ("solvers", "Sequence algorithms without a network"),
    ("evaluation", "Metrics, intervals, tables"),
    ("training", "The one loop, its runs and checkpoints"),
    ("interop", "Other libraries' weights, in and out"),
    ("domains", "Heads, features and metrics of a field"),
    ("recipes", "Whole runs that a paper describes"),
    ("claims", "What a paper says, side by side with its baseline"),
    ("app", "The front door in Python"),
    ("cli", "The front door on the command line"),
    ("testing", "Contract checks for parts of your own"),
)
MARK = re.compile(r"^<!-- (parts|claims|floors)(?: ([\w/]+))? -->$", re.M)
TRAITS = ("causal", "step", "rollback", "sequence_comm")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add an index to every floor that lacks one, add the benchmark results, and make the navigation."""
    for floor, meaning in FLOORS:
        index = f"{floor}/index.md"
        if not files.get_file_from_path(index) and (_pages(files, floor) or _shelves(floor)):
            tables = "".join(
                ("" if shelf == floor else f"\n## {shelf}\n") + f"\n<!-- parts {shelf} -->\n"
                for shelf in _shelves(floor)
            )
            tables = "\n<!-- claims -->\n" if floor == "claims" else tables
            pages = (
                ""
                if _shelves(floor)
                else "".join(
                    f"- [{_title(files, page)}]({posixpath.relpath(page, floor)})\n" for page in _pages(files, floor)
                )
            )
            content = f"# {floor.capitalize()}\n\n{meaning}.\n\n{pages}{tables}"
            files.append(File.generated(config, index, content=content))
    for result in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        files.append(File.generated(config, f"benchmarks/{result.name}", abs_src_path=str(result)))
    config.nav = _navigation(files)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put the tables where a page asks for them."""
    here = posixpath.dirname(page.file.src_uri)

    def table(found: re.Match[str]) -> str:
        kind, shelf = found.groups()
        rows = {"parts": lambda: _parts(shelf), "claims": _claims, "floors": lambda: _floors(files)}[kind]()
        return _table(rows, here) if len(rows) > 1 else "None yet."

    return MARK.sub(table, markdown)


def _navigation(files: Files) -> list[dict]:
    """Home, the guide, then floor after floor: titles from the first line of each page."""
    guide = [page for page in _pages(files, "guide") if not page.endswith("index.md")]
    own = [file.src_uri for file in files.documentation_pages() if "/" not in file.src_uri]
    nav: list[dict] = [{"Home": "index.md"}]
    nav += [{_title(files, page): page} for page in sorted(own) if page != "index.md"]
    if guide or files.get_file_from_path("guide/index.md"):
        nav.append({"Guide": _entries(files, "guide")})
    parts = [{floor.capitalize(): entries} for floor, _ in FLOORS if (entries := _entries(files, floor))]
    known = {"guide", *(floor for floor, _ in FLOORS)}
    others = sorted({file.src_uri.split("/")[0] for file in files.documentation_pages() if "/" in file.src_uri} - known)
    nav.append({"Parts": parts})
    nav += [{folder.capitalize(): _entries(files, folder)} for folder in others]
    return nav


def _entries(files: Files, folder: str) -> list:
    index = f"{folder}/index.md"
    entries: list = [index] if files.get_file_from_path(index) else []
    return entries + [{_title(files, page): page} for page in _pages(files, folder)]


def _pages(files: Files, folder: str) -> list[str]:
    """Hand-written pages below a folder, by their titles."""
    found = [file.src_uri for file in files.documentation_pages() if file.src_uri.startswith(folder + "/")]
    return sorted(
        (page for page in found if page != f"{folder}/index.md"), key=lambda page: _title(files, page).lower()
    )


def _title(files: Files, page: str) -> str:
    first = files.get_file_from_path(page).content_string.lstrip().split("\n", 1)[0]
    return first.removeprefix("# ").strip().replace("`", "") if first.startswith("# ") else Path(page).stem


def _shelves(floor: str) -> list[str]:
    shelves = [shelf for shelf in discovery.SHELVES if shelf.split("/")[0] == floor]
    return [shelf for shelf in shelves if discovery.names(shelf)]


def _parts(shelf: str) -> list[list[str]]:
    """Name (linked to its page) and summary; a mixer also shows its traits at the default options."""
    mixer = shelf == "mixers"
    rows = [["part", "what it is", *(TRAITS if mixer else ()), *(["known gaps"] if mixer else ())]]
    for name in discovery.names(shelf):
        rows.append([_link(shelf, name), _escape(discovery.summary(shelf, name))])
        if mixer:
            traits = discovery.get(shelf, name).Config().traits()
            gaps = "<br>".join(f"`{check}`: {_escape(why)}" for check, why in traits.known_gaps.items())
            rows[-1] += [*(str(getattr(traits, field)) for field in TRAITS), gaps]
    return rows


def _floors(files: Files) -> list[list[str]]:
    rows = [["floor", "what lies there", "parts"]]
    for floor, meaning in FLOORS:
        names = ", ".join(f"`{name}`" for shelf in _shelves(floor) for name in discovery.names(shelf))
        index = f"{floor}/index.md"
        if (ROOT / "src" / "seqloom" / floor).is_dir():
            rows.append([f"[{floor}]({{{index}}})" if files.get_file_from_path(index) else floor, meaning, names])
    return rows


def _claims() -> list[list[str]]:
    """One row a claim: what is said, by whom, and what the worst seed gave here."""
    rows = [["claim", "statement", "source", "findings at the worst seed", "holds"]]
    for name in discovery.names("claims"):
        words = _class_words(discovery.path("claims", name))
        result = ROOT / "results" / f"{name}.json"
        findings = json.loads(result.read_text("utf-8"))["findings"] if result.is_file() else []
        seen = "<br>".join(
            _escape(f"{one['text']}: {_figure(one['worst_seed'])} ({one['op']} {_figure(one['threshold'])})")
            for one in findings
        )
        holds = ("yes" if all(one["holds"] for one in findings) else "**no**") if findings else "not run yet"
        rows.append([_link("claims", name), _escape(words["statement"]), _escape(words["source"]), seen, holds])
    return rows


def _class_words(path: Path) -> dict[str, str]:
    """`statement` and `source` of a claim, read from the text of its file."""
    words = {"statement": "", "source": ""}
    classes = (node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef))
    for node in (node for kind in classes for node in kind.body if isinstance(node, ast.Assign | ast.AnnAssign)):
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if not isinstance(target, ast.Name) or target.id not in words:
            continue
        if isinstance(node.value, ast.Call):
            given = {word.arg: ast.literal_eval(word.value) for word in node.value.keywords}
            arxiv = f", arXiv:{given['arxiv']}" if given.get("arxiv") else ""
            words["source"] = f"{given.get('authors', '')} {given.get('year', '')}{arxiv}".strip()
        elif node.value is not None:
            words[target.id] = str(ast.literal_eval(node.value))
    return words


def _link(shelf: str, name: str) -> str:
    """A link to a part's page, in the form `[name]({path})` that `_table` makes relative; plain where there is none."""
    folders = [shelf, shelf.split("/")[0]]
    if not discovery.summary(shelf, name):
        return f"`{name}`"
    own = discovery.path(shelf, name).parent.relative_to(discovery.ROOT).as_posix()
    pages = (f"{folder}/{name}.md" for folder in (own, *folders))
    page = next((page for page in pages if (DOCS / page).is_file()), None)
    return f"[`{name}`]({{{page}}})" if page else f"`{name}`"


def _table(rows: list[list[str]], here: str) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    return re.sub(r"\(\{(.+?)\}\)", lambda found: f"({posixpath.relpath(found[1], here or '.')})", "\n".join(lines))


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _escape(text: str) -> str:
    """Text that stays inside its cell."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
