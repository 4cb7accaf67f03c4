import json
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqloom.core.errors import CheckpointError, ConfigError
from seqloom.core.rng import generator, gumbel_rows, philox4x32, set_state, state, torch_generator, uniform_rows

# the vectors that the authors of Philox publish with Random123 (kat_vectors, philox4x32 10)
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "want"), KNOWN)
def test_philox_gives_the_published_vectors(counter, key, want):
    assert tuple(philox4x32(np.array(counter, np.uint32)[:, None], key)[:, 0].tolist()) == want


def test_philox_is_the_same_for_many_counters_at_once():
    counter_4N = np.random.default_rng(0).integers(0, 1 << 32, (4, 20_001), dtype=np.uint32)
    together = philox4x32(counter_4N, (1, 2))
    for n in (0, 8191, 8192, 20_000):  # both sides of a block's edge
        assert np.array_equal(together[:, n], philox4x32(counter_4N[:, n : n + 1], (1, 2))[:, 0])


def test_streams_are_pinned_for_ever():
    """A change of these numbers changes every run that anybody has made with a given seed."""
    assert generator(0, 1, 2).integers(0, 1 << 32, 4).tolist() == [1986042880, 908398835, 363575955, 718206313]
    assert generator(7, "corrupt", 3).random(2).tolist() == [0.5516899039618799, 0.21014020008744483]
    assert torch_generator(0, 1, 2).initial_seed() == 7041071281303688990
    want = [0.885633748549076, 0.08760854413700592, 0.15805469691860385, 0.0534885583424618]
    assert uniform_rows(5, [0, 1, 2**40, -1], 3).tolist() == want


def test_streams_are_the_same_in_another_process():
    code = "from seqloom.core.rng import generator; print(generator(3, 'x', 9).integers(1 << 62))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(out) == generator(3, "x", 9).integers(1 << 62)


KEYS = st.lists(st.integers(-(2**70), 2**70) | st.text(max_size=4), min_size=1, max_size=4)


@given(KEYS, KEYS)
def test_two_keys_share_a_stream_only_if_they_are_equal(a, b):
    same = generator(0, *a).integers(1 << 62) == generator(0, *b).integers(1 << 62)
    assert same == (a == b)


@pytest.mark.parametrize(("a", "b"), [((1, 23), (12, 3)), (("1",), (1,)), (("a", "b"), ("ab",)), (("a,i1",), ("a", 1))])
def test_keys_that_read_alike_differ(a, b):
    assert generator(0, *a).integers(1 << 62) != generator(0, *b).integers(1 << 62)


def test_key_accepts_numpy_integers_and_refuses_floats():
    assert generator(0, np.int64(4)).random() == generator(0, 4).random()
    with pytest.raises(TypeError):
        generator(0, 1.5)


def test_torch_generator_repeats_and_separates():
    draw = [torch.rand(3, generator=torch_generator(0, epoch)) for epoch in (0, 1, 0)]
    assert torch.equal(draw[0], draw[2])
    assert not torch.equal(draw[0], draw[1])


