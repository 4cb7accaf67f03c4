"""The tree search against the full one where both must agree, its laws, and what it costs."""

import math

import pytest
import torch

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.tree_topk import evaluations, tree_topk

BACKENDS = ["reference", "numba_cpu", "torch_cpu"]
FIRST = torch.zeros(1, dtype=torch.long)


def draw(T=16, S=256, K=8, heads=(2, 1), dtype=torch.float64):
    return torch.randn(1, heads[0], T, K, dtype=dtype), torch.randn(1, heads[1], S, K, dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_room_for_all_everything_visible_is_found(backend):
    q, k = draw(T=8, S=20)
    with use_backend(backend):
        found = tree_topk(q, k, FIRST + 12, 10, 4, 2)
    assert found[0, 0].tolist() == [[*range(8), -1, -1], list(range(10))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_nobody_looks_ahead(backend):
    q, k = draw(T=64, S=64)
    with use_backend(backend):
        found = tree_topk(q, k, FIRST, 4, 1, 1)
        loud = k.clone()
        loud[:, :, 40:] = 1e6
        assert torch.equal(tree_topk(q, loud, FIRST, 4, 1, 1)[:, :, :40], found[:, :, :40])
    assert bool((found[0, 0].amax(1) <= torch.arange(64)).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_lists_are_ascending_without_repetition(backend):
    q, k = draw(T=33, S=300)
    with use_backend(backend):
        found = tree_topk(q, k, FIRST + 267, 8, 8, 2, 3)[0, 0]
    for row in found.tolist():
        assert len(set(row)) == 8
        assert row == sorted(row)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_beam_that_is_right_at_every_fork_finds_the_best(backend):
    """Scores that rise towards one place: each half that holds it has the larger middle."""
    S, target = 256, 77
    height = -(torch.arange(S).double() - target).abs()
    q, k = torch.ones(1, 1, 1, 1).double(), height.view(1, 1, S, 1)
    with use_backend(backend):
        found = tree_topk(q, k, FIRST + S - 1, 4)
    assert target in found.flatten().tolist()


def test_smooth_scores_are_found_as_by_a_full_search():
    """Scores that change over eight tokens, T / 16 of them wanted: what the specification measured as recall 1."""
    S, beam = 4096, 256
    rng = torch.Generator().manual_seed(0)
    rough = torch.randn(1, 1, S + 64, generator=rng)
    taps = torch.exp(-0.5 * (torch.arange(-32, 33) / 8.0) ** 2)
    smooth = torch.nn.functional.conv1d(rough, taps.view(1, 1, -1))[..., :S]
    found = tree_topk(torch.ones(1, 1, 1, 1), smooth.view(1, 1, S, 1), FIRST + S - 1, beam)
    wanted = set(smooth.flatten().topk(beam).indices.tolist())
    assert len(wanted & set(found.flatten().tolist())) >= 0.95 * beam


def test_evaluations_grow_like_t_log_t():
    lengths = [2**n for n in range(12, 17)]
    counts = [evaluations(1, length, [0], 64, 32, 2, 2) for length in lengths]
    ratios = [count / (length * math.log2(length / 128)) for count, length in zip(counts, lengths, strict=True)]
    assert max(ratios) / min(ratios) < 1.25
    assert counts[-1] < lengths[-1] ** 2 / 50


def test_a_search_that_wants_gradients_stays_with_its_backend():
    q, k = draw(T=8, S=20)
    found = tree_topk(q.requires_grad_(), k.requires_grad_(), FIRST + 12, 4)
    assert not found.requires_grad
    assert torch.equal(found, tree_topk(q.detach(), k.detach(), FIRST + 12, 4))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"beam": 0}, "at least 1"), ({"keys": 0}, "at least 1"), ({"offset_B": FIRST - 1}, "position")],
)
def test_bad_options_are_named(options, said):
    q, k = draw()
    with use_backend("reference"), pytest.raises(ConfigError, match=said):
        tree_topk(q, k, **{"offset_B": FIRST, "beam": 4} | options)
