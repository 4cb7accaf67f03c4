"""Every write of the library goes through ``core.files``; what does not is named here, with its reason."""

import ast
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parents[2] / "src" / "seqloom"
WRITERS = (
    "write_text",
    "write_bytes",
    "write_csv",
    "write_parquet",
    "write_ndjson",
    "mkdir",
    "mkstemp",
    "NamedTemporaryFile",
    "save",
    "savez",
    "savez_compressed",
    "save_file",
    "tofile",
)
ALLOWED = {
    "core/files.py": "the layer itself",
    "core/lock.py": "makes the folder that it holds",
    "training/metrics.py": "appends line by line; lines cut short are dropped, TensorBoard's file may fail",
    "training/checkpoint.py": "writes into the part that the layer gave it",
    "app/_kernel_picture.py": "the same, by pillow",
    "cli/_terminal.py": "the same, by polars",
    "data/sequences.py": "the same, by Arrow",
    **{f"data/readers/{name}.py": "the same" for name in ("fasta", "midi", "npy", "recbole", "table", "text", "xes")},
}
FOLDERS = ("testing",)  # checks of parts write into folders of their own


def writes(text: str) -> list[str]:
    """Calls in a source file that change the disk by themselves."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        opens = name in ("open", "OSFile", "fdopen") and any(
            set(word) <= set("rwxabt+") and set(word) & set("wxa+") for word in words
        )
        method = isinstance(node.func, ast.Attribute) and name in WRITERS and not _is_files(node.func.value)
        shown = isinstance(node.func, ast.Attribute) and name == "write_csv" and not node.args  # into a string
        if opens or (method and not shown):
            found.append(f"line {node.lineno}: {ast.unparse(node.func)}")
    return found


def _is_files(node: ast.expr) -> bool:
    """True for the layer, a model, which saves itself by it, and blocks that wait in a folder of their own."""
    return ast.unparse(node) in ("checkpoint", "files", "fitted", "held")


@pytest.mark.parametrize("path", sorted(SRC.rglob("*.py")), ids=lambda path: path.relative_to(SRC).as_posix())
def test_writes_go_through_the_layer(path):
    place = path.relative_to(SRC).as_posix()
    if place not in ALLOWED and not place.startswith(FOLDERS):
        assert not writes(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "text",
    [
        "open(p, 'w')",
        "p.open('ab')",
        "p.write_text(x)",
        "pa.OSFile(p, 'wb')",
        "frame.write_csv(p)",
        "p.mkdir()",
        "song.save(str(p))",
        "np.savez(p, a)",
        "torch.save(x, p)",
        "safetensors.torch.save_file(x, p)",
        "a.tofile(p)",
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert writes(text)
    assert not writes("p.open('rb'); open(p); checkpoint.write_text(p, t); frame.write_csv(); files.write_json(p, x)")


def test_exceptions_are_needed():
    assert not [place for place in ALLOWED if (SRC / place).exists() and not writes((SRC / place).read_text("utf-8"))]
