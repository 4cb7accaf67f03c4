import json

import numpy as np
import polars as pl
import pytest
import torch

from seqloom.app._nearest import nearest
from seqloom.app.fitted import Fitted, load
from seqloom.core.errors import CheckpointError, ConfigError, SeqloomError
from seqloom.core.specials import SPECIALS
from seqloom.data.sequences import Sequences


@pytest.fixture(params=["network", "counted"])
def fitted(request):
    return request.getfixturevalue(request.param)


def test_it_has_learnt_the_circle(fitted, cycles):
    assert fitted.metrics["test"]["bits_per_symbol"] < 0.75 * fitted.metrics["trivial"]["bits_per_symbol"]
    first = fitted.predict([["a", "b"], ["d", "a", "b", "c"]], top=1)
    assert first["symbol"].to_list() == ["c", "d"]


def test_predictions_are_a_distribution_without_what_cannot_follow(fitted):
    frame = fitted.predict([["a"]], top=100)
    assert frame["symbol"].to_list().count("<eos>") == 1
    assert not {"<pad>", "<bos>", "<unk>"} & set(frame["symbol"])
    assert 0.9 < frame["probability"].sum() <= 1 + 1e-6


def test_scores_are_the_sum_of_the_steps(fitted):
    """Bits of a sequence = bits of its symbols, each from the distribution that stepping gives."""
    word = list("abcdab")
    (row,) = fitted.score([word]).to_dicts()
    bits, state = 0.0, None
    nexts = [*word, "<eos>"]
    for fed, following in zip([None, *word], nexts, strict=True):
        step = fitted.step(fed, state, top=100)
        bits -= np.log2(dict(zip(step.symbols, step.probabilities, strict=True))[following])
        state = step.state
    assert row["symbols"] == len(word) + 1
    assert row["bits"] == pytest.approx(bits, rel=1e-4)
    assert row["bits_per_symbol"] == pytest.approx(row["bits"] / row["symbols"])
    assert fitted.surprise([word])["bits"].sum() == pytest.approx(row["bits"])


def test_a_state_can_be_gone_on_from_twice(cycles):
    from seqloom.app.fit import fit

    model = fit(cycles, "attention", budget="2steps")
    first = model.step("a")
    one = model.step("b", first.state)
    model.step("c", first.state)
    assert model.step("c", one.state).probabilities == model.step("c", model.step("b", first.state).state).probabilities


def test_order_and_batch_change_nothing(fitted, cycles):
    whole = fitted.score(cycles)
    backwards = fitted.score(cycles.select(np.arange(len(cycles))[::-1]))
    assert whole["id"].to_list() == cycles.ids
    merged = whole.join(backwards, on="id", suffix="_again")
    assert merged["bits"].to_numpy() == pytest.approx(merged["bits_again"].to_numpy(), rel=1e-4)


def test_unseen_symbols_are_scored_and_never_named(fitted):
    known, new = (fitted.score([word])["bits"][0] for word in (["a", "b", "c"], ["a", "zebra", "c"]))
    assert np.isfinite(new)
    assert new > known
    assert "zebra" not in fitted.predict([["zebra"]])["symbol"]


def test_an_empty_sequence_is_the_end_symbol_alone(fitted, cycles):
    frame = fitted.score(cycles.cut(np.zeros(len(cycles), int), np.zeros(len(cycles), int)).select([0]))
    assert frame["symbols"].to_list() == [0]  # cut before it began: nothing of it is left to predict
    assert fitted.predict([["a"], []], top=1)["symbol"][1] in "abcd"


def test_generation_is_reproducible_by_row(fitted):
    one = fitted.generate(4, limit=8, seed=3)
    assert one.equals(fitted.generate(4, limit=8, seed=3))
    assert not one.equals(fitted.generate(4, limit=8, seed=4))
    assert one["id"].to_list() == ["generated/1", "generated/2", "generated/3", "generated/4"]
    greedy = fitted.generate(prompts=[["a", "b"]], limit=2, temperature=0)
    assert greedy["sequence"].to_list() == ["a b c d"]


def test_similar_sequences_have_the_same_phase(fitted, cycles):
    frame = fitted.similar(cycles, id="s0", top=3)
    assert "s0" not in frame["neighbour"]
    assert {int(name[1:]) % 4 for name in frame["neighbour"]} == {0}
    assert frame["cosine"].is_sorted(descending=True)