@given(st.permutations(range(6)), st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_rows_do_not_depend_on_the_batch(order, size, step):
    ids = [10**12 + i for i in range(6)]
    whole = gumbel_rows(1, ids, step, 7)
    some = gumbel_rows(1, torch.tensor([ids[i] for i in order[:size]]), step, 7)
    assert torch.equal(some, whole[list(order[:size])])


def test_steps_by_row_equal_separate_calls():
    got = uniform_rows(2, [4, 4, 9], torch.tensor([0, 5, 5]))
    assert got.tolist() == [uniform_rows(2, [i], s).item() for i, s in [(4, 0), (4, 5), (9, 5)]]


def test_every_coordinate_separates_the_numbers():
    base = uniform_rows(0, [3], 4, 5)[0]
    assert len(set(base.tolist())) == 5
    for other in (uniform_rows(1, [3], 4, 5), uniform_rows(0, [3 + 2**32], 4, 5), uniform_rows(0, [3], 5, 5)):
        assert not set(other[0].tolist()) & set(base.tolist())


def test_width_only_appends_columns():
    wide = uniform_rows(0, [1, 2], 0, 6)
    assert wide.dtype == torch.float64
    assert torch.equal(uniform_rows(0, [1, 2], 0, 3), wide[:, :3])
    assert torch.equal(uniform_rows(0, [1, 2], 0), wide[:, 0])
    assert uniform_rows(0, [], 0, 4).shape == (0, 4)
    assert uniform_rows(0, [1], 0, 0).shape == (1, 0)


def test_distributions():
    from scipy import stats

    u = uniform_rows(0, range(2000), 0, 5).numpy()
    assert 0 <= u.min() < u.max() < 1
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(gumbel_rows(0, range(2000), 0, 5).numpy().ravel(), "gumbel_r").pvalue > 1e-3
    assert np.abs(np.corrcoef(u.T) - np.eye(5)).max() < 0.1


def test_gumbel_is_finite_at_both_ends_of_the_bits(monkeypatch):
    for words in (0, 0xFFFFFFFF):
        monkeypatch.setattr(
            "seqloom.core.rng.philox4x32", lambda counter, _key, words=words: np.full_like(counter, words)
        )
        assert gumbel_rows(0, [0], 0, 3).isfinite().all()
        assert (uniform_rows(0, [0], 0, 3) < 1).all()


def test_argmax_with_gumbel_samples_the_softmax():
    from scipy import stats

    p = torch.tensor([0.1, 0.2, 0.7], dtype=torch.float64)
    counts = (p.log() + gumbel_rows(0, range(4000), 1, 3)).argmax(-1).bincount(minlength=3)
    assert stats.chisquare(counts.numpy(), (4000 * p).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("ids", "step", "words"), [([1.5], 0, "row_ids"), ([1], -1, "step"), ([1], 2**32, "step"), ([1, 2], [0], "1 steps")]
)
def test_rows_refuse_what_would_wrap_silently(ids, step, words):
    with pytest.raises(ConfigError, match=words):
        uniform_rows(0, ids, step)


def draws(own, torch_own):
    return [
        random.random(),
        random.gauss(0, 1),
        np.random.random(),  # noqa: NPY002 - the global generator is what is tested
        np.random.standard_normal(),  # noqa: NPY002
        torch.rand(3).tolist(),
        torch.randn(3).tolist(),
        own.random(),
        own.integers(0, 100, 3, dtype=np.uint32).tolist(),
        torch.rand(2, generator=torch_own).tolist(),
    ]


def test_state_resumes_bit_for_bit_through_json():
    own, torch_own = generator(0, 1), torch_generator(0, 1)
    draws(own, torch_own)  # leaves half-used buffers behind: a second gauss, half a Philox block
    before = state({"own": own, "torch_own": torch_own})
    tensors = {"torch": before["torch"].clone(), "torch_own": before["generators"]["torch_own"].clone()}
    text = json.dumps(before | {"torch": None, "devices": [], "generators": before["generators"] | {"torch_own": None}})
    want = draws(own, torch_own)
    draws(own, torch_own)
    saved = json.loads(text) | {"torch": tensors["torch"]}
    saved["generators"]["torch_own"] = tensors["torch_own"]
    set_state(saved, {"own": own, "torch_own": torch_own})
    assert draws(own, torch_own) == want


def test_state_of_other_generators_is_refused():
    with pytest.raises(CheckpointError, match="'own'"):
        set_state(state({"own": generator(0)}))


def test_state_of_more_accelerators_is_refused():
    saved = state() | {"devices": [torch.zeros(16, dtype=torch.uint8)] * 99}
    with pytest.raises(CheckpointError, match="99 accelerators"):
        set_state(saved)
