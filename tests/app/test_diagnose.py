"""A diagnosis: what is learnt, judged and kept. Trainings of a few steps, and one that solves a task."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import seqloom
from seqloom.app import _diagnosing, _diagnosis_files, _diagnostics, diagnose
from seqloom.app._options import configured
from seqloom.core import discovery
from seqloom.core.errors import ConfigError, Diverged
from seqloom.core.protocols import Silent
from seqloom.data.synthetic.delayed_copy import DelayedCopy
from seqloom.data.synthetic.induction import Induction
from seqloom.data.synthetic.listops import ListOps
from seqloom.data.synthetic.parity import Parity
from seqloom.mixers.recurrent.gru import GRU
from seqloom.training.budget import Budget
from seqloom.training.loop import Loop

SMALL = {"train": 64, "valid": 12, "test": 20}
PARITY = _diagnostics.Diagnostic(
    Parity.Config(length=12, test_length=0, **SMALL), {"16": Parity.Config(length=12, test_length=16, **SMALL)}, 8
)
INDUCTION = _diagnostics.Diagnostic(Induction.Config(vocab=6, length=8, **SMALL), rows=8)
LISTS = _diagnostics.Diagnostic(ListOps.Config(depth=3, arguments=3, shortest=3, longest=12, **SMALL), rows=8)


@pytest.fixture
def small(monkeypatch):
    """Small tasks in the place of the large ones."""
    monkeypatch.setattr(diagnose, "DIAGNOSTICS", {"parity": PARITY, "induction": INDUCTION, "listops": LISTS})
    monkeypatch.setattr(diagnose, "DEFAULT", ("parity", "induction"))


@pytest.fixture
def trainings(monkeypatch):
    """How many trainings were made, with which rate and budget."""
    made = []
    original = Loop.run

    def run(loop, **options):
        made.append((loop.recipe.optimiser.lr, loop.recipe.budget.steps, loop.recipe.seed))
        return original(loop, **options)

    monkeypatch.setattr(Loop, "run", run)
    return made


def test_every_task_of_a_diagnosis_is_on_the_shelf_and_every_shelf_task_is_asked():
    known = {discovery.get("data/synthetic", name) for name in discovery.names("data/synthetic")}
    asked = {diagnostic.task.owner for diagnostic in _diagnostics.DIAGNOSTICS.values()}
    assert asked == known
    assert set(_diagnostics.DEFAULT) <= set(_diagnostics.DIAGNOSTICS)


@pytest.mark.parametrize("name", [name for name in _diagnostics.DIAGNOSTICS if name != "pathfinder"])
def test_longer_lengths_are_longer_and_the_oracle_solves_them(name):
    if name.endswith("digits"):
        pytest.importorskip("sklearn")
    one = _diagnostics.DIAGNOSTICS[name]
    trained, before = one.task.build().examples("train", 7, stop=20), 0
    for config in [one.task, *one.longer.values()]:
        task = config.build()
        examples = task.examples("test", 7, stop=5)
        assert all(np.array_equal(task.oracle(example), task.answers(example)) for example in examples)
        if config is not one.task:
            assert examples.lengths.min() > max(before, trained.lengths.max() - 1)
        before = examples.lengths.min()


@pytest.mark.usefixtures("small")
def test_a_card_holds_what_was_measured_and_nothing_else():
    found = seqloom.diagnose("gru", budget="3steps")
    parity, induction = found.cells
    assert (found.mixers, found.tasks) == (("gru",), ("parity", "induction"))
    assert (parity.floor, parity.oracle, parity.longer_floor) == (0.5, 1.0, {"16": 0.5})
    assert induction.floor == pytest.approx(1 / 5)
    task = PARITY.task.build()
    answers = sum(len(example.tokens) for example in task.examples("test", 7))
    assert parity.accuracy * answers == pytest.approx(round(parity.accuracy * answers), abs=1e-4)
    gru, model = GRU(64), _run(PARITY).model.build(task.sizes)
    assert parity.state_bytes == 2 * gru.state_bytes(12)
    assert parity.flops_per_position == pytest.approx(2 * gru.flops(12) / 12)
    assert parity.parameters == sum(p.numel() for p in model.parameters())
    assert parity.scaled == pytest.approx(2 * parity.accuracy - 1)
    assert parity.agrees


@pytest.mark.usefixtures("small")
def test_the_rate_with_the_lowest_loss_is_trained_with_the_whole_budget(trainings):
    cell = seqloom.diagnose("gru", ["parity"], budget="6steps", seeds=2, rates="halving").cells[0]
    assert [one["rate"] for one in cell.tried] == list(_diagnosing.RATES)
    assert cell.rate == min(cell.tried, key=lambda one: one["loss"])["rate"]
    rehearsals, last = trainings[:3], trainings[3:]
    assert rehearsals == [(rate, 2, 7) for rate in _diagnosing.RATES]
    assert last == [(cell.rate, 6, 7), (cell.rate, 6, 8)]
    assert len(cell.by_seed) == 2
    assert cell.accuracy == pytest.approx(np.mean(cell.by_seed))


@pytest.mark.usefixtures("small")
def test_full_trains_no_rate_twice_and_a_number_is_that_rate(trainings):
    cell = seqloom.diagnose("gru", ["parity"], budget="3steps", rates="full").cells[0]
    assert trainings == [(rate, 3, 7) for rate in _diagnosing.RATES]
    assert cell.steps == 3
    trainings.clear()
    cell = seqloom.diagnose("gru", ["parity"], budget="3steps", rates="2e-3").cells[0]
    assert trainings == [(2e-3, 3, 7)]
    assert (cell.rate, cell.tried) == (2e-3, [])


@pytest.mark.usefixtures("small")
def test_seconds_become_the_same_steps_for_every_rate(trainings):
    cell = seqloom.diagnose("gru", ["parity"], budget="0.3s", rates="halving").cells[0]
    steps = [made for _, made, _ in trainings]
    assert steps[0] is None
    assert steps[1] == steps[2] > 0
    assert cell.steps == steps[3] == 3 * steps[1]


@pytest.mark.usefixtures("small")
def test_a_rate_that_diverges_is_not_taken(monkeypatch):
    original = Loop.run

    def run(loop, **options):
        if loop.recipe.optimiser.lr == _diagnosing.RATES[-1]:
            raise Diverged("no")
        return original(loop, **options)

    monkeypatch.setattr(Loop, "run", run)
    cell = seqloom.diagnose("gru", ["parity"], budget="3steps").cells[0]
    assert cell.tried[-1] == {"rate": _diagnosing.RATES[-1], "loss": None}
    assert cell.rate in _diagnosing.RATES[:-1]


@pytest.mark.usefixtures("small")
def test_what_is_finished_is_read_and_what_is_damaged_is_done_anew(tmp_path, trainings):
    first = seqloom.diagnose(["gru", "s4d"], budget="3steps", out=tmp_path)
    count = len(trainings)
    assert count == 2 * 2 * 3
    again = seqloom.diagnose(["gru", "s4d"], budget="3steps", out=tmp_path)
    assert len(trainings) == count
    assert again == first
    file = next((tmp_path / "cells").glob("gru-parity-*.json"))
    for text in ("{", '{"mixer": "gru", "odd": 1}', "[]"):
        file.write_text(text)
        mended = seqloom.diagnose(["gru", "s4d"], budget="3steps", out=tmp_path)
        count += 3
        assert len(trainings) == count
        assert mended.cells[0].accuracy == first.cells[0].accuracy
    seqloom.diagnose("gru", ["parity"], budget="3steps", rates="halving", out=tmp_path)
    assert len(trainings) == count + 4


@pytest.mark.usefixtures("small")
def test_a_mixer_that_breaks_takes_no_other_with_it(tmp_path, monkeypatch):
    def broken(*_):
        raise AttributeError("it broke")

    monkeypatch.setattr(GRU, "mix", broken)
    found = seqloom.diagnose(["gru", "s4d"], ["parity"], budget="3steps", out=tmp_path)
    assert [cell.word for cell in found.cells] == ["failed", "not solved"]
    assert "it broke" in found.cells[0].error
    assert len(list((tmp_path / "cells").glob("*.json"))) == 1
    assert "it broke" in next((tmp_path / "cells").glob("gru*.error.txt")).read_text()
    for ending in (".md", ".html", ".csv", ".json"):
        text = _diagnosis_files.write_table(found, tmp_path / f"t{ending}").read_text()
        assert "it broke" in text
        assert "s4d" in text
    assert found.frame().filter(mixer="gru")["accuracy"].to_list() == [None]


@pytest.mark.usefixtures("small")
def test_a_mixer_that_sees_the_future_is_told_where_the_answer_follows_and_judged_where_it_does_not():
    found = seqloom.diagnose("attention", ["parity", "listops"], options=["causal=false"], budget="3steps")
    assert "future" in found.cells[0].error
    assert not found.cells[1].error
    assert found.cells[1].agrees is None
    assert found.cells[1].state_bytes is None
    assert found.mixers == ("attention(causal=false)",)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("task", ["parity", "listops"])
def test_a_step_form_that_differs_is_seen(monkeypatch, task):
    original = GRU.mix

    def mix(mixer, x_BTD, state, layout, context):
        y_BTD, state = original(mixer, x_BTD, state, layout, context)
        return (y_BTD + 0.1 if x_BTD.shape[1] == 1 else y_BTD), state

    assert seqloom.diagnose("gru", [task], budget="3steps").cells[0].agrees
    monkeypatch.setattr(GRU, "mix", mix)
    assert seqloom.diagnose("gru", [task], budget="3steps").cells[0].agrees is False


@pytest.mark.usefixtures("small")
def test_what_cannot_be_is_told_before_anything_is_trained(trainings):
    for call, word in [
        (lambda: seqloom.diagnose("grue"), "did you mean gru"),
        (lambda: seqloom.diagnose("ngram"), "no layer"),
        (lambda: seqloom.diagnose("gru", ["paritty"]), "did you mean parity"),
        (lambda: seqloom.diagnose("gru", options=["widthh=3"]), "hidden"),
        (lambda: seqloom.diagnose("gru", options=["hidden"]), "field=value"),
        (lambda: seqloom.diagnose("gru", options=["hidden=many"]), "hidden"),
        (lambda: seqloom.diagnose(["gru", "s4d"], options=["state=3"]), "one mixer"),
        (lambda: seqloom.diagnose("gru", rates="fast"), "halving"),
        (lambda: seqloom.diagnose("gru", rates="-1"), "halving"),
        (lambda: seqloom.diagnose("gru", budget="soon"), "budget"),
        (lambda: seqloom.diagnose("gru", seeds=0), "seed"),
        (lambda: seqloom.diagnose([]), "mixer"),
    ]:
        with pytest.raises(ConfigError, match=word):
            call()
    assert not trainings


@pytest.mark.usefixtures("small")
def test_tables_and_page_hold_every_figure_and_no_markup_of_a_name(tmp_path):
    found = seqloom.diagnose(["gru", "gru,s4d"], ["parity"], budget="3steps")
    cell = replace(found.cells[1], mixer="<b>|x</b>")
    found = replace(found, cells=[found.cells[0], cell])
    text = _diagnosis_files.write_page(found, tmp_path / "r.html").read_text()
    assert "<b>|x" not in text
    assert "&lt;b&gt;|x" in text
    assert "plot-0" in text
    assert f"{cell.state_bytes:,}" in text
    assert all(f"{one['loss']:.3f}" in text for one in cell.tried)
    words = _diagnosis_files.markdown(found)
    assert "&lt;b&gt;\\|x" in words
    columns = {line.replace("\\|", "").count("|") for line in words.splitlines() if line.startswith("| ")}
    assert columns == {5, 15}  # the table over the mixers, and the cards
    rows = found.frame()
    assert rows["length"].to_list() == ["", "16", "", "16"]
    assert rows["scaled"].to_list()[1] == pytest.approx(2 * found.cells[0].longer["16"] - 1)


def test_examples_are_no_more_than_the_steps_read():
    cut = _diagnosing.capped(PARITY, Budget(steps=3))
    assert cut.task.train == 24
    assert _diagnosing.capped(PARITY, Budget(steps=100)) is PARITY
    assert _diagnosing.capped(PARITY, Budget(seconds=3)) is PARITY


def test_a_mixer_that_can_solves_a_task_and_one_that_cannot_does_not():
    """What is asked lies four positions back: two layers of attention within 2 positions reach back two."""
    sizes = {"train": 2_000, "valid": 40, "test": 100}
    easy = _diagnostics.Diagnostic(DelayedCopy.Config(vocab=16, keep=2, delay=2, **sizes), {}, 32)
    asked = _diagnosing.Examiner(easy, "1e-2", 1, _diagnosing.Drawn(), torch.device("cpu"))
    lstm = asked.measure(_run(easy, "lstm", 150), Silent())
    near = asked.measure(_run(easy, "attention", 150, ("window=2",)), Silent())
    assert lstm["accuracy"] > 0.95
    assert near["accuracy"] < 0.6


def _run(diagnostic, name="gru", steps=3, options=()):
    return _diagnostics.run_of(diagnostic, (configured(name, options),), Budget(steps=steps), 7)


def test_equal_parameters_are_made_by_the_mlps(small):
    found = seqloom.diagnose(["gru", "s4d"], ["parity"], budget="1steps", rates="1e-3", parameters=60_000)
    sizes = [cell.parameters for cell in found.cells]
    assert abs(sizes[0] - sizes[1]) < 2 * 3 * _diagnostics.WIDTH
    assert "60,000 parameters" in _diagnosis_files.about(found)
    assert found.figures()["parameters"] == 60_000
    few = seqloom.diagnose("gru", ["parity"], budget="1steps", rates="1e-3", parameters=100)
    assert "too few for a comparison" in few.cells[0].error
    with pytest.raises(ConfigError, match="not 1 and -1"):
        seqloom.diagnose("gru", ["parity"], budget="1steps", parameters=-1)
