import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.testing import assert_close

from seqloom.kernels._kernel import use_backend
from seqloom.kernels.block_attention import block_attention, block_attention_backward, seen_pairs, visible
from seqloom.kernels.block_attention._visible import reach

BACKENDS = ["reference", "torch_cpu"]


def draw(B: int, H: int, G: int, T: int, S: int, K: int, V: int, dtype=torch.float64) -> list[Tensor]:
    rng = torch.Generator().manual_seed(T * 100 + S)
    shapes = (B, H, T, K), (B, G, S, K), (B, G, S, V)
    return [torch.randn(shape, generator=rng, dtype=dtype).requires_grad_() for shape in shapes]


def gradients(outputs, inputs) -> list[Tensor]:
    rng = torch.Generator().manual_seed(1)
    total = sum((o * torch.randn(o.shape, generator=rng, dtype=torch.float64)).sum() for o in outputs)
    return list(torch.autograd.grad(total, inputs))


def seen_by_hand(T: int, S: int, offset: int | None, window: int, mask: Tensor | None) -> Tensor:
    seen = torch.ones(2, 1, T, S, dtype=torch.bool)
    for t in range(T):
        for s in range(S):
            if offset is not None and (s > t + offset or (window and s <= t + offset - window)):
                seen[:, :, t, s] = False
            if mask is not None and mask.ndim == 3:
                for b in range(2):
                    seen[b, :, t, s] &= bool(mask[b, t, 0] <= s < mask[b, t, 1])
    return seen & mask if mask is not None and mask.ndim == 4 else seen