def test_one_sequence_has_no_neighbour(fitted, cycles):
    with pytest.raises(ConfigError, match="only one short sequence"):
        fitted.similar(cycles.select([0]))
    assert fitted.similar(cycles, to=cycles.select([0]), top=1)["neighbour"].to_list() == ["s0"]


def test_vectors_are_one_a_sequence(fitted, cycles):
    frame = fitted.embed(cycles)
    assert frame["id"].to_list() == cycles.ids
    vectors = frame["vector"].to_numpy()
    assert vectors.shape[0] == len(cycles)
    assert np.isfinite(vectors).all()


def test_save_and_load_change_no_answer(fitted, cycles, tmp_path):
    fitted.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert again.score(cycles).equals(fitted.score(cycles))
    assert again.generate(2, limit=5).equals(fitted.generate(2, limit=5))
    assert again.run == fitted.run
    assert again.metrics == fitted.metrics


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "vocabulary.json", "run.json"])
def test_a_file_that_is_cut_short_or_gone_is_told(fitted, tmp_path, name):
    fitted.save(tmp_path / "m")
    path = tmp_path / "m" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CheckpointError):
        load(tmp_path / "m")
    path.unlink()
    with pytest.raises(SeqloomError, match=name.replace(".", r"\.") if name != "config.json" else "no finished model"):
        load(tmp_path / "m")


def test_a_newer_format_is_told(fitted, tmp_path):
    fitted.save(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError, match="has format 2"):
        load(tmp_path / "m")


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_saving_cut_short_over_another_model_leaves_no_mixture(fitted, tmp_path, monkeypatch, done):
    from seqloom.app import _folder

    fitted.save(tmp_path)
    write, left = _folder.write_text, iter(range(done))

    def dies(path, text):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(_folder, "write_text", dies)
    with pytest.raises(KeyboardInterrupt):
        fitted.save(tmp_path)
    with pytest.raises(CheckpointError, match="no finished model"):
        Fitted.load(tmp_path)
    monkeypatch.undo()
    fitted.save(tmp_path)
    assert Fitted.load(tmp_path).task == fitted.task


