import numpy as np
import pytest
import torch
from torch.testing import assert_close

from seqloom.core.counting import saved_bytes
from seqloom.core.errors import ConfigError
from seqloom.kernels._kernel import use_backend
from seqloom.kernels.gated_long_conv import gated_long_conv
from seqloom.kernels.gated_long_conv.torch_cpu import refuses
from seqloom.kernels.long_conv import _tiles

CASES = list(gated_long_conv.generate(torch.Generator().manual_seed(0), torch.float64))
SIZEABLE = [case for case in CASES if refuses(*case) is None]


def by_matrix(v, k, back=None, skip=None, pre=None, post=None):
    """post * (M (pre * v)) with the dense matrix M of every channel."""
    T, u = v.shape[1], (v if pre is None else v * pre).numpy()
    y = np.zeros_like(u)
    for d in range(v.shape[2]):
        M = np.zeros((T, T))
        for t in range(T):
            for s in range(T):
                if 0 <= t - s < k.shape[1]:
                    M[t, s] = k[d, t - s]
                elif back is not None and 0 <= s - t - 1 < back.shape[1]:
                    M[t, s] = back[d, s - t - 1]
        if skip is not None:
            M += np.eye(T) * float(skip[d])
        y[..., d] = u[..., d] @ M.T
    return torch.from_numpy(y) if post is None else torch.from_numpy(y) * post


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_equals_the_dense_matrices(case):
    want = by_matrix(*case)
    for form in ("reference",) if refuses(*case) else ("reference", "torch_cpu"):
        with use_backend(form):
            assert_close(gated_long_conv(*case), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("case", SIZEABLE, ids=lambda case: "x".join(map(str, case[0].shape)))
def test_gradients_of_several_tiles_are_those_of_plain_autograd(case, monkeypatch):
    monkeypatch.setattr(_tiles, "TILE", 300)
    monkeypatch.setattr(_tiles, "CHANNELS", 2)
    weight = torch.randn_like(case[0])
    leaves = [None if x is None else x.clone().requires_grad_() for x in case]
    into = [x for x in leaves if x is not None]
    with use_backend("torch_cpu"):
        got = torch.autograd.grad((gated_long_conv(*leaves) * weight).sum(), into)
    v, k, back, skip, pre, post = leaves
    T, D = v.shape[1], v.shape[2]
    lag = torch.arange(T)[:, None] - torch.arange(T)
    M = torch.where((lag >= 0) & (lag < k.shape[1]), k[:, lag.clamp(0, k.shape[1] - 1)], torch.zeros(D, T, T).double())
    if back is not None:
        M = M + torch.where((lag < 0) & (-lag <= back.shape[1]), back[:, (-lag - 1).clamp(0, back.shape[1] - 1)], 0.0)
    if skip is not None:
        M = M + torch.diag_embed(skip[:, None].expand(D, T))
    y = torch.einsum("dts,bsd->btd", M, v if pre is None else v * pre)
    want = torch.autograd.grad(((y if post is None else y * post) * weight).sum(), into)
    assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_keeps_its_inputs_alone():
    """The product before and the sums after the convolution would be two more."""
    v, pre, post = (torch.randn(2, 300, 8, requires_grad=True) for _ in range(3))
    k = torch.randn(8, 300, requires_grad=True)
    assert saved_bytes(lambda *x: gated_long_conv(x[0], x[1], None, None, x[2], x[3]), v, k, pre, post) == (
        3 * v.nbytes + k.nbytes
    )


def test_arithmetic_is_float32_inside():
    v, pre, post = (torch.randn(2, 200, 4).bfloat16() for _ in range(3))
    k = torch.randn(4, 200) * torch.exp(-torch.arange(200) / 50)
    want = by_matrix(v.double(), k.double(), None, None, pre.double(), post.double())
    got = gated_long_conv(v, k, None, None, pre, post)
    assert got.dtype == torch.bfloat16
    assert (got.double() - want).abs().max() <= 2**-8 * want.abs().max()


def test_gates_of_another_shape_are_refused():
    v, k = torch.randn(2, 20, 3), torch.randn(3, 20)
    with pytest.raises(ConfigError, match="post_BTD"):
        gated_long_conv(v, k, None, None, None, v[:1])
