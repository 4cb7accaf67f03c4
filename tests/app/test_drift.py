import json
import time

import numpy as np
import pytest

from seqloom.app import _shares
from seqloom.app.drift import COARSE, Profile, told
from seqloom.core.specials import SPECIALS
from seqloom.data.features import Features
from seqloom.data.ragged import Ragged
from seqloom.data.sequences import Sequences

A, UNK = SPECIALS.count, SPECIALS.unk


def drawn(rng, count, *, shares=(0.4, 0.3, 0.2, 0.1), stay=0.8, mean=30, kinds=2):
    """Sequences of runs, each of one of two kinds that prefer other symbols: as far from independent as logs are."""
    lengths = rng.geometric(1 / mean, count) + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    fresh = rng.random(offsets[-1]) > stay
    fresh[offsets[:-1]] = True
    kind = np.repeat(rng.integers(kinds, size=count), lengths)
    own = np.stack([np.roll(shares, k) for k in range(kinds)]).cumsum(1)[kind]
    symbols = (rng.random(offsets[-1])[:, None] > own).sum(1).clip(max=len(shares) - 1)
    at = np.maximum.accumulate(np.where(fresh, np.arange(offsets[-1]), 0))
    return Ragged((symbols[at] + A).astype(np.int32), offsets)


def scored(rng, count, worse=0.0, low=3, high=300):
    """Bits of sequences whose lengths differ a hundredfold and whose symbols have something in common."""
    lengths = np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(int)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    level = np.repeat(rng.normal(worse, 0.2, count), lengths)
    return Ragged(rng.gamma(1.5, 1.4, offsets[-1]) * np.exp(level), offsets)


def per_symbol(bits):
    return np.add.reduceat(bits.flat, bits.offsets[:-1]) / bits.lengths, bits.lengths


@pytest.fixture(scope="module")
def profile():
    rng = np.random.default_rng(0)
    return Profile.of(drawn(rng, 300), drawn(rng, 60), bits=scored(rng, 400))


@pytest.mark.parity
def test_percentiles_count_ties_half_as_scipy_does():
    from scipy.stats import percentileofscore

    held = np.array([1.0, 2.0, 2.0, 2.0, 3.5] * 8 + list(range(10)))
    profile = Profile.of(Ragged.of([[A] * 4] * 30), bits=Ragged.of([[x] * 7 for x in held], np.float64))
    asked = np.array([-1.0, 1.0, 2.0, 3.5, 9.0, 99.0])
    want = [percentileofscore(held, x, "mean") for x in asked]
    np.testing.assert_allclose(profile.percentile(asked, np.full(6, 7)), want, atol=1e-9)


@pytest.mark.parity
def test_percentiles_of_the_same_source_are_uniform_at_every_length():
    from scipy.stats import ks_2samp, kstest

    rng = np.random.default_rng(1)
    reference = scored(rng, 4000)
    profile = Profile.of(Ragged.of([[A] * 4] * 30), bits=reference)
    mean_N, count_N = per_symbol(scored(rng, 1500))
    share_N = profile.percentile(mean_N, count_N) / 100
    parts = {"all": count_N > 0, "short": count_N < 10, "long": count_N > 100}
    for name, part in parts.items():
        assert kstest(share_N[part], "uniform").pvalue > 0.01, name
    pooled, _ = per_symbol(reference)
    assert ks_2samp(pooled, mean_N[parts["short"]]).pvalue < 1e-6  # what one band for all lengths would give


def test_percentiles_say_nothing_without_a_reference_and_of_nothing(profile):
    few = Profile.of(Ragged.of([[A] * 4] * 30), bits=Ragged.of([[1.0] * 5] * 10, np.float64))
    assert np.isnan(few.percentile([1.0], [5])).all()
    assert np.isnan(profile.percentile([0.0, np.nan], [0, 5])).all()
    assert profile.percentile([np.inf, 0.0], [5, 5]).tolist() == [100, 0]


@pytest.mark.parity
def test_divergence_and_tail_are_those_of_scipy():
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import binom

    p, q = np.random.default_rng(2).dirichlet(np.ones(9), 2)
    p[3] = 0
    p /= p.sum()
    assert _shares.divergence(p, q) == pytest.approx(jensenshannon(p, q, 2) ** 2, rel=1e-9)
    assert _shares.tail(7, 90, 0.03) == pytest.approx(binom.sf(6, 90, 0.03), rel=1e-9)


@pytest.mark.parametrize(("train", "given"), [(300, 5), (200, 100), (100, 2000), (40, 40)])
def test_the_same_source_is_seldom_called_another(train, given):
    """At most 2 in 100, though symbols come in runs and sequences in kinds."""
    alarms, independent = 0, 0
    for seed in range(100):
        rng = np.random.default_rng([seed, train, given])
        learnt, fresh = drawn(rng, train), drawn(rng, given)
        alarms += bool(Profile.of(learnt, drawn(rng, 50)).warnings(fresh))
        shares = [np.bincount(part.flat - A, minlength=4) / part.total for part in (learnt, fresh)]
        both = 1 / (1 / learnt.total + 1 / fresh.total)
        independent += 2 * np.log(2) * 4 * both * _shares.divergence(*shares) > 11.34  # chi-square of 3, 1 in 100
    assert alarms <= 2
    assert independent > 20  # the usual test does not know what hangs together


