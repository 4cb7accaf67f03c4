"""What holds for every verb: help, examples, exit codes, no torch before it is needed."""

import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

import seqloom
from seqloom.cli import main
from seqloom.cli._main import parse, usage, verbs
from seqloom.core import discovery
from seqloom.core.errors import ABSENT, OK, MissingExtra

EXAMPLE = re.compile(r"^\s+(seqloom .+)$", re.M)


def _examples(verb: str) -> list[str]:
    return EXAMPLE.findall(discovery.get("cli", verb).__doc__)


def test_help_names_every_verb_and_imports_no_torch():
    script = "import sys; from seqloom.cli import main; main(['--help']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert all(f"  {verb} " in done.stdout for verb in discovery.names("cli"))


def test_help_takes_less_than_half_a_second():
    took = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "seqloom", "--help"], capture_output=True, check=True)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.5


@pytest.mark.parametrize("verb", verbs())
def test_verb_shows_its_help_and_an_example(verb, capsys):
    assert main([verb, "--help"]) == 0
    assert _examples(verb)
    assert f"seqloom {verb}" in capsys.readouterr().out


# the example of claim trains a whole claim: minutes, and 3 where its data are not installed
EXAMPLES = [pytest.param(verb, marks=pytest.mark.claim) if verb == "claim" else verb for verb in verbs()]


@pytest.mark.parametrize("verb", EXAMPLES)
def test_example_runs(verb, fitted_flights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if verb != "fit":
        shutil.copytree(fitted_flights, "m")
    for example in _examples(verb):
        allowed = (OK, ABSENT) if verb == "claim" else (OK,)
        assert main(shlex.split(example)[1:]) in allowed, capsys.readouterr().err


@pytest.fixture(scope="module")
def fitted_flights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flights") / "m"
    assert main(["fit", "sample:flights", "--model", "gru", "--budget", "10steps", "--out", str(folder)]) == 0
    return folder


def test_version(called):
    assert called("--version")[:2] == (0, f"seqloom {seqloom.__version__}\n")


def test_nothing_shows_the_usage(called):
    assert called() == (0, usage(), "")


def test_unknown_verb_is_a_user_error_with_a_hint(called):
    code, out, err = called("inspectt", "x")
    assert (code, out) == (2, "")
    assert "did you mean inspect?" in err


def test_an_error_is_one_line_without_a_traceback(called, tmp_path):
    code, out, err = called("inspect", tmp_path / "absent.csv")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("seqloom inspect: ")
    assert "absent.csv" in err
    assert "no such file" in err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(seqloom.core.errors.SeqloomError):
        main(["inspect", str(tmp_path / "absent.csv"), "--debug"])


def test_an_absent_extra_has_its_own_code(called, monkeypatch):
    def absent(self):
        raise MissingExtra("pm4py", "process")

    monkeypatch.setattr(discovery.get("cli", "list"), "run", absent)
    code, _, err = called("list")
    assert code == ABSENT
    assert "seqloom[process]" in err


def test_ctrl_c_tells_how_to_go_on(called, monkeypatch):
    def stopped(self):
        raise KeyboardInterrupt("stopped at step 3 of 9")

    monkeypatch.setattr(discovery.get("cli", "fit"), "run", stopped)
    code, _, err = called("fit", "my log.csv", "--model", "gru")
    assert code == 130
    assert "stopped at step 3 of 9; go on with: seqloom fit 'my log.csv' --model gru --resume" in err


def test_unreadable_flags_are_a_user_error(called):
    assert called("fit", "x.csv", "--budgett", "3s")[0] == 2


def test_from_is_the_flag_of_start():
    assert parse("fit", ["x.csv", "--from", "old"]).start == "old"


def test_a_fault_of_ours_is_one_line_and_debug_shows_where(monkeypatch, called):
    def fail(self):
        raise RuntimeError("the\nsky fell")

    monkeypatch.setattr("seqloom.cli.list.List.run", fail)
    code, _, err = called("list")
    assert code == 2
    assert err == "seqloom list: unexpected RuntimeError: the sky fell; --debug shows where\n"
    with pytest.raises(RuntimeError):
        called("list", "--debug")