def span(T: int, S: int) -> Tensor:
    rng = torch.Generator().manual_seed(3)
    first_BT = torch.randint(0, S, (2, T), generator=rng)
    return torch.stack([first_BT, first_BT + torch.randint(1, 5, (2, T), generator=rng)], -1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("T", "S", "offset", "window", "kind"),
    [
        (6, 6, None, 0, "none"),
        (6, 6, 0, 0, "none"),
        (4, 9, 5, 0, "none"),
        (4, 9, 5, 3, "none"),
        (9, 4, 0, 0, "none"),
        (5, 7, None, 0, "bool"),
        (5, 7, 2, 0, "bool"),
        (5, 7, None, 0, "span"),
        (261, 270, 9, 20, "none"),
        (261, 261, 0, 0, "span"),
    ],
)
def test_equals_torch_with_the_same_visible_keys(backend, T, S, offset, window, kind):
    inputs = draw(2, 4, 2, T, S, 6, 6)
    mask = None
    if kind == "bool":
        mask = torch.rand(2, 1, T, S, generator=torch.Generator().manual_seed(2)) < 0.6
        mask[..., 0] = True
    if kind == "span":
        mask = span(T, S)
        mask[..., 0] = mask[..., 0].minimum(torch.arange(T) if offset == 0 else mask[..., 0])
        mask[..., 1] = mask[..., 1].maximum(mask[..., 0] + 1)
    seen = seen_by_hand(T, S, offset, window, mask)
    assert seen.any(-1).all()
    q, k, v = inputs
    want = sdpa(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=seen)
    scores = (q @ k.repeat_interleave(2, 1).mT / 6**0.5).masked_fill(~seen, -torch.inf)
    with use_backend(backend):
        o, l = block_attention(q, k, v, mask, offset, window)
        got = gradients((o, l), inputs)
    assert_close(o, want)
    assert_close(l, scores.logsumexp(-1))
    assert_close(got, gradients((want, scores.logsumexp(-1)), inputs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_key_give_zero_and_pass_no_gradient(backend):
    q, k, v = draw(2, 2, 2, 5, 4, 3, 3)
    mask = torch.ones(2, 1, 5, 4, dtype=torch.bool)
    mask[1, 0, 3] = False
    with use_backend(backend):
        for o, l, blind in (
            (*block_attention(q, k, v, mask), (1, slice(None), 3)),
            (*block_attention(q, k, v, None, -2), (slice(None), slice(None), slice(0, 2))),
            (*block_attention(q, k, v, torch.zeros(2, 5, 2, dtype=torch.long)), ...),
            (*block_attention(q, k, v, torch.where(mask, 0.0, -torch.inf).double()), (1, slice(None), 3)),
        ):
            assert (o[blind] == 0).all()
            assert (l[blind] == -torch.inf).all()
            assert torch.isfinite(l).sum() == l.numel() - l[blind].numel()
            dq, dk, dv = torch.autograd.grad(o.sum() + l.nan_to_num(neginf=0).sum(), (q, k, v))
            assert (dq[blind] == 0).all()
            assert all(d.isfinite().all() for d in (dq, dk, dv))


@pytest.mark.parametrize(("T", "S"), [(0, 3), (3, 0), (0, 0)])
def test_empty_blocks_do_not_kill_the_process(T, S):
    q, k, v = draw(2, 4, 2, T, S, 3, 5)
    o, l = block_attention(q, k, v, None, S - T)
    assert (o.shape, l.shape) == ((2, 4, T, 5), (2, 4, T))
    assert (o == 0).all()
    assert (l == -torch.inf).all()
    assert all((d == 0).all() for d in torch.autograd.grad(o.sum(), (q, k, v)))
    with use_backend("torch_cpu"), pytest.raises(ValueError, match="kills the process"):
        block_attention(q, k, v)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("window", [0, 4])
def test_merged_blocks_equal_the_whole(backend, window):
    inputs = draw(2, 4, 2, 7, 10, 5, 3)
    q, k, v = inputs
    with use_backend(backend):
        whole, whole_l = block_attention(q, k, v, None, 3, window)
        o, l = torch.zeros_like(whole), torch.full_like(whole_l, -torch.inf)
        for a, b in ((6, 10), (0, 2), (2, 6)):
            o2, l2 = block_attention(q, k[:, :, a:b], v[:, :, a:b], None, 3 - a, window)
            top = torch.logaddexp(l, l2)
            safe = torch.where(top > -torch.inf, top, 0)
            o, l = o * (l - safe).exp()[..., None] + o2 * (l2 - safe).exp()[..., None], top
        assert_close((o, l), (whole, whole_l))
        assert_close(gradients((o, l), inputs), gradients((whole, whole_l), inputs))


@pytest.mark.parametrize("backend", BACKENDS)
def test_backward_by_blocks_equals_the_whole(backend):
    q, k, v = (x.detach() for x in draw(2, 4, 2, 7, 10, 4, 4))
    o, l = block_attention.reference(q, k, v, None, 3)
    do, dl = torch.randn_like(o), torch.randn_like(l)
    want = block_attention_backward.reference(do, dl, o, l, q, k, v, None, 3)
    with use_backend(backend):
        parts = [
            block_attention_backward(do, dl, o, l, q, k[:, :, a:b], v[:, :, a:b], None, 3 - a)
            for a, b in ((0, 6), (6, 10))
        ]
    assert_close(parts[0][0] + parts[1][0], want[0])
    assert_close([torch.cat([parts[0][i], parts[1][i]], 2) for i in (1, 2)], list(want[1:]))


def test_backends_and_both_kernels_agree_on_every_case():
    for kernel in (block_attention, block_attention_backward):
        for inputs in kernel.generate(torch.Generator().manual_seed(0), torch.float64):
            if kernel.backends[0].refuses(inputs) is not None:
                continue
            with use_backend("torch_cpu"):
                got = kernel(*inputs)
            assert_close(got, kernel.reference(*inputs), rtol=1e-9, atol=1e-12)


def test_channels_need_not_be_adjacent():
    wide = [x.detach() for x in draw(2, 4, 2, 5, 6, 8, 8)]
    q, k, v = (x[..., ::2].requires_grad_() for x in wide)
    want = block_attention.reference(q, k, v, None, 1)
    with use_backend("torch_cpu"):
        got = block_attention(q, k, v, None, 1)
        assert_close(got, want)
        d_got = torch.autograd.grad(got[0].sum(), (q, k, v))  # the gradient of a sum is one number, seen everywhere
    assert_close(d_got, torch.autograd.grad(want[0].sum(), (q, k, v)))


def test_custom_ops_are_well_formed():
    for kernel in (block_attention, block_attention_backward):
        case = list(kernel.generate(torch.Generator().manual_seed(0), torch.float64))[1]
        wants = [x.requires_grad_() if kernel is block_attention and isinstance(x, Tensor) else x for x in case]
        torch.library.opcheck(kernel.backends[0].op, tuple(wants))


def test_first_and_second_order_gradients():
    q, k, v = draw(1, 2, 1, 3, 4, 2, 3)
    assert torch.autograd.gradcheck(lambda *x: block_attention(*x, None, 1), (q, k, v), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda *x: block_attention(*x, None, 1), (q, k, v), fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_keeps_the_log_sum_exp_in_float32(dtype):
    inputs = draw(2, 4, 2, 300, 300, 16, 8)
    want = block_attention(*inputs, None, 0, 50)
    d_want = gradients(want, inputs)
    small = [x.detach().to(dtype).requires_grad_() for x in inputs]
    got = block_attention(*small, None, 0, 50)
    assert (got[0].dtype, got[1].dtype) == (dtype, torch.float32)
    step = torch.finfo(dtype).eps
    assert_close(got[0].double(), want[0], rtol=4 * step, atol=4 * step)
    assert_close(got[1].double(), want[1], rtol=8 * step, atol=8 * step)
    for one, other in zip(gradients([x.double() for x in got], small), d_want, strict=True):
        assert (one.double() - other).norm() < 4 * step * other.norm()


def test_additive_mask_gets_its_gradient_from_the_reference():
    q, k, v = draw(2, 4, 2, 5, 6, 3, 3)
    bias = torch.randn(1, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    (d_bias,) = torch.autograd.grad(block_attention(q, k, v, bias)[0].sin().sum(), bias)
    want = sdpa(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=bias)
    assert_close(d_bias, torch.autograd.grad(want.sin().sum(), bias)[0])
    reasons = {v.backend: v.reason for v in block_attention.explain(q, k, v, bias)}
    assert "no gradient to an additive mask" in reasons["torch_cpu"]
    with use_backend("torch_cpu"):
        assert_close(block_attention(q, k, v, bias.detach())[0], want)


def test_scale_and_memory_layout():
    q, k, v = draw(2, 4, 4, 5, 6, 3, 2)
    want = sdpa(q, k, v, scale=0.3)
    for backend in BACKENDS:
        with use_backend(backend):
            o, _ = block_attention(q, k, v, None, None, 0, 0.3)
        assert_close(o, want)
        assert o.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(("offset", "window"), [(0, 0), (3, 0), (-2, 0), (3, 4), (None, 0), (40, 4)])
def test_pairs_and_reach_agree_with_the_mask(offset, window):
    T, S = 8, 11
    seen = visible((0, T), (0, S), None, offset, window, like=torch.empty(0))
    dense = torch.ones(1, 1, T, S, dtype=torch.bool) if seen is None else seen
    assert seen_pairs(T, S, offset, window) == int(dense.sum())
    for rows in ((0, 3), (3, 8)):
        first, stop = reach(rows, S, None, offset, window)
        outside = dense[..., slice(*rows), :].clone()
        outside[..., first:stop] = False
        assert not outside.any()
    q = torch.empty(2, 4, T, 6)
    assert block_attention.floor(q, q.new_empty(2, 2, S, 6), q.new_empty(2, 2, S, 5), None, offset, window).macs == (
        2 * 4 * 11 * int(dense.sum())
    )


def test_compiles_in_one_graph():
    torch._dynamo.reset()
    q, k, v = (x.detach().requires_grad_() for x in draw(1, 2, 1, 5, 5, 4, 4))
    fast = torch.compile(lambda *x: block_attention(*x, None, 0), fullgraph=True, backend="aot_eager")
    assert_close(gradients(fast(q, k, v), (q, k, v)), gradients(block_attention(q, k, v, None, 0), (q, k, v)))
