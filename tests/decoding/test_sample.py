"""Sampling: frequencies against the renormalised distribution, and what a seed fixes."""

import pytest
import torch

from seqloom.core.batch import Batch
from seqloom.core.errors import ConfigError
from seqloom.decoding._hypotheses import prompts
from seqloom.decoding.greedy import Greedy
from seqloom.decoding.sample import Sample
from seqloom.testing.decoders import PROMPTS, Table

DRAWS = 40_000


def pvalue(counts, expected=None):
    from scipy.stats import chisquare

    return chisquare(counts, expected).pvalue


def wanted(logits, config):
    """The distribution by brute force: sort, cut, renormalise, in float64."""
    p = (logits.double() / config.temperature).softmax(0)
    p[[0, 1, 3, 4, 5]] = 0
    p /= p.sum()
    order = sorted(range(len(p)), key=lambda v: (-float(p[v]), v))
    if config.top_k:
        p[order[config.top_k :]] = 0
        p /= p.sum()
    mass, kept = 0.0, []
    for v in order:
        if kept and mass >= config.top_p:
            break
        mass += float(p[v])
        kept.append(v)
    p = torch.where(torch.isin(torch.arange(len(p)), torch.tensor(kept)), p, 0)
    p = torch.where(p >= config.min_p * p.max(), p, 0)
    return p / p.sum()


@pytest.mark.parametrize(
    "config",
    [
        Sample.Config(),
        Sample.Config(temperature=0.5),
        Sample.Config(top_k=3),
        Sample.Config(top_p=0.8),
        Sample.Config(min_p=0.2),
        Sample.Config(temperature=1.7, top_k=5, top_p=0.9, min_p=0.1),
    ],
    ids=str,
)
def test_frequencies_match_the_renormalised_distribution(config):
    table = Table.random(20, scale=1.0)
    batch = Batch(tokens_BT=torch.tensor([[1, 7]]).expand(DRAWS, 2))
    drawn = Sample(config).decode(table, batch, limit=1, seed=6).tokens_BL[:, 0]
    want = wanted(table.after([1, 7]), config).numpy()
    counts = torch.bincount(drawn, minlength=len(want)).numpy()
    assert counts[want == 0].sum() == 0
    assert pvalue(counts[want > 0], DRAWS * want[want > 0]) > 0.001


def test_successive_tokens_of_a_row_are_independent_draws():
    table = Table(torch.zeros(11, 11, 11).index_fill(2, torch.tensor([2]), -50.0))
    drawn = Sample().decode(table, Batch(tokens_BT=torch.ones(4000, 1, dtype=torch.long)), limit=3, seed=1).tokens_BL
    pairs = torch.bincount((drawn[:, 0] - 6) * 5 + drawn[:, 2] - 6, minlength=25).numpy()
    assert pvalue(pairs) > 0.001


def test_another_seed_or_key_gives_another_sequence():
    table = Table.random(3, scale=0.5)
    one, two = (Sample().decode(table, prompts([[7]] * 4), limit=10, seed=s) for s in (1, 2))
    assert one.tokens_BL.tolist() != two.tokens_BL.tolist()
    assert len({tuple(row) for row in one.tokens_BL.tolist()}) == 4
    keyed = Sample().decode(table, prompts([[7], [7]], keys=[3, 0]), limit=10, seed=1)
    assert keyed.tokens_of(0) == one.tokens_of(3)
    assert keyed.tokens_of(1) == one.tokens_of(0)


def test_one_token_kept_is_greedy():
    table = Table.random(4)
    want = Greedy().decode(table, prompts(PROMPTS), limit=8).tokens_BL
    for config in (Sample.Config(top_k=1), Sample.Config(top_p=1e-9), Sample.Config(min_p=1.0)):
        assert torch.equal(Sample(config).decode(table, prompts(PROMPTS), limit=8).tokens_BL, want)


def test_the_raw_score_is_the_models_and_the_search_score_the_truncated_ones():
    done = Sample(Sample.Config(top_k=1)).decode(Table.random(4), prompts(PROMPTS), limit=8)
    torch.testing.assert_close(done.search_B, torch.zeros(len(PROMPTS)))
    assert bool((done.raw_B < -0.1).all())


@pytest.mark.parametrize(
    "config",
    [
        Sample.Config(temperature=0.0),
        Sample.Config(temperature=-1.0),
        Sample.Config(top_k=-1),
        Sample.Config(top_p=0.0),
        Sample.Config(top_p=1.5),
        Sample.Config(min_p=2.0),
        Sample.Config(repetition=0.0),
    ],
    ids=str,
)
def test_options_out_of_range_are_refused(config):
    with pytest.raises(ConfigError, match="must be"):
        Sample(config)


def test_a_token_of_probability_zero_is_not_drawn_by_the_smallest_number(monkeypatch):
    from seqloom.decoding import sample

    monkeypatch.setattr(sample, "uniform_rows", lambda seed, keys, steps: torch.zeros(len(keys), dtype=torch.float64))
    done = Sample().decode(Table.random(0), prompts(PROMPTS), limit=4)  # id 0 is forbidden: its probability is 0
    for row in range(done.batch):
        assert set(done.tokens_of(row)) == {2}  # the lowest id that may be written, the end
