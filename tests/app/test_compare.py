import pytest

from seqloom.app.compare import compare
from seqloom.app.fitted import load
from seqloom.core.errors import ConfigError
from seqloom.core.protocols import Silent
from seqloom.data.sequences import Sequences


@pytest.fixture(scope="module")
def found(cycles):
    return compare(cycles, ["ngram", "gru"], budget="40steps", seeds=2)


def test_best_first_with_the_baseline(found):
    assert found.entries[-1].name == "unigram"
    means = [entry.row.mean for entry in found.entries]
    assert means == sorted(means)
    assert "unigram" in found.sentence()
    assert found.figures()["split"]["train"] > found.figures()["split"]["test"]


def test_the_best_is_saved(found, tmp_path):
    found.save_best(tmp_path / "best")
    assert load(tmp_path / "best").metrics["test"]["bits_per_symbol"] < 1.5
    before = (tmp_path / "best" / "config.json").stat().st_mtime_ns
    with pytest.raises(ConfigError, match="--save-best, or remove it"):
        found.save_best(tmp_path / "best")
    assert (tmp_path / "best" / "config.json").stat().st_mtime_ns == before


def test_classes_have_the_majority_as_baseline():
    words = ["abab" if k % 3 else "bbaa" for k in range(60)]
    data = Sequences.of(words, labels=["most" if k % 3 else "few" for k in range(60)])
    found = compare(data, ["ngram", "unigram"])
    rows = {entry.name: entry for entry in found.entries}
    assert found.measure == "bits_per_class"
    assert rows["majority"].accuracy < rows["ngram"].accuracy == 1.0
    assert found.best.name == "ngram"
    assert "the trivial answer (majority)" in found.sentence()


def test_a_stopped_comparison_goes_on(cycles, tmp_path, monkeypatch):
    from seqloom.app import compare as module

    real, made = module.fit_run, []

    def counts(run, loaded, *, name, **rest):
        if name == "gru" and not made.count("stop"):
            made.append("stop")
            raise KeyboardInterrupt
        made.append(name)
        return real(run, loaded, name=name, **rest)

    monkeypatch.setattr(module, "fit_run", counts)
    with pytest.raises(KeyboardInterrupt):
        compare(cycles, ["ngram", "gru"], budget="5steps", out=tmp_path)
    compare(cycles, ["ngram", "gru"], budget="5steps", out=tmp_path)
    assert made == ["unigram", "ngram", "stop", "gru"]


def test_other_options_are_other_arms(cycles, tmp_path):
    for budget, seeds in (("5steps", 1), ("6steps", 1), ("6steps", 2)):
        compare(cycles, ["gru"], budget=budget, seeds=seeds, out=tmp_path)
    assert len(list(tmp_path.glob("arms/gru-*"))) == 3


def test_every_model_failing_is_a_table_too(cycles, monkeypatch):
    from seqloom.app import compare as module

    def fails(*_, **__):
        raise ValueError("no luck")

    monkeypatch.setattr(module, "fit_run", fails)
    found = compare(cycles, ["gru"])
    assert [entry.error for entry in found.entries] == ["ValueError: no luck"] * 2
    with pytest.raises(ConfigError, match="failed"):
        found.best  # noqa: B018


def test_the_cost_comes_first(cycles):
    told = []

    class Told(Silent):
        def note(self, text):
            told.append(text)

    compare(cycles, ["ngram", "gru"], budget="3steps", seeds=3, progress=Told())
    assert told[0].startswith("5 trainings; 3 networks of 3steps each")


@pytest.mark.parametrize("options", [{"models": []}, {"seeds": 0}, {"models": ["grue"]}])
def test_bad_options_are_told(cycles, options):
    with pytest.raises(ConfigError):
        compare(cycles, **options)


def test_one_long_sequence_is_judged_in_pieces():
    found = compare(["abcabcabd" * 300], ["ngram"])
    assert len(found.best.arms[0].judgement.bits_N) > 3
    assert not found.best.row.ties


def test_one_model_may_be_named_without_a_list(cycles):
    assert [entry.name for entry in compare(cycles, "ngram").entries] == ["ngram", "unigram"]


def test_all_is_every_model_that_suits(cycles):
    from seqloom.app._every import chosen
    from seqloom.app.plan import load_data
    from seqloom.core import discovery

    names, notes = chosen(["all"], load_data(cycles), "next")
    kinds = {name: discovery.get("models/classical", name) for name in discovery.names("models/classical")}
    assert {name for name, kind in kinds.items() if "next" in kind.tasks} | {"gru", "s4d"} <= set(names)
    assert not {"random_walk", "s4nd"} & set(names)
    assert "random_walk" in notes[-1]
    assert "s4nd is left out: with its default options it is s4d" in notes
    series = Sequences.of([[0.5 * k, 1.0, 2.0] for k in range(40)])
    names, _ = chosen(["all", "s4d*2"], load_data(series), "values")
    assert {"white_noise", "random_walk", "gru", "s4d*2"} <= set(names)
    assert "ngram" not in names


def test_a_missing_package_skips_a_model_and_no_other(cycles, monkeypatch):
    from seqloom.app import compare as module
    from seqloom.core.errors import MissingExtra

    real = module.fit_run

    def lacks(run, loaded, *, name, **rest):
        if name == "lstm":
            raise MissingExtra("fast_lstm", "gpu")
        return real(run, loaded, name=name, **rest)

    monkeypatch.setattr(module, "fit_run", lacks)
    found = compare(cycles, ["ngram", "lstm"], budget="4steps")
    rows = {row["name"]: row for row in found.figures()["models"]}
    assert rows["lstm"]["skipped"]
    assert "seqloom[gpu]" in rows["lstm"]["error"]
    assert not rows["ngram"]["skipped"]


def test_all_says_which_models_lack_a_package(cycles, monkeypatch):
    from seqloom.app import _every as module
    from seqloom.app.plan import load_data
    from seqloom.core.errors import MissingExtra

    real = module.discovery.get

    def lacks(shelf, name):
        if name == "gru":
            raise MissingExtra("fast_gru", "gpu")
        return real(shelf, name)

    loaded = load_data(cycles)
    monkeypatch.setattr(module.discovery, "get", lacks)
    names, notes = module.chosen(["all"], loaded, "next")
    assert "gru" not in names
    assert "gru is left out: fast_gru is not installed: pip install 'seqloom[gpu]'" in notes
