"""The house rules that a machine can check: every part has its test and its page, and files stay small and plain.

A rule takes one parsed source file and returns what offends; each is proven on a planted offender below.
"""

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import seqloom
from seqloom.core import discovery

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "seqloom"
FILES = sorted(SRC.rglob("*.py"))
OWN = [(shelf, name) for shelf in discovery.SHELVES for name in discovery.names(shelf)]
PARTS = [(shelf, name) for shelf, name in OWN if SRC in discovery.path(shelf, name).parents]
PART_NAMES = ["/".join(part) for part in PARTS]
EXPLAINED = ("kernels", "mixers", "objectives")  # shelves whose docstrings name their shapes and their source
ONE_NAME = ("recipes", "models/classical", "mixers")  # they share `--model NAME`
RECIPE = {"paper", "small"}

FILE_LINES = 400
FUNCTION_LINES = 60  # reviewers hold 40; this is the wall
CONFIG_FIELDS = 12
SAMPLE_BYTES = 2_000_000

Offences = Iterator[str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def file_is_short(text: str) -> Offences:
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{lines} lines; split the file, {FILE_LINES} are allowed"


def functions_are_short(text: str) -> Offences:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, Function):
            first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
            lines = node.end_lineno - first.lineno + 1
            if lines > FUNCTION_LINES:
                yield f"line {node.lineno}: {node.name} has {lines} lines, {FUNCTION_LINES} are allowed"


def signatures_are_closed(text: str) -> Offences:
    for function in _public_functions(ast.parse(text)):
        if function.args.kwarg and function.name != "__init_subclass__":
            yield f"line {function.lineno}: {function.name} takes **{function.args.kwarg.arg}; name the arguments"


def configs_are_documented(text: str) -> Offences:
    for config in ast.walk(ast.parse(text)):
        if not (isinstance(config, ast.ClassDef) and config.name == "Config"):
            continue
        fields = [i for i, line in enumerate(config.body) if _is_field(line)]
        if len(fields) > CONFIG_FIELDS:
            yield f"line {config.lineno}: a Config with {len(fields)} fields, {CONFIG_FIELDS} are allowed"
        for i in fields:
            if not _is_string([*config.body, None][i + 1]):
                yield f"line {config.body[i].lineno}: no docstring below the field {config.body[i].target.id}"


def nothing_is_left_out(text: str) -> Offences:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node):
            yield f"line {node.lineno}: NotImplementedError; an abstract method is an @abstractmethod"


def names_are_plain(text: str) -> Offences:
    for node in ast.walk(ast.parse(text)):
        names = [node.arg] if isinstance(node, ast.arg) else []
        names += [node.target.id] if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) else []
        yield from (f"line {node.lineno}: {name}; say {name[4:]}" for name in names if name.startswith("num_"))


def one_public_part(text: str, name: str, also: frozenset[str] = frozenset()) -> Offences:
    """Beside a class no other public class, beside a function no unrelated one, beside a kernel no unrelated kernel.

    Related are names that contain the part's (`chunk_long_conv`, `linear_scan_backward`) and those in `also`.
    """
    public = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef | Function)]
    public = [node for node in public if not node.name.startswith("_") and node.name not in also]
    if any(_is_kernel(node) for node in public):
        rivals = [node for node in public if _is_kernel(node) and name not in node.name]
    elif any(isinstance(node, ast.ClassDef) and _plain(node.name) == _plain(name) for node in public):
        rivals = [node for node in public if isinstance(node, ast.ClassDef) and _plain(node.name) != _plain(name)]
    else:
        rivals = [node for node in public if _plain(name) not in _plain(node.name)]
    for node in rivals:
        yield f"line {node.lineno}: {node.name} is public beside {name}; begin it with _ or give it its own file"


def docstring_has_shapes_and_source(text: str) -> Offences:
    docstring = ast.get_docstring(ast.parse(text)) or ""
    yield from (
        f"no '{word}:' line in the module docstring" for word in ("Shapes", "Source") if f"{word}:" not in docstring
    )