def test_other_shares_are_seen_and_named(profile):
    seen = 0
    for seed in range(20):
        shifted = drawn(np.random.default_rng(seed), 500, shares=(0.6, 0.15, 0.2, 0.05))
        said = profile.warnings(shifted, name=lambda id: "abcd"[id - A])
        seen += bool(said) and said[0].startswith("the symbols come in other shares than in training")
    assert seen >= 19
    assert "; 'a' is " in said[0] or "; 'b' is " in said[0]


def test_symbols_that_training_never_saw_are_told_beside_the_usual_share(profile):
    tokens = drawn(np.random.default_rng(3), 40)
    tokens.values[np.random.default_rng(4).random(tokens.total) < 0.3] = UNK
    said = profile.warnings(tokens)
    share = round(100 * (tokens.flat == UNK).mean())
    assert said == [f"{share} % of the symbols were never seen in training (0 % in its held-out part)"]
    tokens.values[tokens.values == UNK] = A
    tokens.values[:2] = UNK
    assert not any("never seen" in sentence for sentence in profile.warnings(tokens))


@pytest.mark.parametrize("whole", [True, False])
def test_an_unknown_share_that_the_held_out_part_has_too_is_no_news(whole):
    """Neither where sequences of another kind are unknown from end to end, nor where few symbols were judged."""
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 5])
        parts = [drawn(rng, count) for count in ((100, 40, 40) if whole else (100, 4, 4))]
        for part in parts[1:]:
            odd = np.repeat(rng.random(len(part)) < 0.15, part.lengths) if whole else rng.random(part.total) < 0.05
            part.values[odd] = UNK
        alarms += any("never seen" in said for said in Profile.of(*parts[:2]).warnings(parts[2]))
    assert alarms <= 1


def test_new_symbols_are_told_where_hardly_any_were_held_out():
    rng = np.random.default_rng(11)
    small = Profile.of(drawn(rng, 30, mean=5), drawn(rng, 4, mean=4))
    assert small.judged < 50
    given = drawn(rng, 60, mean=5)
    assert not any("never seen" in said for said in small.warnings(given))
    new = Ragged(np.full_like(given.flat, UNK), given.offsets)
    assert small.warnings(new)[0] == "100 % of the symbols were never seen in training"
    unique = Ragged(np.arange(given.total) + A, given.offsets)
    assert not any("never seen" in said for said in Profile.of(unique, small_part(given)).warnings(new))


def small_part(tokens):
    return tokens.select(np.arange(3))


SOURCES = {
    "noise": lambda rng, length: rng.normal(size=length),
    "walk": lambda rng, length: rng.normal(size=length).cumsum(),
    "heavy": lambda rng, length: rng.standard_t(1.5, size=length),
    "skewed": lambda rng, length: np.exp(1.5 * rng.normal() + rng.normal(size=length)),
    "waves": lambda rng, length: np.sin(np.arange(length) / 3 + rng.uniform(0, 6)) + rng.normal(0, 0.01, length),
    "levels": lambda rng, length: 10 * rng.normal() + rng.normal(size=length),
}


def reached(rng, source, parts, times=1.0):
    """What is said of the last of three parts of real series, ``times`` as large as they were."""
    made = [[SOURCES[source](rng, int(rng.geometric(1 / 40)) + 1) for _ in range(count)] for count in parts]
    made[2] = [own * times for own in made[2]]
    return judged(made)


def judged(made):
    sequences = [Sequences.of(own) for own in made]
    features = Features.fit(sequences[0])
    columns = [features.of(own) for own in sequences]
    profile = Profile.of(*columns[:2]).with_channels(features, *columns[:2])
    assert Profile.from_json(json.loads(json.dumps(profile.to_json(), allow_nan=False))) == profile
    return [said for said in profile.warnings(columns[2], columns=columns[2]) if "lie outside" in said]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("parts", [(300, 40, 5), (25, 3, 1), (25, 3, 60)])
def test_values_of_the_same_source_are_seldom_called_outside(source, parts):
    assert sum(bool(reached(np.random.default_rng([seed, *parts]), source, parts)) for seed in range(50)) <= 1


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("given", "least"), [(1, 12), (300, 17)])
def test_values_a_hundred_thousand_times_as_large_are_told(source, given, least):
    """One short series of a source whose series differ a hundredfold among themselves may pass."""
    seen = sum(bool(reached(np.random.default_rng(seed), source, (100, 10, given), 1e5)) for seed in range(20))
    assert seen >= least


def test_how_far_outside_is_told_in_the_data_s_own_units():
    rng = np.random.default_rng(12)
    train, held_out = ([rng.uniform(10, 20, 30) for _ in range(count)] for count in (50, 8))
    train[0][:2] = 10, 20
    (said,) = judged([train, held_out, [np.array([15.0, 400.0, 15.0, -3.0])]])
    assert said == "2 of 4 numbers of 'value' lie outside what training saw: -3 to 400, there 10 to 20"


