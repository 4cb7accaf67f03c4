import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import seqloom.mixers
from seqloom.core import discovery
from seqloom.core.errors import ConfigError


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of its own in which parts can be put on shelves."""
    root = tmp_path / "seqloom"
    root.mkdir()
    monkeypatch.setattr(discovery, "ROOT", root)
    monkeypatch.setattr(discovery, "entry_points", lambda group: [])
    forget()
    yield root
    forget()


def forget() -> None:
    discovery._files.cache_clear()
    discovery._foreign.cache_clear()


def put(root: Path, *files: str) -> None:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text('"""First line.\n\nMore."""\n')


def test_a_files_stem_is_its_name_and_private_files_are_none(house: Path) -> None:
    put(house, "mixers/__init__.py", "mixers/_base.py", "mixers/recurrent/lstm.py", "mixers/_old/gone.py")
    assert discovery.names("mixers") == ("lstm",)
    assert discovery.path("mixers", "lstm") == house / "mixers/recurrent/lstm.py"


def test_a_shelf_does_not_show_the_shelf_inside_it(house: Path) -> None:
    put(house, "models/encoder.py", "models/classical/ngram.py")
    assert discovery.names("models") == ("encoder",)
    assert discovery.names("models/classical") == ("ngram",)


def test_kernels_are_folders(house: Path) -> None:
    put(house, "kernels/linear_scan/__init__.py", "kernels/linear_scan/numba_cpu.py", "kernels/_kernel.py")
    assert discovery.names("kernels") == ("linear_scan",)
    assert discovery.path("kernels", "linear_scan").name == "__init__.py"


def test_two_files_of_one_name_are_an_error(house: Path) -> None:
    put(house, "mixers/ssm/mamba.py", "mixers/recurrent/mamba.py")
    with pytest.raises(ConfigError, match=r"two files are named mamba.*ssm.*"):
        discovery.names("mixers")


def test_summary_is_the_first_line_and_runs_nothing(house: Path) -> None:
    put(house, "mixers/lstm.py")
    (house / "mixers/lstm.py").write_text('"""LSTM: a gated cell.\n\nMore."""\nraise SystemExit\n')
    assert discovery.summary("mixers", "lstm") == "LSTM: a gated cell."
    assert discovery.summary("mixers", "absent") == ""


def test_an_unknown_name_comes_with_a_near_one(house: Path) -> None:
    put(house, "mixers/mamba.py", "mixers/lstm.py")
    with pytest.raises(ConfigError, match="no part called 'mamab'; did you mean mamba"):
        discovery.module("mixers", "mamab")
    with pytest.raises(ConfigError, match="there are lstm, mamba"):
        discovery.path("mixers", "xyzzy")
    with pytest.raises(ConfigError, match="no shelf is called 'mixer'"):
        discovery.names("mixer")


def test_nothing_outside_the_shelf_can_be_imported() -> None:
    for name in ("os", "..core.errors", "_base", "recurrent.lstm", "lstm.py"):
        with pytest.raises(ConfigError):
            discovery.module("mixers", name)


def test_a_part_is_got_by_its_stem_without_case_and_underscores() -> None:
    assert seqloom.mixers.get("lstm").__name__ == "LSTM"
    assert "lstm" in seqloom.mixers.names()


def test_a_file_without_its_part_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(discovery._files("mixers"), "errors", discovery.ROOT / "core" / "outputs.py")
    with pytest.raises(ConfigError, match="holds no public object"):
        discovery.get("mixers", "errors")


def test_other_packages_join_by_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    entry = EntryPoint("counter", "collections", "seqloom.mixers")
    forget()
    monkeypatch.setattr(discovery, "entry_points", lambda group: [entry] if group == "seqloom.mixers" else [])
    try:
        assert "counter" in discovery.names("mixers")
        assert discovery.get("mixers", "counter").__name__ == "Counter"
        assert discovery.summary("mixers", "counter") == ""
    finally:
        forget()


def test_names_are_known_without_importing_torch() -> None:
    code = "import sys, seqloom.mixers as m; m.names(); sys.exit('torch' in sys.modules or 'numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
