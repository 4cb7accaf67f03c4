"""The gated delta rule against its steps in numpy, transformers' chunks, and its own laws: segments, lengths, gates."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.delta_rule import delta_rule

BACKENDS = ["reference", "torch_cpu", "numba_cpu"]


def draw(B=2, T=70, H=2, K=4, V=3, dtype=torch.float64):
    q, k, v, s = (torch.randn(*size, dtype=dtype) for size in ((B, T, H, K), (B, T, H, K), (B, T, H, V), (B, H, K, V)))
    k = k / k.norm(dim=-1, keepdim=True)
    return q, k, v, -torch.rand(B, T, H, dtype=dtype), torch.rand(B, T, H, dtype=dtype), s


def by_matrices(q, k, v, g, beta, s):
    """S_t = e^g (I - beta k k^T) S + beta k v^T, one matrix after the other, as the papers write it."""
    q, k, v, g, beta, s = (x.numpy() for x in (q, k, v, g, beta, s))
    y, last = np.zeros(v.shape), s.copy()
    for b, h in np.ndindex(s.shape[:2]):
        for t in range(q.shape[1]):
            key = k[b, t, h][:, None]
            turn = np.eye(len(key)) - beta[b, t, h] * key @ key.T
            last[b, h] = np.exp(g[b, t, h]) * turn @ last[b, h] + beta[b, t, h] * key @ v[b, t, h][None]
            y[b, t, h] = last[b, h].T @ q[b, t, h]
    return torch.from_numpy(y), torch.from_numpy(last)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_matrices_from_a_state(backend):
    case = draw()
    with use_backend(backend):
        assert_close(delta_rule(*case), by_matrices(*case), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("decay", [-1e3, -1e5, -float("inf")])
@pytest.mark.parametrize("backend", ["torch_cpu", "numba_cpu"])
def test_one_strong_decay_leaves_the_others_their_digits(backend, decay):
    case = [value.float() for value in draw(B=1, T=64, K=16, V=16)]
    case[3] *= 0.05
    case[3][:, 3] = decay
    with use_backend("reference"):
        want = delta_rule(*(value.double() for value in case))
    with use_backend(backend):
        assert_close([value.double() for value in delta_rule(*case)], list(want), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_behind_a_length_is_read(backend):
    q, k, v, g, beta, s = draw(B=2, T=70)
    lengths = torch.tensor([3, 66])
    with use_backend(backend):
        want = delta_rule(q, k, v, g, beta, s, None, lengths)
        for value in (q, k, v, g, beta):
            value[0, 3:] = value[1, 66:] = torch.nan
        assert_close(delta_rule(q, k, v, g, beta, s, None, lengths), want, rtol=0, atol=0)


def test_more_values_than_a_panel_holds():
    case = [value.requires_grad_() for value in draw(B=1, T=70, K=6, V=70)]
    found = {}
    for backend in ("numba_cpu", "reference"):
        with use_backend(backend):
            y, last = delta_rule(*case)
            found[backend] = y, last, *torch.autograd.grad(y.sin().sum() + last.cos().sum(), case)
    assert_close(found["numba_cpu"], found["reference"], rtol=1e-11, atol=1e-11)


@pytest.mark.parity
def test_equals_the_chunks_of_transformers():
    theirs = pytest.importorskip("transformers.models.qwen3_next.modeling_qwen3_next")
    q, k, v, g, beta, s = draw(T=131, K=8, V=5, dtype=torch.float32)
    want = theirs.torch_chunk_gated_delta_rule(q, k, v, g, beta, initial_state=s, output_final_state=True)
    assert_close(delta_rule(q * 8**-0.5, k, v, g, beta, s), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parity
def test_equals_the_naive_form_of_fla():
    naive = pytest.importorskip("fla.ops.gated_delta_rule.naive")
    q, k, v, g, beta, s = draw(T=41, K=8, V=5, dtype=torch.float32)
    want = naive.naive_recurrent_gated_delta_rule(q, k, v, beta, g, initial_state=s, output_final_state=True)
    assert_close(delta_rule(q * 8**-0.5, k, v, g, beta, s), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_key_that_comes_again_replaces_its_value(backend):
    key = torch.zeros(1, 2, 1, 4).double()
    key[..., 1] = 1
    value = torch.randn(1, 2, 1, 3).double()
    one = torch.ones(1, 2, 1).double()
    with use_backend(backend):
        y, last = delta_rule(key, key, value, 0 * one, one, torch.zeros(1, 1, 4, 3).double())
    assert_close(y, value)
    assert_close(last[0, 0, 1], value[0, 1, 0])
    assert last.abs().sum() == last[0, 0, 1].abs().sum()


@pytest.mark.parametrize("backend", BACKENDS)
def test_segments_equal_rows_of_their_own(backend):
    q, k, v, g, beta, s = draw(B=1, T=80)
    starts = [0, 7, 8, 66]  # the first goes on from the state
    number = torch.zeros(1, 80, dtype=torch.long)
    for start in starts[1:]:
        number[:, start:] += 1
    with use_backend(backend):
        y, last = delta_rule(q, k, v, g, beta, s, number)
    for start, stop in zip(starts, [*starts[1:], 80], strict=True):
        before = s if start == 0 else torch.zeros_like(s)
        alone = delta_rule.reference(*(x[:, start:stop] for x in (q, k, v, g, beta)), before)
        assert_close(y[:, start:stop], alone[0], rtol=1e-12, atol=1e-12)
    assert_close(last, alone[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_stands_behind_a_length_changes_nothing(backend):
    case, lengths_B = draw(B=3, T=67), torch.tensor([67, 0, 34])
    loud = [x * (1 + 1e6 * (torch.arange(67) >= lengths_B[:, None]).view(3, 67, *[1] * (x.ndim - 2))) for x in case[:5]]
    with use_backend(backend):
        y, last = delta_rule(*case, None, lengths_B)
        other = delta_rule(*loud, case[5], None, lengths_B)
        assert torch.equal(y, other[0])
        assert torch.equal(last, other[1])
        for row, length in enumerate(lengths_B.tolist()):
            alone = delta_rule.reference(*(x[row : row + 1, :length] for x in case[:5]), case[5][row : row + 1])
            assert_close((y[row : row + 1, :length], last[row : row + 1]), alone, rtol=1e-12, atol=1e-12)
            assert y[row, length:].abs().sum() == 0


@pytest.mark.parametrize("spread", [0.0, 60.0])
def test_gates_at_their_ends_stay_finite(spread):
    q, k, v, g, beta, s = draw(T=130, dtype=torch.float32)
    case = [x.requires_grad_() for x in (q, k, v, g * spread, (beta > 0.5).float(), s)]
    y, last = delta_rule(*case)
    grads = torch.autograd.grad(y.square().sum() + last.square().sum(), case)
    assert all(bool(x.isfinite().all()) for x in (y, last, *grads))
    want = by_matrices(*(x.detach().double() for x in case))
    assert_close(y.double(), want[0], rtol=1e-3, atol=1e-4)


def test_one_key_for_ever_stays_bounded():
    """The triangle is as badly conditioned as it can be: all keys the same, everything rewritten each time."""
    B, T, H, K = 1, 512, 1, 8
    k = torch.full((B, T, H, K), K**-0.5)
    v, one = torch.randn(B, T, H, 4), torch.ones(B, T, H)
    y, _ = delta_rule(k, k, v, 0 * one, one, torch.zeros(B, H, K, 4))
    assert_close(y, v, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    case = [x.to(dtype) for x in draw()]
    y, last = delta_rule(*case)
    want, state = delta_rule(*(x.float() for x in case))
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    assert_close(y, want.to(dtype))
    assert_close(last, state)


@pytest.mark.parametrize(
    ("at", "change", "said"),
    [(1, lambda x: x[:, :-1], "k "), (4, lambda x: x[..., :1], "beta"), (5, lambda x: x[:1], "state")],
)
def test_what_does_not_fit_is_named(at, change, said):
    case = list(draw())
    case[at] = change(case[at])
    with pytest.raises(ConfigError, match=said), use_backend("reference"):
        delta_rule(*case)
