"""A number after every event, end to end, on a log whose remaining times are a known function of what happened."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from seqloom.app._engines import wrapped
from seqloom.app._regress import calibrated
from seqloom.app.compare import compare
from seqloom.app.fit import fit
from seqloom.app.fitted import load
from seqloom.app.plan import load_data
from seqloom.app.report import render, write_table
from seqloom.core.errors import CheckpointError, ConfigError, DataError
from seqloom.data.columns import Columns
from seqloom.data.target import Target
from seqloom.evaluation.mae import mae
from seqloom.evaluation.rmse import rmse
from seqloom.training.prepare import encoded
from seqloom.training.source import FileSource

BEGIN = datetime(2026, 1, 1)
HOURS = {"fast": 2, "slow": 24}
STEPS = 4
FILE = ["case", "activity", "time", "cost", "who"]


def rows(cases=range(120), *, odd=""):
    """Two kinds of cases of five events; every event of a slow one takes longer, and it costs more."""
    made = []
    for number in cases:
        kind = "slow" if number % 3 == 0 else "fast"
        for step in range(STEPS + 1):
            event = odd if odd and step == 1 else f"{kind}{step}"
            time = BEGIN + timedelta(hours=7 * number + HOURS[kind] * step)
            made.append((f"c{number}", event, time, 10.0 * (kind == "slow") + step, kind[0]))
    return made


def log(*args, **options):
    return pl.DataFrame(rows(*args, **options), schema=FILE, orient="row")


def remaining(frame):
    """What is left after every event, in hours, by id, by hand."""
    told = {}
    for case, _, time, *_ in frame.iter_rows():
        told.setdefault(case, []).append(time)
    return {case: [(max(times) - time).total_seconds() / 3600 for time in times] for case, times in told.items()}


@pytest.fixture(scope="module", params=["annotated_transitions", "gru"])
def fitted(request):
    return fit(log(), request.param, target="remaining", budget="80steps")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("regress")
    names = ["annotated_transitions", "gru"]
    return compare(log(), names, target="remaining", budget="60steps", seeds=2, out=out)


def test_both_beat_the_median_and_the_answer_is_the_known_function(fitted):
    got, trivial = fitted.metrics["test"], fitted.metrics["trivial"]
    assert fitted.metrics["unit"] == "hours"
    assert got["mae"] < 0.2 * trivial["mae"]
    told = fitted.predict([["slow0"], ["slow0", "slow1", "slow2"], ["fast0", "fast1", "fast2", "fast3"]])
    assert told.columns == ["id", "prediction", "lower", "upper", "unit"]
    assert told["unit"].unique().to_list() == ["hours"]
    np.testing.assert_allclose(told["prediction"], [4 * 24, 2 * 24, 2], rtol=0.1, atol=2)
    assert (told["lower"] <= told["prediction"]).all()
    assert (told["prediction"] <= told["upper"]).all()


def test_the_figures_are_those_of_every_prefix_by_hand(fitted):
    data = load_data(log(), target="remaining").prepared
    part, known = data.parts["test"], remaining(log())
    assert data.target == Target.fit(data.parts["train"], "remaining")  # unit and scale of the training part alone
    assert [list(own) for own in data.target.of(part)] == [pytest.approx(known[id]) for id in part.ids]
    prefixes = [(id, part.sequence(at)[:t], known[id][t - 1]) for at, id in enumerate(part.ids) for t in range(1, 6)]
    told = fitted.predict([events for _, events, _ in prefixes])
    came, got = np.array([y for *_, y in prefixes]), fitted.metrics["test"]
    # a batch of another shape rounds otherwise
    assert got["mae"] == pytest.approx(mae(told["prediction"].to_numpy()[:, None], came[:, None]), rel=1e-3, abs=1e-4)
    assert got["rmse"] == pytest.approx(rmse(told["prediction"].to_numpy()[:, None], came[:, None]), rel=1e-3, abs=1e-4)
    inside = (told["lower"].to_numpy() <= came + 1e-3) & (came - 1e-3 <= told["upper"].to_numpy())
    assert got["accuracy"] == pytest.approx(inside.mean(), abs=0.05)
    assert (got["units"], got["counted"]) == (len(part), len(prefixes))
    by_length = fitted.by_prefix_length(part)
    assert by_length["from"].to_list() == [1, 2, 3, 4, 5]
    assert (by_length["mae"] * by_length["symbols"]).sum() / len(prefixes) == pytest.approx(got["mae"], rel=1e-6)


def test_the_trivial_answer_is_the_median_of_the_training_part():
    model = fit(log(), "median", target="remaining")
    data = load_data(log(), target="remaining").prepared
    known = remaining(log())
    train = [y for id in data.parts["train"].ids for y in [known[id][0], *known[id]]]  # and before the first event
    test = np.array([y for id in data.parts["test"].ids for y in known[id]])
    middle, low, high = np.quantile(train, [0.5, 0.1, 0.9])
    assert model.metrics["test"] == model.metrics["trivial"]
    assert model.metrics["test"]["mae"] == pytest.approx(np.abs(test - middle).mean(), rel=1e-6)
    assert model.metrics["test"]["accuracy"] == pytest.approx(((low <= test) & (test <= high)).mean())


def test_what_was_saved_tells_the_same_to_the_last_bit(fitted, tmp_path):
    again = load(fitted.save(tmp_path / "m"))
    assert_frame_equal(again.predict(log()), fitted.predict(log()), check_exact=True)
    assert again.predict(log())["id"].to_list() == fitted.read(log()).ids
    assert again.engine.blueprint == fitted.engine.blueprint
    assert "mean absolute error (hours)" in fitted.files["card.md"]
    assert "the time that remains until the last event, in hours" in fitted.files["card.md"]


def test_what_makes_sense_works_and_the_rest_says_what_to_ask_instead(fitted):
    assert len(fitted.embed(log())) == 120
    assert fitted.similar(log(), id="c3", top=1)["neighbour"][0] in {f"c{k}" for k in range(0, 120, 3)}
    for ask in (fitted.score, fitted.surprise, lambda _: fitted.step("fast0")):
        with pytest.raises(ConfigError, match=r"a number after every event.*fitted with --task next"):
            ask(log())
    with pytest.raises(ConfigError, match="tells a number writes no sequences"):
        fitted.generate()
    with pytest.raises(ConfigError, match="horizon"):
        fitted.predict(log(), horizon=2)


def test_symbols_never_seen_and_empty_sequences_get_an_answer(fitted, tmp_path):
    told = fitted.predict([[], ["never"], ["slow0", "never", "slow2"]])
    assert np.isfinite(told.select("prediction", "lower", "upper").to_numpy()).all()
    log().write_csv(tmp_path / "train.csv")
    log(range(200, 215), odd="new").write_csv(tmp_path / "test.csv")
    name = "gru" if fitted.engine.parameters > 5000 else "annotated_transitions"
    given = fit(tmp_path / "train.csv", name, target="remaining", test=tmp_path / "test.csv", budget="5steps")
    assert given.metrics["unknown_symbols"] == pytest.approx(0.2)
    assert given.metrics["test"]["counted"] == 75


def test_a_comparison_is_of_absolute_errors_beside_the_median_with_the_unit(found, tmp_path):
    assert [entry.name for entry in found.entries][-1] == "median"
    assert (found.measure, found.unit, found.baseline) == ("mae", "hours", "median")
    assert re.search(r"is best with a mean absolute error of \d+\.\d{3} hours", found.sentence())
    assert "the trivial answer (median) has" in found.sentence()
    figures = found.figures()
    assert figures["unit"] == "hours"
    assert {"mae", "pinball", "rmse"} <= figures["models"][0].keys()
    write_table(found, tmp_path / "t.md")
    assert "absolute error (hours)" in (tmp_path / "t.md").read_text("utf-8")
    write_table(found, tmp_path / "t.csv")
    assert pl.read_csv(tmp_path / "t.csv")["mae"].to_list()[0] < 10
    assert figures["by_prefix_length"][0]["mae"] >= 0


def test_the_report_shows_the_unit_the_calibration_and_the_error_by_events_read(found):
    page = re.sub(r"<script.*?</script>", "", render(found), flags=re.DOTALL)
    for words in ("absolute error (hours)", "Calibration", "Error by events read", "inside 80 %"):
        assert words in page
    events = [event for entry in found.entries for event in entry.chosen.events if event["kind"] == "look"]
    looks = [f">{event['loss']:.3f}<" for event in events]
    assert "loss of the scaled number" in page  # what the best weights are chosen by
    assert looks
    assert all(look in page for look in looks)


def test_a_comparison_goes_on_where_it_was(found, tmp_path_factory):
    folder = next(arm.folder for entry in found.entries for arm in entry.arms).parent.parent
    again = compare(log(), ["annotated_transitions", "gru"], target="remaining", budget="60steps", seeds=2, out=folder)
    assert again.figures()["models"] == found.figures()["models"]
    best = again.save_best(tmp_path_factory.mktemp("best") / "m")
    assert load(best).predict([["slow0"]])["unit"][0] == "hours"


def test_all_models_hold_those_that_tell_a_number_and_no_others():
    from seqloom.app._every import chosen

    names, notes = chosen(["all"], load_data(log(), target="remaining"), "regress")
    assert {"median", "annotated_transitions", "gru", "s4d"} <= set(names)
    assert not {"unigram", "ngram", "majority", "white_noise"} & set(names)
    assert any("left out" in note and "ngram" in note for note in notes)


def test_a_column_is_told_and_never_read(tmp_path):
    """A number for each case that nothing tells: only a network that could read it would be right."""
    drawn = np.random.default_rng(0).normal(size=120).repeat(STEPS + 1)
    log().with_columns(cost=pl.Series(drawn)).write_csv(tmp_path / "log.csv")
    source = FileSource(path=str(tmp_path / "log.csv"), columns=Columns(inputs="all"))
    model = fit(source, "gru", target="cost", budget="40steps")
    assert model.metrics["test"]["mae"] > 0.7 * model.metrics["trivial"]["mae"]
    changed = log().with_columns(cost=pl.lit(1e6))
    assert_frame_equal(model.predict(log()), model.predict(changed), check_exact=True)
    assert_frame_equal(model.predict(log()), model.predict(log().drop("cost")), check_exact=True)


def test_all_inputs_are_all_but_the_target(tmp_path):
    log().write_csv(tmp_path / "log.csv")
    source = FileSource(path=str(tmp_path / "log.csv"), columns=Columns(inputs="all"))
    data = load_data(source, target="cost").prepared
    assert [channel.name for channel in data.features.channels] == ["who", "gap"]
    with pytest.raises(DataError, match="'cost' is what is predicted"):
        load_data(FileSource(path=source.path, columns=Columns(inputs="cost,gap")), target="cost")
    model = fit(source, "gru", target="cost", budget="60steps")
    assert model.metrics["test"]["mae"] < 0.5 * model.metrics["trivial"]["mae"]  # who says it


def test_time_that_has_passed_tells_what_symbols_cannot(tmp_path):
    rng = np.random.default_rng(1)
    made = []
    for number in range(150):  # every case lasts ten hours, whenever its events come
        hours = np.sort(np.concatenate([[0], rng.uniform(0, 10, rng.integers(1, 8)), [10]]))
        made += [(number, "x", BEGIN + timedelta(hours=12 * number + float(hour))) for hour in hours]
    path = tmp_path / "even.csv"
    pl.DataFrame(made, schema=["case", "activity", "time"], orient="row").write_csv(path)
    blind, seeing = (
        fit(FileSource(path=str(path), columns=Columns(inputs=inputs)), "gru", target="remaining", budget="80steps")
        for inputs in (None, "elapsed")
    )
    assert seeing.metrics["test"]["mae"] < 0.5 * blind.metrics["test"]["mae"]


def test_labels_that_are_numbers_are_told():
    texts = [("aab" if k % 2 else "bba") * (1 + k % 3) for k in range(60)]
    frame = pl.DataFrame({"text": texts, "label": [10.0 * (k % 2) for k in range(60)]})
    model = fit(frame, "gru", task="regress", budget="40steps")
    assert model.metrics["unit"] == "label"
    assert model.metrics["test"]["mae"] < 0.3 * model.metrics["trivial"]["mae"]
    classes = frame.with_columns(label=pl.when(pl.col("label") > 0).then(pl.lit("high")).otherwise(pl.lit("low")))
    with pytest.raises(DataError, match=r"row 1: the label is no number.*--target.*--task classify"):
        load_data(classes, task="regress")


def test_a_label_is_asked_for_by_its_column_too(tmp_path):
    path = tmp_path / "scores.csv"
    pl.DataFrame({"text": ["ab", "ba", "aab"] * 20, "label": [1.5, 2.5, 3.5] * 20}).write_csv(path)
    model = fit(path, "gru", target="label", budget="3steps", out=tmp_path / "m")
    assert model.run == fit(path, "gru", task="regress", budget="3steps").run
    more = fit(path, start=tmp_path / "m", target="label", budget="2steps")
    assert more.metrics["unit"] == "label"
    with pytest.raises(ConfigError, match="tells label, not remaining: leave --target away"):
        fit(path, start=tmp_path / "m", target="remaining", budget="2steps")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pl.when(pl.col("case") == "c71").then(None).otherwise("cost"), "row 57: the sequence 'c71' .* has no number"),
        (pl.when(pl.col("case") == "c71").then(pl.lit("?")).otherwise("cost"), "row 57: 'cost' holds no number"),
        (None, "no column of numbers 'cost' to predict"),
        (pl.when(pl.col("case") == "c71").then(pl.lit(" 7")).otherwise("cost"), "'cost' is text in one of both files"),
    ],
)
def test_of_two_files_the_one_with_the_fault_is_named(tmp_path, spoil, words):
    first, second = log(range(60)), log(range(60, 80))
    first.write_csv(tmp_path / "train.csv")
    (second.drop("cost") if spoil is None else second.with_columns(cost=spoil)).write_csv(tmp_path / "test.csv")
    for inputs in (None, "all"):
        source = FileSource(path=str(tmp_path / "train.csv"), columns=Columns(inputs=inputs))
        with pytest.raises(DataError, match=rf"test\.csv.*{words}"):
            load_data(source, target="cost", test=str(tmp_path / "test.csv"))


def test_an_input_that_is_text_in_one_file_alone_is_named(tmp_path):
    log(range(60)).write_csv(tmp_path / "train.csv")
    log(range(60, 80)).with_columns(cost=pl.lit("low")).write_csv(tmp_path / "test.csv")
    source = FileSource(path=str(tmp_path / "train.csv"), columns=Columns(inputs="cost"))
    with pytest.raises(DataError, match=r"test\.csv.*'cost' is text in one of both files and numbers in the other"):
        load_data(source, target="remaining", test=str(tmp_path / "test.csv"))


def test_no_interval_of_an_error_lies_below_zero():
    """Student's t reaches further down than an error can be where sequences are few and unlike."""
    few = log(range(30)).with_columns(cost=pl.Series([0.0] * 145 + [9.0] * 5))
    found = compare(few, ["median"], target="cost")
    assert 2 <= len(found.loaded.prepared.parts["test"]) <= 4
    bins = found.by_prefix_length()
    assert bins["low"].min() == 0 == found.entries[0].row.low
    assert bins["high"].max() > bins["mae"].max()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": "remaining", "task": "next"}, ConfigError, "a target belongs to the task regress, not to next"),
        ({"target": "remaining", "horizon": 3}, ConfigError, "not to forecast"),
        ({"task": "regress"}, DataError, "no number to predict.*--target: remaining, or a column"),
        ({"target": "price"}, DataError, "What can be predicted: remaining, cost"),
    ],
)
def test_what_cannot_be_meant_is_refused(options, error, words):
    with pytest.raises(error, match=words):
        load_data(log(), **options)


