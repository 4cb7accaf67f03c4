"""Decayed attention against the sum over all pairs of positions, and its own laws: chunks, segments, pads, gauges."""

import pytest
import torch
from torch.testing import assert_close

from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.decay_attention import decay_attention, normalised_decay_attention

BACKENDS = ["reference", "numba_cpu", "triton_cuda"]
FAST = BACKENDS[1:]
DECAYS = [1, 4]


def draw(B=2, T=11, H=4, G=2, K=4, V=3, C=1, dtype=torch.float64):
    normal = [torch.randn(*size, dtype=dtype) for size in ((B, T, G, K), (B, T, G, K), (B, T, H, V), (B, H, K, V))]
    q, k, v, s = normal
    return q, k, v, -torch.rand(B, T, H, C, dtype=dtype), s


def by_pairs(q_BTGK, k_BTGK, v_BTHV, log_decay_BTHC, s_BHKV):
    """y_t = sum over s <= t of (q_t . e^(F_t - F_s) k_s) v_s, with F the running sum of the decays' logarithms."""
    H = v_BTHV.shape[2]
    q, k = (value.repeat_interleave(H // value.shape[2], 2) for value in (q_BTGK, k_BTGK))
    total = log_decay_BTHC.expand(*v_BTHV.shape[:2], -1, q.shape[3]).cumsum(1)
    ahead_TS = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).triu(1)
    span_BTSHK = total[:, :, None] - total[:, None]
    span_BTSHK = span_BTSHK.masked_fill(ahead_TS[..., None, None], -torch.inf).exp()
    scores_BTSH = torch.einsum("bthk,bshk,btshk->btsh", q, k, span_BTSHK)
    y_BTHV = torch.einsum("btsh,bshv->bthv", scores_BTSH, v_BTHV)
    y_BTHV = y_BTHV + torch.einsum("bthk,bthk,bhkv->bthv", q, total.exp(), s_BHKV)
    end_BSHK = (total[:, -1:] - total).exp()
    last = torch.einsum("bshk,bshk,bshv->bhkv", end_BSHK, k, v_BTHV) + total[:, -1].exp()[..., None] * s_BHKV
    return y_BTHV, last


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decays", DECAYS)
def test_equals_the_sum_over_pairs(backend, decays):
    case = draw(C=decays)
    with use_backend(backend):
        assert_close(decay_attention(*case), by_pairs(*case), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("decays", DECAYS)
def test_gradients_equal_those_of_the_sum(decays):
    case = [value.requires_grad_() for value in draw(T=67, B=1, C=decays)]  # beyond a chunk of either backend
    weights = [torch.randn(1, 67, 4, 3).double(), torch.randn(1, 4, 4, 3).double()]

    def loss(outputs):
        return sum((value * weight).sum() for value, weight in zip(outputs, weights, strict=True))

    want = torch.autograd.grad(loss(by_pairs(*case)), case)
    for backend in FAST:
        with use_backend(backend):
            got = torch.autograd.grad(loss(decay_attention(*case)), case)
        assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_decay_is_that_decay_everywhere(backend):
    q, k, v, log_decay, s = draw()
    constant = log_decay[:1, :1]
    with use_backend(backend):
        assert_close(
            decay_attention(q, k, v, constant, s),
            by_pairs(q, k, v, constant.expand_as(log_decay), s),
            rtol=1e-10,
            atol=1e-10,
        )


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("decays", DECAYS)
def test_chunks_join(backend, decays):
    q, k, v, a, s = draw(B=1, T=70, C=decays)
    with use_backend(backend):
        whole, last = decay_attention(q, k, v, a, s)
    first, between = decay_attention(q[:, :65], k[:, :65], v[:, :65], a[:, :65], s)
    second, end = decay_attention(q[:, 65:], k[:, 65:], v[:, 65:], a[:, 65:], between)
    assert_close((torch.cat([first, second], 1), end), (whole, last), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("decays", DECAYS)
def test_a_segment_sees_itself_alone_and_a_pad_holds(backend, decays):
    q, k, v, a, s = draw(B=1, T=14, C=decays)
    k[:, 11:], a[:, 11:] = 0, 0
    segments_BT = torch.tensor([[0] * 6 + [1] * 8])
    with use_backend(backend):
        y, last = decay_attention(q, k, v, a, s, segments_BT)
    want, after = by_pairs(*(value[:, 6:11] for value in (q, k, v, a)), torch.zeros_like(s))
    assert_close((y[:, 6:11], last), (want, after), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("decays", DECAYS)
def test_shut_gates_stay_finite(backend, decays):
    """A sum of a hundred logarithms of -60 is no exponent of float32; no quotient of decays is ever formed."""
    q, k, v, a, s = draw(T=100, C=decays, dtype=torch.float32)
    case = [value.requires_grad_() for value in (q, k, v, 60 * a, s)]
    with use_backend(backend):
        outputs = decay_attention(*case)
        grads = torch.autograd.grad(outputs[0].sum() + outputs[1].sum(), case)
    assert all(value.isfinite().all() for value in (*outputs, *grads))
    want = by_pairs(*(value.detach().double() for value in case))
    assert_close(outputs[0].double(), want[0], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", FAST)
def test_half_precision_keeps_float32_states(backend):
    q, k, v, a, s = draw(B=1, T=300, dtype=torch.float32)
    a = a * 1e-3  # decays of 0.9995 would round to 1
    half = [value.bfloat16() for value in (q, k, v)]
    with use_backend(backend):
        y, last = decay_attention(*half, a, s)
    assert (y.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    want = by_pairs(*(value.double() for value in half), a.double(), s.double())[1]
    assert float((last - want).norm() / want.norm()) < 1e-2  # products of bfloat16 have 8 bits


def mlstm_by_pairs(q, k, v, log_decay, log_input):
    """The parallel form with the maximum of each row taken out."""
    total = log_decay.cumsum(1)
    D = total[:, :, None] - total[:, None] + log_input[:, None]
    seen_TS11 = torch.ones(q.shape[1], q.shape[1], dtype=torch.bool).tril()[..., None]
    D = D.masked_fill(~seen_TS11, -torch.inf)
    m = torch.maximum(D.amax(2), total)  # the first state is zeros in the unit e^0
    weights = torch.einsum("bthk,bshk->btsh", q, k) * (D - m[:, :, None]).exp()
    bound = torch.maximum(weights.sum(2).abs(), (-m).exp())
    return torch.einsum("btsh,bshv->bthv", weights, v) / bound[..., None]


def cell(T=12, scale=1.0, dtype=torch.float64):
    q, k, v = (torch.randn(2, T, 3, size, dtype=dtype) for size in (4, 4, 5))
    gates = [torch.nn.functional.logsigmoid(scale * torch.randn(2, T, 3, dtype=dtype)), scale * torch.randn(2, T, 3)]
    return q, k, v, gates[0], gates[1].to(dtype)


def fresh(dtype=torch.float64, m=0.0):
    state = torch.zeros(2, 3, 4, 5, dtype=dtype), torch.zeros(2, 3, 4, dtype=dtype)
    return *state, torch.full((2, 3), m, dtype=dtype)


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("backend", FAST)
def test_the_mlstm_cell_equals_its_parallel_form(backend, scale):
    given = cell(scale=scale)
    with use_backend(backend):
        h, *_ = normalised_decay_attention(*given, *fresh())
    assert_close(h, mlstm_by_pairs(*given), rtol=1e-9, atol=1e-9)


def test_the_stabiliser_is_a_gauge():
    """The same memory written in another unit gives the same outputs."""
    given = cell()
    c, n, _ = (torch.randn_like(value) for value in fresh())
    want = normalised_decay_attention(*given, c, n, torch.zeros(2, 3).double())
    for m in (-50.0, 5.0):
        unit = torch.full((2, 3), m).double()
        got = normalised_decay_attention(*given, c * (-unit).exp()[..., None, None], n * (-unit).exp()[..., None], unit)
        assert_close(got[0], want[0], rtol=1e-10, atol=1e-10)
        size = (got[3] - want[3]).exp()
        assert_close(got[1] * size[..., None, None], want[1], rtol=1e-9, atol=1e-9)


def test_mlstm_gradients_equal_those_of_its_parallel_form():
    given = [value.requires_grad_() for value in cell()]
    weight = torch.randn(2, 12, 3, 5).double()
    got = torch.autograd.grad((normalised_decay_attention(*given, *fresh())[0] * weight).sum(), given)
    want = torch.autograd.grad((mlstm_by_pairs(*given) * weight).sum(), given)
    assert_close(got, want, rtol=1e-8, atol=1e-8)


def test_mlstm_chunks_join_and_segments_forget():
    q, k, v, f, i = cell(T=20, scale=4.0)
    whole = normalised_decay_attention(q, k, v, f, i, *fresh())
    first = normalised_decay_attention(*(value[:, :9] for value in (q, k, v, f, i)), *fresh())
    second = normalised_decay_attention(*(value[:, 9:] for value in (q, k, v, f, i)), *first[1:])
    assert_close(torch.cat([first[0], second[0]], 1), whole[0], rtol=1e-10, atol=1e-10)
    assert_close(second[1:], whole[1:], rtol=1e-10, atol=1e-10)
    segments_BT = (torch.arange(20) >= 9).long().expand(2, -1)
    packed = normalised_decay_attention(q, k, v, f, i, *first[1:], segments_BT)
    alone = normalised_decay_attention(*(value[:, 9:] for value in (q, k, v, f, i)), *fresh())
    assert_close(packed[0][:, 9:], alone[0], rtol=1e-10, atol=1e-10)


def test_no_step_leaves_the_state():
    q, k, v, a, s = draw(T=0)
    y, last = decay_attention(q, k, v, a, s)
    assert y.shape == (2, 0, 4, 3)
    assert torch.equal(last, s)


@pytest.mark.parametrize(
    ("at", "shape", "word"),
    [(0, (2, 11, 3, 4), "do not fit"), (3, (2, 11, 4, 2), "log_decay"), (4, (2, 4, 4, 4), "state")],
)
def test_shapes_that_do_not_fit_are_named(at, shape, word):
    case = list(draw())
    case[at] = torch.zeros(shape).double()
    with pytest.raises(ConfigError, match=word):
        decay_attention(*case)