RULES: tuple[Callable[[str], Offences], ...] = (
    file_is_short,
    functions_are_short,
    signatures_are_closed,
    configs_are_documented,
    nothing_is_left_out,
    names_are_plain,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_source_files_keep(rule):
    files = FILES if rule is not signatures_are_closed else [file for file in FILES if _is_public(file)]
    found = [(file.relative_to(SRC).as_posix(), word) for file in files for word in rule(file.read_text("utf-8"))]
    bad = [f"{file}: {word}" for file, word in found]
    assert not bad, "\n" + "\n".join(bad)


@pytest.mark.parametrize(("shelf", "name"), PARTS, ids=PART_NAMES)
def test_part_has_its_place(shelf, name):
    path = discovery.path(shelf, name)
    text = path.read_text("utf-8")
    found = list(one_public_part(text, name, frozenset(RECIPE if shelf == "recipes" else ())))
    if shelf.split("/")[0] in EXPLAINED:
        found += docstring_has_shapes_and_source(text)
    tests = [folder / f"test_{name}.py" for folder in _mirrors(ROOT / "tests", shelf, path)]
    if not any(test.is_file() for test in tests):
        found.append(f"no test file {' or '.join(str(test.relative_to(ROOT)) for test in tests)}")
    pages = [folder / f"{name}.md" for folder in _mirrors(ROOT / "docs", shelf, path)]
    page = next((page for page in pages if page.is_file()), None)
    if page is None:
        found.append(f"no page {' or '.join(str(page.relative_to(ROOT)) for page in pages)}")
    elif not page.read_text("utf-8").startswith("# "):
        found.append(f"{page.relative_to(ROOT)} does not begin with '# Title'")
    assert not found, f"\n{path.relative_to(ROOT)}: " + "\n".join(found)


@pytest.mark.parametrize(("shelf", "name"), PARTS, ids=PART_NAMES)
def test_part_can_be_got(shelf, name):
    if shelf == "recipes":
        assert callable(discovery.module(shelf, name).small)
    else:
        assert _plain(getattr(discovery.get(shelf, name), "__name__", name)) == _plain(name)


def test_models_share_one_set_of_names():
    counts = Counter(name for shelf in ONE_NAME for name in discovery.names(shelf))
    assert not [name for name, count in counts.items() if count > 1]


def test_citation_names_the_version():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {seqloom.__version__}\n" in text


def test_samples_are_small_and_carry_their_papers():
    folder = SRC / "data" / "samples"
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"]
    assert sum(path.stat().st_size for path in files) <= SAMPLE_BYTES
    data = [path for path in files if path.suffix not in (".json", ".LICENSE", ".md")]
    assert data
    assert not [path.name for path in data for paper in (".json", ".LICENSE") if not path.with_suffix(paper).is_file()]


FIELD = '    width: int = 1\n    """The width."""\n'
OFFENDERS = [
    (file_is_short, "x = 1\n" * 401, "x = 1\n" * 400),
    (functions_are_short, "def f():\n" + "    x = 1\n" * 61, 'def f():\n    """Doc."""\n' + "    x = 1\n" * 60),
    (signatures_are_closed, "def f(**options): ...", "def _f(**options): ..."),
    (signatures_are_closed, "class A:\n def __init__(self, **k): ...", "class A:\n def _f(self, **k): ..."),
    (signatures_are_closed, "class A:\n class B:\n  def f(self, **k): ...", "class _A:\n def f(self, **k): ..."),
    (
        configs_are_documented,
        "class A:\n  class Config:\n    a: int\n    b: int",
        "class Config:\n" + FIELD * 12,
    ),
    (
        configs_are_documented,
        "class Config:\n" + FIELD * 13,
        "class Config:\n    a: ClassVar[int] = 1\n" + FIELD,
    ),
    (nothing_is_left_out, "def f():\n    raise NotImplementedError", "def f():\n    raise ValueError"),
    (nothing_is_left_out, "def f():\n    raise NotImplementedError('later')", "def f(): ..."),
    (names_are_plain, "def f(num_heads): ...", "def f(heads): ..."),
    (names_are_plain, "class Config:\n    num_heads: int = 1", "class Config:\n    heads: int = 1"),
    (docstring_has_shapes_and_source, '"""Scan.\n\nShapes: B.\n"""', '"""Scan.\n\nShapes: B.\nSource: X, 1990.\n"""'),
]


@pytest.mark.parametrize(("rule", "offender", "innocent"), OFFENDERS)
def test_a_rule_catches_its_offender(rule, offender, innocent):
    assert list(rule(offender))
    assert not list(rule(innocent))


@pytest.mark.parametrize(
    ("name", "text", "offends"),
    [
        ("rglru", "class RGLRU: ...\nclass _Gate: ...\ndef gate(): ...", False),
        ("rglru", "class RGLRU: ...\nclass Gate: ...", True),
        ("linear_scan", "@kernel\ndef linear_scan(): ...\n@linear_scan.vjp\ndef backward(): ...", False),
        ("linear_scan", "@kernel\ndef linear_scan(): ...\n@kernel\ndef linear_scan_backward(): ...", False),
        ("linear_scan", "@kernel\ndef linear_scan(): ...\n@kernel\ndef short_conv(): ...", True),
        ("linear_scan", "@kernel\ndef linear_scan(): ...\n@kernel(name='x')\ndef short_conv(): ...", True),
        ("bits", "def bits(): ...\ndef _mean(): ...\ndef joint_bits(): ...", False),
        ("bits", "def bits(): ...\ndef accuracy(): ...", True),
    ],
)
def test_two_public_parts_in_a_file_are_seen(name, text, offends):
    assert bool(list(one_public_part(text, name))) == offends


def _mirrors(root: Path, shelf: str, path: Path) -> list[Path]:
    """Where a part's test or page may lie: in the mirror of its folder, or directly below its shelf or floor."""
    folder = path.parent.relative_to(SRC)
    return list(dict.fromkeys([root / folder, root / shelf, root / shelf.split("/")[0]]))


def _public_functions(tree: ast.Module) -> Iterator[Function]:
    """Functions of the module and methods of its classes, nested classes too, that a caller may name."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        for node in waiting.pop().body:
            dunder = getattr(node, "name", "").startswith("__")
            if getattr(node, "name", "").startswith("_") and not dunder:
                continue
            if isinstance(node, ast.ClassDef):
                waiting.append(node)
            elif isinstance(node, Function):
                yield node


def _is_public(path: Path) -> bool:
    """Interfaces (`_base.py`) and packages count as public; other files that begin with _ are helpers."""
    return not path.stem.startswith("_") or path.stem in ("_base", "__init__")


def _is_kernel(node: ast.ClassDef | Function) -> bool:
    return any(re.fullmatch(r"kernel(\(.*\))?", ast.unparse(mark), re.S) for mark in node.decorator_list)


def _is_field(line: ast.stmt) -> bool:
    return isinstance(line, ast.AnnAssign) and "ClassVar" not in ast.unparse(line.annotation)


def _is_string(line: ast.stmt | None) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