def test_bad_data_are_refused_with_what_mends_them():
    with pytest.raises(DataError, match=r"no time of every event.*--time.*--target"):
        load_data(log().drop("time"), target="remaining")
    with pytest.raises(DataError, match=r"too few sequences.*--test"):
        load_data(log(range(1)), target="remaining")
    with pytest.raises(DataError, match=r"a split by position: .* would be cut.*Choose another --split"):
        load_data(FileSource(path="sample:flights", how="position"), target="remaining")
    late = log().with_columns(cost=pl.when(pl.col("case").is_in(["c5", "c119"])).then(None).otherwise("cost"))
    with pytest.raises(DataError, match=r"row 26: .*'c5' .* 2 of 120 sequences have none"):
        load_data(late, target="cost")
    with pytest.raises(DataError, match="holds values: a number is told after symbols"):
        load_data([np.arange(9.0) for _ in range(9)], target="remaining")
    with pytest.raises(ConfigError, match="ngram tells no number after every event; there are median, annotated_"):
        fit(log(), "ngram", target="remaining")
    with pytest.raises(ConfigError, match="median tells numbers: ask with --target; there are unigram"):
        fit(log(), "median")


def test_a_constant_a_single_event_and_cases_of_one_event_are_no_trouble():
    constant = fit(log().with_columns(cost=pl.lit(4.0)), "gru", target="cost", budget="5steps")
    assert constant.metrics["trivial"]["mae"] == 0
    told = "it is 4 after every event of the training part: there is nothing to learn"
    assert told in load_data(log().with_columns(cost=pl.lit(4.0)), target="cost").notes
    assert not any("nothing to learn" in note for note in load_data(log(), target="cost").notes)
    assert np.isfinite(constant.metrics["test"]["mae"])
    single = log().group_by("case", maintain_order=True).first()
    for name in ("annotated_transitions", "gru"):
        alone = fit(single, name, target="remaining", budget="5steps")
        assert alone.metrics["test"]["counted"] == 12
        assert alone.metrics["trivial"]["mae"] == 0


