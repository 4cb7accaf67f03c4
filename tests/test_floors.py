"""Imports only go down: the contract of pyproject.toml holds, and it is one that can fail."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "seqloom"
FILES = sorted(SRC.rglob("*.py"))


def lint(folder: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts of this repository over the package below `source`."""
    call = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(source), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-c", call], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_floors_hold():
    run = lint(ROOT, ROOT / "src")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("files", "holds"),
    [
        ({"mixers/gru.py": "from seqloom.core import state"}, True),
        ({"training/checkpoint.py": "from seqloom.interop import weights"}, True),
        ({"core/early.py": "from seqloom.mixers import gru"}, False),
        ({"kernels/scan.py": "from seqloom.data import sequences"}, False),
        ({"domains/audio/head.py": "from seqloom.domains.vision import patch"}, False),
        ({"app/report.py": "from seqloom.cli import fit"}, False),
        ({"helpers/odds.py": ""}, False),
    ],
)
def test_a_breach_is_seen(tmp_path, files, holds):
    house = ["core/state", "kernels/one", "data/sequences", "mixers/gru", "training/run", "interop/weights"]
    house += ["domains/audio/head", "domains/vision/patch", "app/fit", "cli/fit"]
    for name, text in ({f"{stem}.py": "" for stem in house} | files).items():
        path = tmp_path / "seqloom" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for folder in [path for path in (tmp_path / "seqloom").rglob("*") if path.is_dir()] + [tmp_path / "seqloom"]:
        (folder / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    run = lint(tmp_path, tmp_path)
    assert (run.returncode == 0) == holds, run.stdout + run.stderr


def test_nothing_below_comes_in_by_the_front_door():
    """`from seqloom import fit` below the app would go round the contract: the package itself has no floor."""
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            wanted = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                front = node.module == "seqloom" and any(not (SRC / name).is_dir() for name in wanted)
            else:
                front = "seqloom" in wanted
            if front and path.parent != SRC and path.relative_to(SRC).parts[0] not in ("cli", "testing"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_names_are_found_without_torch():
    code = (
        "import sys; from seqloom.core import discovery\n"
        "[discovery.names(shelf) for shelf in discovery.SHELVES]\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