def test_one_long_series_may_go_on_but_not_far_beyond():
    false, seen = 0, 0
    for seed in range(50):
        whole = SOURCES["walk"](np.random.default_rng(seed), 1500)
        false += bool(judged([[whole[:1200]], [whole[1200:1350]], [whole[1350:]]]))
        seen += bool(judged([[whole[:1200]], [whole[1200:1350]], [1e5 * whole[1350:]]]))
    assert false <= 1
    assert seen == 50


def test_long_sequences_are_told_where_the_tail_of_training_does_not_reach(profile):
    longest = profile.lengths[-1]
    said = profile.warnings(Ragged.of([[A, A + 1, A + 2] * longest]))
    assert said[0] == (
        f"the sequence is longer than any in training: up to {3 * longest:,} symbols, there at most {longest:,}"
    )
    many = Ragged.of([[A] * (longest + 1)] * 5 + [[A]] * 35)
    assert profile.warnings(many)[0].startswith("5 of 40 sequences are longer than any in training")
    assert not any("longer" in said for said in profile.warnings(Ragged.of([[A] * (longest + 1)])))


def test_data_that_fit_worse_or_suspiciously_well_are_told(profile):
    rng = np.random.default_rng(6)
    assert profile.warnings(None, scored(rng, 300)) == []
    (worse,) = profile.warnings(None, scored(rng, 60, worse=0.4))
    assert worse.startswith("the sequences fit worse than the held-out part: half of them worse than ")
    (better,) = profile.warnings(None, scored(rng, 60, worse=-0.4))
    assert better.endswith("were they part of the training data?")


def test_a_fit_that_only_a_small_held_out_part_makes_look_odd_is_not_told():
    alarms = 0
    for seed in range(100):
        rng = np.random.default_rng([seed, 7])
        alarms += bool(Profile.of(Ragged.of([[A]] * 30), bits=scored(rng, 60)).warnings(None, scored(rng, 3000)))
    assert alarms <= 2


def test_one_long_sequence_is_judged_in_pieces():
    rng = np.random.default_rng(8)
    whole = drawn(rng, 3000)
    cut = [0, 60_000, 75_000]
    train, held_out, fresh = (Ragged.of([whole.flat[a:b]]) for a, b in zip(cut, [*cut[1:], None], strict=True))
    bits = [Ragged(rng.gamma(1.5, 1.4, x.total) * scale, x.offsets) for x, scale in ((held_out, 1), (fresh, 1.1))]
    profile = Profile.of(train, held_out, bits=bits[0])
    assert profile.piece == 600
    assert [band.length for band in profile.held_out] == pytest.approx([50, 200], rel=0.05)
    assert profile.warnings(fresh) == []
    assert profile.warnings(fresh, bits[1])[0].startswith("pieces of 600 symbols fit worse")
    other = Ragged.of([drawn(rng, 300, shares=(0.8, 0.05, 0.1, 0.05)).flat])
    assert "other shares" in profile.warnings(other)[0]


def test_values_have_lengths_and_bits_alone():
    rng = np.random.default_rng(9)
    train = Ragged(rng.normal(size=(3000, 2)), np.arange(0, 3001, 30))
    profile = Profile.of(train, train, bits=scored(rng, 100))
    assert profile.ids == ()
    assert profile.warnings(train, scored(rng, 50)) == []
    assert "longer" in profile.warnings(Ragged(train.values, np.array([0, 3000])))[0]


def test_little_is_no_ground_for_a_word(profile):
    for given in (Ragged.of([]), Ragged.of([[]]), Ragged.of([[UNK, A]]), Ragged.of([[A + 3] * 20])):
        assert profile.warnings(given, Ragged(np.ones(given.total), given.offsets)) == []
    empty = Profile.of(Ragged.of([]), Ragged.of([]), bits=Ragged.of([], np.float64))
    said = empty.warnings(drawn(np.random.default_rng(0), 50), scored(np.random.default_rng(0), 50))
    assert said == [COARSE]


def test_a_profile_is_small_and_survives_its_file(profile):
    text = json.dumps(profile.to_json(), allow_nan=False)
    assert Profile.from_json(json.loads(text)) == profile
    assert len(text) < 20_000
    assert told([]) == []
    assert told(["31 % of ..."], "m")[0] == "warning: 31 % of ..."
    assert "--from m" in told(["31 % of ..."], "m")[1]
    assert "--from" not in told(["31 % of ..."], "m", network=False)[1]
    assert told([COARSE]) == [f"note: {COARSE}"]


def test_a_million_symbols_are_judged_at_once(profile):
    rng = np.random.default_rng(10)
    tokens, bits = drawn(rng, 33_000), scored(rng, 15_000)
    began = time.process_time()
    profile.warnings(tokens, bits)
    assert time.process_time() - began < 2  # 0.05 s on an idle core
