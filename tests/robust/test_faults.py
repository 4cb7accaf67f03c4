"""The disk fails at a change of it: nothing finished is lost, and the same command ends with the same bytes.

``tools/inject_faults.py`` tries every change; here are a few of each scenario, and the proof that the trial sees harm.
"""

import importlib.util
import sys
from pathlib import Path

import pytest

from seqloom.core import files
from seqloom.testing._faults import Disk, Killed

TOOL = Path(__file__).resolve().parents[2] / "tools" / "inject_faults.py"


def _tool():
    spec = importlib.util.spec_from_file_location("inject_faults", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["inject_faults"] = module
    spec.loader.exec_module(module)
    return module


tool = _tool()
SCENARIOS = {scenario.name: scenario for scenario in tool.SCENARIOS}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    place = tmp_path_factory.mktemp("data")
    tool.prepare(place)
    return place


def _try(scenario, data, place, most):
    changes, whole = tool.undisturbed(scenario, data, place / "run")
    places = [(at, fault) for fault in tool.FAULTS for at in tool.sample(len(changes), most)]
    return {
        (changes[at], at, fault): wrong
        for at, fault in places
        if (wrong := tool.inject(scenario, data, place / "run", at, fault, whole))
    }


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_few_faults_lose_nothing(name, data, tmp_path):
    assert not _try(SCENARIOS[name], data, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_many_faults_lose_nothing(name, data, tmp_path):
    assert not _try(SCENARIOS[name], data, tmp_path, 30)


def test_the_trial_sees_a_file_that_is_written_in_place(data, tmp_path, monkeypatch):
    from contextlib import contextmanager

    @contextmanager
    def in_place(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        yield path

    monkeypatch.setattr(files, "replacing", in_place)
    wrong = _try(SCENARIOS["fit ngram"], data, tmp_path, 10)
    assert any("not whole" in what for what in wrong.values())


def test_the_trial_sees_an_error_without_a_word_of_help(data, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "mend_os_error", lambda error, path: error)
    wrong = _try(SCENARIOS["fit ngram"], data, tmp_path, 3)
    assert any("a fault of ours" in what for what in wrong.values())


def test_a_dead_process_changes_nothing_more(tmp_path):
    disk = Disk(tmp_path, at=3)
    with disk.watching():
        file = (tmp_path / "a").open("w")
        file.write("in the buffer")
        try:
            (tmp_path / "b").write_text("whole or half")
        finally:
            for change in (lambda: (tmp_path / "b").unlink(), lambda: (tmp_path / "c").mkdir(), file.flush):
                with pytest.raises(Killed):
                    change()
    assert disk.changes == ["open a", "write a", "open b", "write b"]
    assert (tmp_path / "a").read_text() == ""
    assert (tmp_path / "b").read_text() == "whole "
    assert not (tmp_path / "c").exists()


def test_a_full_disk_takes_nothing_and_gives_everything(tmp_path):
    (tmp_path / "old").write_text("x")
    with Disk(tmp_path, at=0, fault="full").watching():
        for change in (lambda: (tmp_path / "b").write_text("x"), lambda: (tmp_path / "c").mkdir()):
            with pytest.raises(OSError, match="No space left"):
                change()
        (tmp_path / "old").unlink()
    assert not list(tmp_path.iterdir())