def test_a_stopped_training_goes_on_to_the_same_bytes_and_another_target_is_another_run(tmp_path):
    whole = fit(log(), "gru", target="remaining", budget="12steps", out=tmp_path / "m")
    again = fit(log(), "gru", target="remaining", budget="12steps", out=tmp_path / "m", resume=True)
    assert_frame_equal(again.predict(log()), whole.predict(log()), check_exact=True)
    with pytest.raises(CheckpointError, match="another run"):
        fit(log(), "gru", target="cost", budget="12steps", out=tmp_path / "m", resume=True)


def test_a_network_goes_on_from_another_with_its_unit_and_scale(tmp_path):
    first = fit(log(), "gru", target="remaining", budget="20steps", out=tmp_path / "m")
    second = fit(log(range(200, 260)), start=tmp_path / "m", budget="5steps")
    assert second.engine.blueprint.target == first.engine.blueprint.target
    with pytest.raises(ConfigError, match="tells remaining, not cost"):
        fit(log(), start=tmp_path / "m", target="cost", budget="5steps")


def test_long_sequences_are_cut_into_windows_that_tell_every_event_once():
    rng = np.random.default_rng(0)
    places = [(number, step) for number in range(12) for step in range(700)]
    made = [(n, "ab"[rng.integers(2)], BEGIN + timedelta(seconds=1000 * n + step)) for n, step in places]
    frame = pl.DataFrame(made, schema=["case", "activity", "time"], orient="row")
    model = fit(frame, "gru", target="remaining", budget="3steps")
    assert model.engine.blueprint.window == 128
    assert model.metrics["test"]["counted"] == 700 * model.metrics["test"]["units"]
    engine = wrapped(replace(model.engine.blueprint, margin=0.0), model.engine.model)
    valid = load_data(frame, target="remaining").prepared.valid  # whole sequences, as the test part is judged
    assert calibrated(engine, valid).blueprint.margin == model.engine.blueprint.margin > 0


def test_an_interval_that_is_too_narrow_is_widened_by_the_validation_part():
    rng = np.random.default_rng(0)
    rows = [(k, "ab"[rng.integers(2)], BEGIN + timedelta(hours=k), rng.normal()) for k in range(300) for _ in range(4)]
    frame = pl.DataFrame(rows, schema=["case", "activity", "time", "cost"], orient="row")
    model = fit(frame, "gru", target="cost", budget="250steps")  # long enough to learn noise by heart
    data = load_data(frame, target="cost").prepared
    valid, engine = data.parts["valid"], model.engine
    told, came = engine.told(encoded(valid, data.tokenizer, None)).flat, data.target.of(valid).flat

    def inside(margin):
        wider = margin * data.target.scale
        return ((told[:, 0] - wider <= came) & (came <= told[:, 2] + wider)).mean()

    assert engine.blueprint.margin > 0
    assert 0.8 <= inside(1e-9) < 0.85
    assert inside(-engine.blueprint.margin) < 0.8