def test_weights_of_another_model_are_refused(network, counted, tmp_path):
    network.save(tmp_path / "a")
    counted.save(tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not as it was saved"):
        load(tmp_path / "a")


def test_a_unigram_has_no_vectors(cycles):
    from seqloom.app.fit import fit

    with pytest.raises(ConfigError, match="unigram predicts the same"):
        fit(cycles, "unigram").embed(cycles)


def test_long_sequences_are_scored_with_half_a_window_of_past(cycles):
    """Windows overlap: what a window sees changes nothing where the model looks back less than half of it."""
    from seqloom.app._engines import Blueprint, Network
    from seqloom.core.sizes import Sizes
    from seqloom.data.examples import Examples
    from seqloom.data.ragged import Ragged
    from seqloom.mixers.attention.attention import Attention
    from seqloom.models.backbone import Backbone
    from seqloom.models.causal_lm import CausalLM

    backbone = Backbone.Config(width=8, layers=1, mixers=(Attention.Config(window=4),))
    sizes = Sizes(vocabulary=12)
    config = CausalLM.Config(backbone=backbone)
    model = config.build(sizes)
    line = Ragged.of([np.random.default_rng(0).integers(SPECIALS.count, 12, size) for size in (70, 16, 15, 3, 0)])
    ones = np.ones(len(line), bool)
    for opens, closes in ((ones, ones), (~ones, ones), (ones, ~ones)):
        kept = line if opens.all() else line.select([0, 1, 2, 3])
        examples = Examples(kept, opens=opens[: len(kept)], closes=closes[: len(kept)])
        whole = Network(Blueprint(model=config, sizes=sizes), model).score(examples)[0]
        cut = Network(Blueprint(model=config, sizes=sizes, window=16), model).score(examples)[0]
        assert cut.lengths.tolist() == (kept.lengths + examples.opens + examples.closes - 1).tolist()
        assert cut.values == pytest.approx(whole.values, abs=1e-5)


@pytest.mark.parametrize("window", [0, 1, 2, 5, 8])
@pytest.mark.parametrize("targets", [1, 5, 8, 23])
def test_windows_score_every_target_once_and_see_half_a_window(window, targets):
    from seqloom.app._scoring import cuts

    pieces = list(cuts(targets, window, 0))
    assert [t for p in pieces for t in range(p.from_, p.end)] == list(range(targets))
    assert all(p.end - p.begin <= (window or targets) for p in pieces)
    assert all(p.from_ - p.begin >= window // 2 for p in pieces[1:])


def test_the_mass_of_the_unseen_is_what_was_asked_for():
    from seqloom.app._scoring import predictive

    log_p = predictive(torch.randn(3, 10), 0.25)
    assert log_p.exp().sum(-1) == pytest.approx(torch.ones(3).numpy(), abs=1e-6)
    assert log_p[:, SPECIALS.unk].exp().tolist() == pytest.approx([0.25] * 3)
    assert torch.isneginf(log_p[:, list(SPECIALS.unpredictable)]).all()


def test_classes(tmp_path):
    from seqloom.app.fit import fit

    words = ["abab" * (1 + k % 3) if k % 2 else "bbaa" * (1 + k % 3) for k in range(60)]
    data = Sequences.of(words, labels=["odd" if k % 2 else "even" for k in range(60)])
    for model in ("ngram", "gru"):
        fitted = fit(data, model, budget="60steps")
        assert fitted.task == "classify"
        assert fitted.metrics["test"]["accuracy"] == 1.0
        fitted.save(tmp_path / model)
        frame = load(tmp_path / model).predict(data)
        assert frame["class"].to_list() == data.labels
        assert isinstance(frame, pl.DataFrame)
        assert frame.select(pl.sum_horizontal("p(even)", "p(odd)")).to_series().to_numpy() == pytest.approx(1.0)
        assert fitted.score(data)["bits"].max() < 1
        assert fitted.embed(data).height == 60
        with pytest.raises(ConfigError, match="--task next"):
            fitted.generate()


def test_load_of_nothing_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="seqloom fit"):
        Fitted.load(tmp_path)


def test_similar_tells_rows_of_one_id_apart_and_holds_few_cosines_at_once(fitted, cycles, monkeypatch):
    frame = pl.DataFrame({"id": ["same"] * 9, "events": [" ".join(line) for line in ("abcd", "bcda", "cdab") * 3]})
    whole = fitted.similar(frame, top=2)
    assert whole["cosine"].to_list() == pytest.approx([1.0] * 18)  # two others of the same phase, never itself
    monkeypatch.setattr("seqloom.app._nearest.CELLS", 20)
    assert fitted.similar(frame, top=2).equals(whole)


def test_the_nearest_rows_are_those_of_a_full_sort():
    rng = np.random.default_rng(0)
    query_QD, where_ND = rng.integers(-2, 3, (7, 3)) / 4, rng.integers(-2, 3, (40, 3)) / 4  # many ties
    for top in (0, 1, 5, 40):
        order_QK, product_QK = nearest(query_QD, where_ND, None, top)
        full_QN = query_QD @ where_ND.T
        np.testing.assert_array_equal(order_QK, np.argsort(-full_QN, axis=1, kind="stable")[:, :top])
        np.testing.assert_array_equal(product_QK, np.take_along_axis(full_QN, order_QK, 1))


def test_counts_below_one_are_refused(fitted):
    for ask in (
        lambda: fitted.predict([["a"]], top=0),
        lambda: fitted.generate(-1),
        lambda: fitted.similar([["a"], ["b"]], top=-2),
        lambda: fitted.step("a", top=0),
    ):
        with pytest.raises(ConfigError, match="must be at least 1"):
            ask()


@pytest.mark.parametrize("name", ["config.json", "vocabulary.json", "run.json", "metrics.json"])
def test_a_document_that_is_no_object_is_refused_by_name(fitted, tmp_path, name):
    fitted.save(tmp_path / "m")
    (tmp_path / "m" / name).write_text("[]")
    with pytest.raises(CheckpointError, match=f"{name} holds no JSON object"):
        load(tmp_path / "m")


def test_a_sequence_that_has_not_begun_and_no_prompts_at_all(fitted):
    assert len(fitted.predict([[]], top=2)) == 2
    assert fitted.generate(2, prompts=[]).schema == fitted.generate(2, limit=3).schema


def test_weights_of_another_width_are_refused_in_one_line(network, tmp_path):
    config = network.save(tmp_path / "m") / "config.json"
    width = network.run.model.backbone.width
    config.write_text(config.read_text().replace(f'"width": {width}', f'"width": {width + 8}'))
    with pytest.raises(CheckpointError, match=r"config\.json is not as it was saved"):
        load(tmp_path / "m")
    document = json.loads(config.read_text())
    del document["seal"]  # as an older version wrote it
    config.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="do not fit the model") as told:
        load(tmp_path / "m")
    assert "\n" not in str(told.value)
