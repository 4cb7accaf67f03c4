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
