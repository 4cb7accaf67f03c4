"""What people bring and a comparison must survive: ties and gaps in time, short and constant series, unseen classes,
traces that loop a hundred thousand times.
"""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from seqloom.app.compare import compare
from seqloom.app.fit import fit, fit_run
from seqloom.app.plan import load_data
from seqloom.core import discovery
from seqloom.core.errors import DataError
from seqloom.data.columns import Columns
from seqloom.data.reading import read
from seqloom.training.source import FileSource

LONG = 100_000
CLASSICAL = {name: discovery.get("models/classical", name).tasks for name in discovery.names("models/classical")}
OF_VALUES = [name for name, tasks in CLASSICAL.items() if "values" in tasks]
OF_SYMBOLS = [name for name, tasks in CLASSICAL.items() if "next" in tasks]


def days(count, every=1):
    return [datetime(2024, 1, 1) + timedelta(days=every * k) for k in range(count)]


def test_events_at_the_same_time_stay_in_the_order_of_the_file(tmp_path):
    cases = {f"c{k}": [f"e{(k + at) % 5}" for at in range(6)] for k in range(40)}
    rows = [(case, event, "2024-01-01 10:00") for case, events in cases.items() for event in events]
    by_turns = sorted(range(len(rows)), key=lambda at: at % 6)  # cases interleaved, each in its own order
    path = tmp_path / "log.csv"
    pl.DataFrame([rows[at] for at in by_turns], schema=["case", "activity", "timestamp"], orient="row").write_csv(path)
    found = read(path)
    codes, words = found.symbols()
    told = {one: [words[code] for code in own] for one, own in zip(found.ids, codes, strict=True)}
    assert told == cases
    assert compare(path, ["unigram", "markov"]).best.name == "markov"


def test_times_of_a_series_that_repeat_and_leave_gaps_are_answered_and_told(tmp_path):
    rng = np.random.default_rng(0)
    steps = np.cumsum(rng.choice([0, 1, 1, 5], 200)).tolist()
    begin = datetime(2024, 1, 1)
    values = np.sin(np.arange(200) * 2 * np.pi / 7) + rng.normal(0, 0.1, 200)
    frame = pl.DataFrame({"date": [begin + timedelta(days=k) for k in steps], "load": values})
    frame.write_csv(tmp_path / "load.csv")
    source = FileSource(path=str(tmp_path / "load.csv"), columns=Columns(time="date", value="load"))
    in_order = source.read().values().flat.ravel()
    np.testing.assert_allclose(in_order, values)  # equal days in the order of the file
    found = compare(source, ["linear", "seasonal_naive"], horizon=3)
    assert any("not evenly spaced" in note for note in found.notes)
    assert all(np.isfinite(entry.row.mean) for entry in found.entries)


@pytest.mark.parametrize("name", [*OF_VALUES, "gru"])
@pytest.mark.parametrize("rows", [[np.sin(np.arange(9.0) + k) for k in range(12)], [np.sin(np.arange(60.0))]])
def test_a_horizon_beyond_the_end_of_every_series(name, rows):
    model = fit(rows, name, horizon=100, budget="2steps")
    assert np.isfinite(model.metrics["test"]["mase"])
    ahead = model.predict(rows[:1])
    assert len(ahead) == 100
    assert ahead["low"].is_finite().all()


@pytest.mark.parametrize("name", [*OF_VALUES, "gru"])
@pytest.mark.parametrize("horizon", [0, 4])
def test_a_series_that_never_changes(name, horizon):
    model = fit([np.full(50, 3.0)] * 12, name, horizon=horizon, budget="5steps")
    assert all(np.isfinite(figure) for figure in model.metrics["test"].values())
    assert model.metrics["test"]["accuracy"] == 1.0
    if horizon and name != "gru":
        assert model.metrics["test"]["mase"] == 0


@pytest.mark.parametrize("missing", ["", "NaN"])
def test_a_gap_inside_a_series_is_refused_by_its_row(tmp_path, missing):
    cells = [missing if k == 20 else f"{np.sin(k):.3f}" for k in range(60)]
    lines = [f"{day:%Y-%m-%d},{cell}" for day, cell in zip(days(60), cells, strict=True)]
    path = tmp_path / "load.csv"
    path.write_text("\n".join(["date,load", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(DataError) as found:
        compare(path, ["linear"], horizon=3)
    assert found.value.row == 22
    assert "load" in str(found.value)
    assert found.value.mend


@pytest.mark.parametrize("name", ["ngram", "gru"])
def test_a_class_that_only_the_test_file_has_is_missed_and_nothing_else_breaks(tmp_path, name):
    def table(labels, file):
        texts = ["aabb" * 3 if label == "one" else "ccdd" * 3 for label in labels]
        pl.DataFrame({"text": texts, "label": labels}).write_csv(tmp_path / file)
        return str(tmp_path / file)

    train = table(["one", "two"] * 30, "train.csv")
    test = table(["one", "two", "three", "one"], "test.csv")
    found = compare(FileSource(path=train), [name], test=test, budget="30steps", task="classify")
    arms = {entry.name: entry for entry in found.entries}
    assert arms[name].arms[0].judgement.hits_N.tolist()[2] == 0
    assert arms[name].arms[0].judgement.bits_N[2] == pytest.approx(20.0)
    assert arms[name].accuracy == 0.75
    assert arms["majority"].arms[0].judgement.bits_N[2] == pytest.approx(20.0)


@pytest.fixture(scope="module")
def looping(tmp_path_factory):
    """Traces of a few rounds, and in the training and in the test part one of 50,000."""
    folder, rng = tmp_path_factory.mktemp("looping"), np.random.default_rng(0)
    for file, rows in (("train", 60), ("test", 8)):
        rounds = [LONG // 2, *rng.integers(1, 6, rows).tolist()]
        traces = [["start", *["work", "check"] * count, "end"] for count in rounds]
        frame = pl.DataFrame({"case": range(len(traces)), "activity": traces}).explode("activity")
        frame.write_csv(folder / f"{file}.csv")
    return load_data(str(folder / "train.csv"), test=str(folder / "test.csv"))


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=pytest.mark.slow if one == "hmm" else ()) for one in OF_SYMBOLS]
)
def test_a_trace_that_loops_a_hundred_thousand_times(looping, name):
    """What needs a stack as deep as the trace raises, what takes time with its square runs into pytest's timeout."""
    assert looping.prepared.parts["test"].lengths.max() == LONG + 2
    got = fit_run(looping.run(name), looping, name=name)
    assert np.isfinite(got.judgement.bits)
    assert got.judgement.counted > LONG
    if name not in ("unigram", "inductive_miner", "alergia", "lezi"):
        assert got.judgement.bits < 0.7 * got.baseline.bits  # every other step is sure
